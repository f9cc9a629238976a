"""How KV cache gets from prefill to decode: really, over a socket, as many bytes as the model's shape says.

SGLang's own wire format is Mooncake's; only what can be seen from outside is the same: the bootstrap server's `/health`
and `/route`, the number of bytes, and that a decode worker notices nothing when the bytes come from other weights.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from workflows.simulator.http.server import Handler

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
    """Bootstrap rooms: where a prefill worker leaves the KV cache of one request for its decode worker."""

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
        """Waits until every rank was fetched, and forgets the room. Empty, or why the transfer failed."""
        with self._condition:
            kept = self._rooms[room]
            done = self._condition.wait_for(lambda: kept.failed or not kept.waiting_for, timeout)
            del self._rooms[room]
            return kept.failed or ("" if done else f"no decode worker fetched it within {timeout:g} s")


@dataclass(frozen=True)
class Topology:
    """What the handshake compares, beside TP; a decode worker with another page size dies of its first request."""

    tp_size: int
    page_size: int
    kv_cache_dtype: str
    http_port: int

    def body(self) -> dict[str, object]:
        return {
            "attn_tp_size": self.tp_size,
            "attn_cp_size": 1,
            "dp_size": 1,
            "pp_size": 1,
            "page_size": self.page_size,
            "kv_cache_dtype": self.kv_cache_dtype,
            "follow_bootstrap_room": True,
            "enable_dsa_cache_layer_split": False,
            "decode_allocation_policy": "early",
            "enable_kv_cache_sharding": False,
            "prefill_http_port": self.http_port,
            "target_tp_rank": None,
            "target_tp_ranks": None,
            "target_cp_ranks": None,
            "target_pp_ranks": None,
            "required_dst_info_num": None,
            "required_prefill_response_num": None,
        }


class Bootstrap:
    """What a prefill worker's second server tells. `/route` is 503 until `register`.

    `broken_with` says for a decode pod whether no transfer to it succeeds, `is_silent` whether this
    worker hands over nothing at all. Both are asked at each transfer.
    """

    def __init__(
        self, rooms: Rooms, timeout: float, broken_with: Callable[[str], bool], is_silent: Callable[[], bool]
    ) -> None:
        self.rooms = rooms
        self.is_silent = is_silent
        self.timeout = timeout
        self.broken_with = broken_with
        self.topology: Topology | None = None

    def register(self, topology: Topology) -> None:
        self.topology = topology


def bootstrap_handler(bootstrap: Bootstrap) -> type[Handler]:
    return type("BootstrapHandler", (_BootstrapHandler,), {"bootstrap": bootstrap})


class _BootstrapHandler(Handler):
    bootstrap: Bootstrap

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/health":
            self.send_body(200, b"OK", "text/plain; charset=utf-8")
        elif url.path == "/route":
            self._route()
        elif url.path == KV_PATH:
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            self._hand_over(int(query["room"]), int(query["rank"]), query["decode"])
        else:
            self.send_body(404, b"404: Not Found", "text/plain; charset=utf-8")

    def _route(self) -> None:
        topology = self.bootstrap.topology
        if topology is None:
            self.send_body(503, b"Prefill server not fully registered yet", "text/plain; charset=utf-8")
        else:
            self.send_body(200, json.dumps(topology.body()).encode(), "application/json; charset=utf-8")

    def _hand_over(self, room: int, rank: int, decode: str) -> None:
        rooms = self.bootstrap.rooms
        if self.bootstrap.is_silent():
            self.send_body(204, b"", "text/plain")
            return
        cache = rooms.find(room, self.bootstrap.timeout)
        if cache is None:
            self.send_body(504, b"no such room", "text/plain")
            return
        if self.bootstrap.broken_with(decode):
            rooms.fail(room, f"Failed to send kv chunk of {room} to {decode}")
            self.send_body(502, b"transfer failed", "text/plain")
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(cache.size))
        self.end_headers()
        for block in cache.blocks(rank):
            self.wfile.write(block)
        self.wfile.flush()
        rooms.fetched(room, rank)
