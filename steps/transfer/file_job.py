"""One file on its way: parts arrive in any order, are hashed in order, and are stored meanwhile.

The file is made whole only when every part is stored and the SHA-256 over all of them is the published one.
"""

import threading
from dataclasses import dataclass, field

from steps.model import ModelFile
from steps.ports.modelscope import ModelSource
from steps.reconcile.clock import Clock
from steps.transfer import hashing
from steps.transfer.checkpoint import Checkpoint
from steps.transfer.layout import Layout, Part
from steps.transfer.sink import Corrupted, FileSink, Move, WrongContent
from steps.transfer.sums import Release, Sums

# A checkpoint is a small object or file. It is saved after so many parts or seconds, whichever comes first.
SAVE_PARTS = 8
SAVE_SECONDS = 5.0

ATTEMPTS = 2  # a file whose bytes are wrong is fetched once more, in case another replica answers


@dataclass
class _Progress:
    """What changes while the parts of one attempt move; guarded by the lock of the job."""

    sums: Sums
    handed_out: int = 0
    frontier: int = 0  # leading parts that are stored and hashed
    stored: set[int] = field(default_factory=set)  # beyond the frontier
    saved: int = 0
    saved_at: float = 0.0
    proved: bool = False  # an earlier process found the SHA-256 right
    finishing: bool = False


class FileJob:
    """No part is handed out that lies more than `window` parts beyond the saved checkpoint: however long one part is
    held up while others go on, a killed process moves at most so many parts of a file again.
    """

    def __init__(
        self, file: ModelFile, layout: Layout, source: ModelSource, sink: FileSink, clock: Clock, window: int
    ) -> None:
        self.file = file
        self._window = window
        self.layout = layout
        self.moved = 0  # bytes that this process stored
        self._source = source
        self._sink = sink
        self._clock = clock
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._attempt = 1
        self._whole: _Whole | None = None
        self._now = self._from_the_start()

    @property
    def at_hand(self) -> int:
        """Bytes that need not move, because an earlier process stored them."""
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

    def hand_out(self) -> Part:
        """The next part, for whoever moves it; not safe for two threads at once."""
        self._now.handed_out += 1
        return self.layout.part(self._now.handed_out)

    def prepare(self, move: Move) -> bool:
        """Go on where an earlier process stopped. True if nothing is left but to make the file whole."""
        first = self._attempt == 1
        if move.replace and first:
            self._sink.make_room()
            if not move.resume:
                self._sink.discard()
        checkpoint = self._sink.resume() if move.resume and first else None
        if checkpoint is None:
            return False
        sha256 = self._continued(checkpoint)
        if sha256 is None:
            self._sink.discard()
            return False
        parts = checkpoint.parts
        self._now = _Progress(
            Sums(self.layout.part_size, hashed=parts, sha256=sha256, crc64=checkpoint.crc64),
            handed_out=parts,
            frontier=parts,
            saved=parts,
            saved_at=self._clock.now(),
            proved=parts == self.layout.parts,
        )
        return self._now.proved

    def _from_the_start(self) -> _Progress:
        return _Progress(Sums(self.layout.part_size), saved_at=self._clock.now())

    def _continued(self, checkpoint: Checkpoint) -> hashing.Sha256 | None:
        if checkpoint.part_size != self.layout.part_size or checkpoint.parts > self.layout.parts:
            return None
        if checkpoint.parts == self.layout.parts:
            return hashing.sha256()  # not needed any more: a complete checkpoint is saved after the sum was right
        return hashing.resumed(checkpoint.sha256_state, self.layout.bytes_of(checkpoint.parts))

    def move(self, part: Part, buffer: memoryview, release: Release) -> bool:
        """Fetch one part, store it, hash what is next. `release` is called once nobody needs `buffer` any more.

        True if it was the last thing to do before the file can be made whole.
        """
        body = buffer[: part.length]
        crc64 = self._source.read(self.file, part.start, body) if part.length else 0
        if self.layout.parts == 1:
            # Writing a file of one part makes it whole, so that waits until its SHA-256 is known to be right.
            self._now.sums.include(body, crc64)
            self._whole = _Whole(body, release)
            return True
        both = _Both(release)
        self._now.sums.add(part.number, body, crc64, both.one_done)
        self._sink.write(part, body, crc64)
        both.one_done()
        return self._store(part)

    def complete(self) -> None:
        """Make the file whole. Raises Corrupted if its bytes are not the published ones; nothing is left of it then."""
        if self._whole:
            self._put(self._whole)
            return
        if not self._now.proved:
            self._refuse_wrong_sum()
        # Saves of other threads that are still under way must not land after the last one.
        with self._saving:
            self._now.saved = self.layout.parts
            self._sink.finish(Checkpoint(self.layout.part_size, self.layout.parts, "", self._now.sums.crc64))

    def _put(self, whole: "_Whole") -> None:
        self._whole = None
        try:
            self._refuse_wrong_sum()
            self._sink.put(whole.body, self._now.sums.crc64)
        finally:
            whole.release()
        self.moved += whole.body.nbytes

    def start_over(self, found: Corrupted, advice: str) -> None:
        """Raises WrongContent if that was tried already."""
        with self._saving:
            self._sink.discard()
        if self._attempt == ATTEMPTS:
            raise WrongContent(self.file, f"{found}, {ATTEMPTS} times", advice) from found
        self._attempt += 1
        self._now = self._from_the_start()

    def save_if_due(self) -> None:
        # Whoever finds a save under way leaves it to that thread, which looks again when it is done.
        while self._is_due() and self._saving.acquire(blocking=False):
            try:
                self._save()
            finally:
                self._saving.release()

    def save(self) -> None:
        """Save how far the file is, because this process ends."""
        with self._saving:
            self._save()

    def close(self) -> None:
        self._sink.close()

    @property
    def _safe(self) -> int:
        """Leading parts of which a checkpoint may be saved. Only `complete` may say all: it means the sum was right."""
        return min(self._now.frontier, self.layout.parts - 1)

    def _is_due(self) -> bool:
        behind = self._safe - self._now.saved
        late = self._clock.now() - self._now.saved_at >= SAVE_SECONDS
        return behind >= SAVE_PARTS or (behind > 0 and late)

    def _save(self) -> None:
        with self._lock:
            parts = self._safe
            checkpoint = self._now.sums.checkpoint(parts)
        if checkpoint is None or parts <= self._now.saved:
            return
        self._sink.save(checkpoint)
        self._now.saved, self._now.saved_at = parts, self._clock.now()

    def _store(self, part: Part) -> bool:
        now = self._now
        with self._lock:
            now.stored.add(part.number)
            self.moved += part.length
            while now.frontier + 1 in now.stored and now.frontier < now.sums.hashed:
                if now.frontier < self.layout.parts - 1:
                    now.sums.forget(now.frontier)
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
    release: Release


class _Both:
    """Calls `release` when the two users of a buffer are done with it."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._lock = threading.Lock()
        self._users = 2

    def one_done(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._release()
