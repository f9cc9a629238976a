"""The order of work: files in turn, part by part, with a bounded number of buffers.

A part and its buffer are taken together, under one lock. Parts of a file are handed out in order, so the oldest
unhashed part always owns a buffer and always continues: waiting for buffers cannot deadlock. A file waits if its next
part lies too far beyond its saved resume point, while other files continue.
"""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from mmap import mmap

from steps.transfer import direct_io
from steps.transfer.file_job import FileJob
from steps.transfer.layout import FilePart

# SHA-256 is sequential within a file. Parts of so many files are handed out in turn, so that several cores hash.
FILES_AT_ONCE = 4


@dataclass(frozen=True)
class WorkItem:
    """Move one part of a file; without a part, prepare the file."""

    job: FileJob
    part: FilePart | None = None
    buffer: mmap | None = None


class Schedule:
    def __init__(self, jobs: Iterable[FileJob], *, buffers: int, buffer_size: int) -> None:
        self._changed = threading.Condition()
        self._waiting = deque(jobs)
        self._unfinished = len(self._waiting)
        self._preparing = 0
        self._open: deque[FileJob] = deque()  # with parts to hand out
        self._moving: dict[int, FileJob] = {}
        self._free: list[mmap] = []
        self._unmade = buffers  # buffers are made at their first use, so small files need little memory
        self._buffer_size = buffer_size
        self._stopped = False

    def take(self) -> WorkItem | None:
        """The next item, perhaps after a wait; None once all files are done or the schedule is stopped."""
        with self._changed:
            while self._unfinished and not self._stopped:
                item = self._next()
                if item:
                    return item
                self._changed.wait()
            return None

    def ready(self, job: FileJob) -> None:
        """The file is prepared."""
        with self._changed:
            self._preparing -= 1
            if job.has_parts_left:
                self._open.append(job)
            self._changed.notify_all()

    def give_back(self, buffer: mmap) -> None:
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()

    def advanced(self) -> None:
        """A part was stored, or a resume point saved: a waiting file may continue."""
        with self._changed:
            self._changed.notify_all()

    def again(self, job: FileJob) -> None:
        """The file starts over."""
        with self._changed:
            self._waiting.appendleft(job)
            self._changed.notify_all()

    def finished(self, job: FileJob) -> None:
        with self._changed:
            self._unfinished -= 1
            del self._moving[id(job)]
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand out no more items."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Whether all files are done or the schedule is stopped, after at most so long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._stopped or not self._unfinished, seconds)

    @property
    def moving(self) -> list[FileJob]:
        """Files in transfer, in the order of their start."""
        with self._changed:
            return list(self._moving.values())

    def _next(self) -> WorkItem | None:
        if self._waiting and len(self._open) + self._preparing < FILES_AT_ONCE:
            job = self._waiting.popleft()
            self._preparing += 1
            self._moving[id(job)] = job
            return WorkItem(job)
        if not (self._free or self._unmade):
            return None
        for _ in range(len(self._open)):
            job = self._open.popleft()
            if job.may_go_on:
                part = job.hand_out()
                if job.has_parts_left:
                    self._open.append(job)
                return WorkItem(job, part, self._buffer())
            self._open.append(job)
        return None

    def _buffer(self) -> mmap:
        if self._free:
            return self._free.pop()
        self._unmade -= 1
        return direct_io.buffer(self._buffer_size)
