"""SHA-256 and CRC-64 of a file with parts in any order of arrival.

SHA-256 needs the bytes in order, so a part waits, with its buffer, for the ones before it. The CRC-64 is joined from
those of the parts, which were computed at their arrival.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from steps.transfer import hashing
from steps.transfer.resume_point import ResumePoint

ReleaseBuffer = Callable[[], None]


class Sums:
    """The sums of the first `hashed` parts; safe to use from several threads."""

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
        self._points: dict[int, ResumePoint] = {}  # by their count of parts

    def add(self, number: int, body: memoryview, crc64: int, release_buffer: ReleaseBuffer) -> None:
        """Add a part and its CRC-64. The thread with the next part hashes it, and all that wait behind it.

        `release_buffer` is called after the last use of the bytes here.
        """
        with self._lock:
            self._waiting[number] = _Arrived(body, crc64, release_buffer)
            if self._hashing:
                return
            self._hashing = True
        while following := self._next():
            self.include(following.body, following.crc64)
            with self._lock:
                self.hashed += 1
                state = self._sha256.state()
                self._points[self.hashed] = ResumePoint(self._part_size, self.hashed, state, self.crc64)
            following.release_buffer()

    def include(self, body: memoryview, crc64: int) -> None:
        """Hash the next bytes; for one thread alone."""
        self._sha256.update(body)
        self.crc64 = hashing.joined(self.crc64, crc64, len(body))

    def resume_point(self, parts: int) -> ResumePoint | None:
        """The sums after so many parts; None if they are dropped, or not computed yet."""
        with self._lock:
            return self._points.get(parts)

    def drop_resume_point(self, parts: int) -> None:
        """Drop the sums after so many parts."""
        with self._lock:
            self._points.pop(parts, None)

    def sha256(self) -> str:
        """In hex; the last call."""
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
    release_buffer: ReleaseBuffer
