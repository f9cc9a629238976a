"""The transfer of one file: parts arrive in any order, are hashed in order, and are stored meanwhile.

The file is made whole only after every part is stored and the SHA-256 over all of them is the published one.
"""

import threading
from dataclasses import dataclass, field

from steps.model import ModelFile
from steps.ports.modelscope import ModelSource
from steps.reconcile.clock import Clock
from steps.transfer import hashing
from steps.transfer.layout import FilePart, Layout
from steps.transfer.resume_point import ResumePoint
from steps.transfer.sink import Corrupted, FileSink, Move, WrongContent
from steps.transfer.sums import ReleaseBuffer, Sums

# A resume point is a small object or file. It is saved after so many parts or seconds.
SAVE_PARTS = 8
SAVE_SECONDS = 5.0

ATTEMPTS = 2  # a file with wrong bytes is fetched once more, perhaps from another replica


@dataclass
class _Progress:
    """The state of one attempt; guarded by the lock of the job."""

    sums: Sums
    handed_out: int = 0
    frontier: int = 0  # leading parts that are stored and hashed
    stored: set[int] = field(default_factory=set)  # beyond the frontier
    saved: int = 0
    saved_at: float = 0.0
    proved: bool = False  # an earlier process verified the SHA-256
    finishing: bool = False


class FileJob:
    """Hands out no part more than `window` parts beyond the saved resume point: even if one part is slow, the process
    after a killed one moves at most so many parts of a file again.
    """

    def __init__(
        self, file: ModelFile, layout: Layout, source: ModelSource, sink: FileSink, clock: Clock, window: int
    ) -> None:
        self.file = file
        self._window = window
        self.layout = layout
        self.moved = 0  # bytes, stored by this process
        self._source = source
        self._sink = sink
        self._clock = clock
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._attempt = 1
        self._whole: _Whole | None = None
        self._now = self._from_the_start()

    @property
    def stored_earlier(self) -> int:
        """Bytes of an earlier process, which do not move again."""
        return self.layout.bytes_of(self._now.frontier)

    @property
    def has_parts_left(self) -> bool:
        return self._now.handed_out < self.layout.parts

    @property
    def may_go_on(self) -> bool:
        """Whether the next part lies within the window."""
        return self._now.handed_out < self._now.saved + self._window

    @property
    def percent(self) -> int:
        return 100 * self._now.frontier // self.layout.parts

    def hand_out(self) -> FilePart:
        """The next part to move; not safe for two threads at once."""
        self._now.handed_out += 1
        return self.layout.part(self._now.handed_out)

    def prepare(self, move: Move) -> bool:
        """Resume the transfer of an earlier process. True if all parts are stored and proved."""
        first = self._attempt == 1
        if move.replace and first:
            self._sink.make_room()
            if not move.resume:
                self._sink.discard()
        point = self._sink.resume() if move.resume and first else None
        if point is None:
            return False
        sha256 = self._resumed(point)
        if sha256 is None:
            self._sink.discard()
            return False
        parts = point.parts
        self._now = _Progress(
            Sums(self.layout.part_size, hashed=parts, sha256=sha256, crc64=point.crc64),
            handed_out=parts,
            frontier=parts,
            saved=parts,
            saved_at=self._clock.now(),
            proved=parts == self.layout.parts,
        )
        return self._now.proved

    def _from_the_start(self) -> _Progress:
        return _Progress(Sums(self.layout.part_size), saved_at=self._clock.now())

    def _resumed(self, point: ResumePoint) -> hashing.Sha256 | None:
        if point.part_size != self.layout.part_size or point.parts > self.layout.parts:
            return None
        if point.parts == self.layout.parts:
            return hashing.sha256()  # not used: a resume point of all parts is saved after the sum is verified
        return hashing.resumed(point.sha256_state, self.layout.bytes_of(point.parts))

    def move(self, part: FilePart, buffer: memoryview, release_buffer: ReleaseBuffer) -> bool:
        """Fetch one part, store it, hash the next one. `release_buffer` is called after the last use of `buffer`.

        True for the last part: `complete` may follow.
        """
        body = buffer[: part.length]
        crc64 = self._source.read(self.file, part.start, body) if part.length else 0
        if self.layout.parts == 1:
            # Writing a file of one part makes it whole, so its SHA-256 is verified first.
            self._now.sums.include(body, crc64)
            self._whole = _Whole(body, release_buffer)
            return True
        both = _LastOfTwo(release_buffer)
        self._now.sums.add(part.number, body, crc64, both.one_done)
        self._sink.write(part, body, crc64)
        both.one_done()
        return self._store(part)

    def complete(self) -> None:
        """Make the file whole. Raises Corrupted for other bytes than the published ones, and leaves no file."""
        if self._whole:
            self._put(self._whole)
            return
        if not self._now.proved:
            self._refuse_wrong_sum()
        # A save of another thread must not land after the last one.
        with self._saving:
            self._now.saved = self.layout.parts
            self._sink.finish(ResumePoint(self.layout.part_size, self.layout.parts, "", self._now.sums.crc64))

    def _put(self, whole: "_Whole") -> None:
        self._whole = None
        try:
            self._refuse_wrong_sum()
            self._sink.put(whole.body, self._now.sums.crc64)
        finally:
            whole.release_buffer()
        self.moved += whole.body.nbytes

    def start_over(self, found: Corrupted, advice: str) -> None:
        """Raises WrongContent after the last attempt."""
        with self._saving:
            self._sink.discard()
        if self._attempt == ATTEMPTS:
            raise WrongContent(self.file, f"{found}, {ATTEMPTS} times", advice) from found
        self._attempt += 1
        self._now = self._from_the_start()

    def save_if_due(self) -> None:
        # The thread that saves checks again afterwards, so the others do not wait for it.
        while self._is_due() and self._saving.acquire(blocking=False):
            try:
                self._save()
            finally:
                self._saving.release()

    def save(self) -> None:
        """Save the resume point, because this process ends."""
        with self._saving:
            self._save()

    def close(self) -> None:
        self._sink.close()

    @property
    def _safe(self) -> int:
        """Leading parts for a resume point. Only `complete` may save all of them: they mean a verified sum."""
        return min(self._now.frontier, self.layout.parts - 1)

    def _is_due(self) -> bool:
        behind = self._safe - self._now.saved
        late = self._clock.now() - self._now.saved_at >= SAVE_SECONDS
        return behind >= SAVE_PARTS or (behind > 0 and late)

    def _save(self) -> None:
        with self._lock:
            parts = self._safe
            point = self._now.sums.resume_point(parts)
        if point is None or parts <= self._now.saved:
            return
        self._sink.save(point)
        self._now.saved, self._now.saved_at = parts, self._clock.now()

    def _store(self, part: FilePart) -> bool:
        now = self._now
        with self._lock:
            now.stored.add(part.number)
            self.moved += part.length
            while now.frontier + 1 in now.stored and now.frontier < now.sums.hashed:
                if now.frontier < self.layout.parts - 1:
                    now.sums.drop_resume_point(now.frontier)
                now.frontier += 1
                now.stored.remove(now.frontier)
            last = now.frontier == self.layout.parts and not now.finishing
            now.finishing = now.finishing or last
        return last

    def _refuse_wrong_sum(self) -> None:
        found = self._now.sums.sha256()
        if found != self.file.sha256:
            raise Corrupted(
                f"{self.file.path} ({self.file.size} bytes) has the SHA-256 {found}, expected {self.file.sha256}"
            )


@dataclass(frozen=True)
class _Whole:
    """A file of one part, hashed and not written yet."""

    body: memoryview
    release_buffer: ReleaseBuffer


class _LastOfTwo:
    """Releases a buffer after the second of its two users."""

    def __init__(self, release_buffer: ReleaseBuffer) -> None:
        self._release_buffer = release_buffer
        self._lock = threading.Lock()
        self._users = 2

    def one_done(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._release_buffer()
