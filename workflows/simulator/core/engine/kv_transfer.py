"""The KV transfer from prefill to decode: as many bytes as the shape of the model requires.

SGLang's own wire format is Mooncake's. The same are the facts visible from outside: the bootstrap server's `/health`
and `/route`, the number of bytes, and that a decode worker detects no error when the bytes come from other weights.
"""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

KV_PATH = "/simulated/kv"


@dataclass(frozen=True)
class KvCache:
    """The KV cache of one prompt. Its bytes are a function of weights, token and position, as the real ones."""

    weights: str
    prompt: tuple[str, ...]
    bytes_per_token: int  # of one rank

    @property
    def size(self) -> int:
        """Bytes of one rank."""
        return len(self.prompt) * self.bytes_per_token

    def blocks(self, rank: int) -> Iterator[bytes]:
        """One block for each token."""
        whole, rest = divmod(self.bytes_per_token, 32)
        for position, token in enumerate(self.prompt):
            seed = hashlib.sha256(f"{self.weights}/{rank}/{position}/{token}".encode()).digest()
            yield seed * whole + seed[:rest]


@dataclass
class _Room:
    cache: KvCache
    waiting_for: set[int]  # ranks that decode has not fetched
    failed: str = ""


class Rooms:
    """Bootstrap rooms: a prefill worker leaves the KV cache of one request there for its decode worker."""

    def __init__(self) -> None:
        self._rooms: dict[int, _Room] = {}
        self._condition = threading.Condition()

    def offer(self, room: int, cache: KvCache, ranks: int) -> None:
        with self._condition:
            self._rooms[room] = _Room(cache, set(range(ranks)))
            self._condition.notify_all()

    def find(self, room: int, timeout: float) -> KvCache | None:
        """Waits until prefill has computed it; None if it does not within `timeout` seconds."""
        with self._condition:
            found = self._condition.wait_for(lambda: room in self._rooms, timeout)
            return self._rooms[room].cache if found else None

    def fetched(self, room: int, rank: int) -> None:
        with self._condition:
            self._rooms[room].waiting_for.discard(rank)
            self._condition.notify_all()

    def fail(self, room: int, why: str) -> None:
        with self._condition:
            if room in self._rooms:
                self._rooms[room].failed = why
            self._condition.notify_all()

    def close(self, room: int, timeout: float) -> str:
        """Waits until every rank was fetched, and removes the room. Empty, or the reason of a failed transfer."""
        with self._condition:
            kept = self._rooms[room]
            done = self._condition.wait_for(lambda: kept.failed or not kept.waiting_for, timeout)
            del self._rooms[room]
            return kept.failed or ("" if done else f"no decode worker fetched it within {timeout:g} s")
