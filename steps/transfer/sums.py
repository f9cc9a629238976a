"""SHA-256 and CRC-64 over a file whose parts arrive in any order.

Both sums go through the bytes from the beginning to the end, so a part waits, with its buffer, for the ones before it.
"""

import threading
from collections.abc import Callable

from steps.transfer import hashing
from steps.transfer.checkpoint import Checkpoint

# Two sums over the same bytes: the second one finds them in the cache of the core, which a whole part does not fit.
PIECE = 1 << 20  # bytes

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
        self._waiting: dict[int, tuple[memoryview, Release]] = {}  # arrived, not hashed yet
        self._checkpoints: dict[int, Checkpoint] = {}  # by the number of parts that they stand for

    def add(self, number: int, body: memoryview, release: Release) -> None:
        """A part has arrived. Whoever brings the next one hashes it, and all that wait behind it; `release` is called
        once its bytes are not needed here any more.
        """
        with self._lock:
            self._waiting[number] = (body, release)
            if self._hashing:
                return
            self._hashing = True
        while following := self._next():
            data, done = following
            self.include(data)
            with self._lock:
                self.hashed += 1
                state = self._sha256.state()
                self._checkpoints[self.hashed] = Checkpoint(self._part_size, self.hashed, state, self.crc64)
            done()

    def include(self, body: memoryview) -> None:
        """Go on with these bytes; for one thread alone."""
        for start in range(0, len(body), PIECE):
            piece = body[start : start + PIECE]
            self._sha256.update(piece)
            self.crc64 = hashing.crc(piece, self.crc64)

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

    def _next(self) -> tuple[memoryview, Release] | None:
        with self._lock:
            following = self._waiting.pop(self.hashed + 1, None)
            if following is None:
                self._hashing = False
            return following
