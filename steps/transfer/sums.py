"""SHA-256 and CRC-64 of a file whose parts arrive in any order.

SHA-256 goes through the bytes from the beginning to the end, so a part waits, with its buffer, for the ones before it.
The CRC-64 is joined from those of the parts, which were taken as they came in.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from steps.transfer import hashing
from steps.transfer.checkpoint import Checkpoint

Release = Callable[[], None]


class Sums:
    """Those of the first `hashed` parts; safe to use from several threads."""

    def __init__(
        self, part_size: int, *, hashed: int = 0, sha256: hashing.Sha256 | None = None, crc64: int = 0
    ) -> None:
        self.hashed = hashed
        self.crc64 = crc64
        self._part_size = part_size
        self._sha256 = sha256 or hashing.sha256()
        self._lock = threading.Lock()
        self._hashing = False  # one thread at a time
        self._waiting: dict[int, _Arrived] = {}  # not hashed yet
        self._checkpoints: dict[int, Checkpoint] = {}  # by the number of parts that they stand for

    def add(self, number: int, body: memoryview, crc64: int, release: Release) -> None:
        """A part has arrived, with its CRC-64. Whoever brings the next one hashes it, and all that wait behind it;
        `release` is called once its bytes are not needed here any more.
        """
        with self._lock:
            self._waiting[number] = _Arrived(body, crc64, release)
            if self._hashing:
                return
            self._hashing = True
        while following := self._next():
            self.include(following.body, following.crc64)
            with self._lock:
                self.hashed += 1
                state = self._sha256.state()
                self._checkpoints[self.hashed] = Checkpoint(self._part_size, self.hashed, state, self.crc64)
            following.release()

    def include(self, body: memoryview, crc64: int) -> None:
        """Go on with these bytes; for one thread alone."""
        self._sha256.update(body)
        self.crc64 = hashing.joined(self.crc64, crc64, len(body))

    def checkpoint(self, parts: int) -> Checkpoint | None:
        """How the sums stood after so many parts; None if that was forgotten, or is still to come."""
        with self._lock:
            return self._checkpoints.get(parts)

    def forget(self, parts: int) -> None:
        """No checkpoint of so many parts will be asked for again."""
        with self._lock:
            self._checkpoints.pop(parts, None)

    def sha256(self) -> str:
        """In hex; nothing may be added afterwards."""
        return self._sha256.hexdigest()

    def _next(self) -> "_Arrived | None":
        with self._lock:
            following = self._waiting.pop(self.hashed + 1, None)
            if following is None:
                self._hashing = False
            return following


@dataclass(frozen=True)
class _Arrived:
    body: memoryview
    crc64: int
    release: Release
