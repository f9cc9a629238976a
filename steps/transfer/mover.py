"""Moves files from a source to a sink with a few threads.

Memory: at most `2 x workers x part` bytes of buffers, where `part` is `transfer.partSize`. Only a file with more
than 9,000 such parts has larger ones, and then fewer buffers, but at least one more than workers.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steps.errors import DeadlineExceeded, StepError
from steps.model import ModelFile
from steps.ports.modelscope import ModelSource
from steps.reconcile.clock import Clock
from steps.reconcile.report import Report
from steps.transfer.file_job import SAVE_PARTS, FileJob
from steps.transfer.layout import layout
from steps.transfer.meter import Meter
from steps.transfer.schedule import Schedule, WorkItem
from steps.transfer.sink import Corrupted, Move, Sink

log = logging.getLogger(__name__)

POLL = 0.2  # seconds between two reports of the progress
GRACE = 5.0  # seconds for threads to end their work; Kubernetes kills a pod 30 s after SIGTERM


@dataclass(frozen=True)
class Limits:
    part_size: int  # bytes
    workers: int  # threads
    deadline: float  # seconds


@dataclass(frozen=True)
class Moved:
    files: int = 0
    bytes: int = 0


class Mover:
    """Moves each file once, or raises the first error; in both cases it saves resume points and leaves no thread.

    Raises WrongContent, DeadlineExceeded, Interrupted (by a signal), and the errors of source and sink.
    """

    def __init__(self, source: ModelSource, sink: Sink, limits: Limits, report: Report, clock: Clock) -> None:
        self._source = source
        self._sink = sink
        self._limits = limits
        self._report = report
        self._clock = clock
        self._failures: list[BaseException] = []

    def run(self, moves: Sequence[Move], done: Callable[[ModelFile], None], advice: str) -> Moved:
        """`done` is called for each file, from several threads; `advice` is the next step after a wrong SHA-256."""
        # The largest first, so that the last file is small and the other threads wait only briefly.
        ordered = sorted(moves, key=lambda move: (-move.file.size, move.file.path))
        jobs = {self._job(move): move for move in ordered}
        largest = max((job.layout.part_size for job in jobs), default=self._limits.part_size)
        budget = 2 * self._limits.workers * self._limits.part_size
        buffers = max(self._limits.workers + 1, budget // largest)
        size = min(largest, max((move.file.size for move in moves), default=0))
        schedule = Schedule(jobs, buffers=buffers, buffer_size=size)
        meter = Meter(self._report, self._clock, sum(move.file.size for move in moves), len(moves))
        pool = _WorkerPool(schedule, meter, jobs, done, advice)
        threads = [
            threading.Thread(target=self._work, args=(pool,), name=f"transfer-{number}", daemon=True)
            for number in range(min(self._limits.workers, max(1, sum(job.layout.parts for job in jobs))))
        ]
        try:
            for thread in threads:
                thread.start()
            self._watch(pool)
        finally:
            self._stop(pool, threads)
        if self._failures:
            raise self._failures[0]
        return Moved(len(jobs), sum(job.moved for job in jobs))

    def _job(self, move: Move) -> FileJob:
        parts = layout(move.file.size, self._limits.part_size)
        sink = self._sink.open(move, parts.part_size)
        return FileJob(move.file, parts, self._source, sink, self._clock, SAVE_PARTS + 2 * self._limits.workers)

    def _watch(self, pool: "_WorkerPool") -> None:
        until = self._clock.now() + self._limits.deadline
        while not pool.schedule.wait(POLL):
            pool.show()
            if self._clock.now() >= until:
                raise DeadlineExceeded(
                    f"the transfer did not end within {self._limits.deadline / 60:g} minutes",
                    "run again, the transfer resumes; if it needs more time, raise transfer.deadlineMinutes",
                )
        pool.show()

    def _work(self, pool: "_WorkerPool") -> None:
        try:
            while item := pool.schedule.take():
                pool.do(item)
        except BaseException as error:  # noqa: BLE001  # carried to the thread that waits, which raises it
            self._failures.append(error)
            pool.schedule.stop()

    def _stop(self, pool: "_WorkerPool", threads: Sequence[threading.Thread]) -> None:
        pool.schedule.stop()
        until = self._clock.now() + GRACE
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - self._clock.now()))
        for job in pool.schedule.moving:
            try:
                job.save()
            except StepError as error:
                log.warning(
                    "cannot save the resume point of %s, so the next run moves more of it again: %s",
                    job.file.path,
                    error,
                )
            # A thread that still waits for a request must not find its file closed, or replaced.
            if not any(thread.is_alive() for thread in threads):
                job.close()


class _WorkerPool:
    """The shared state of the threads of one run, and the work of each."""

    def __init__(
        self,
        schedule: Schedule,
        meter: Meter,
        moves: dict[FileJob, Move],
        done: Callable[[ModelFile], None],
        advice: str,
    ) -> None:
        self.schedule = schedule
        self._meter = meter
        self._moves = moves
        self._done = done
        self._advice = advice

    def show(self) -> None:
        self._meter.show([(job.file.path, job.percent) for job in self.schedule.moving])

    def do(self, item: WorkItem) -> None:
        job = item.job
        try:
            whole = self._move(item)
            if whole:
                job.complete()
        except Corrupted as error:
            log.warning("%s: the file is fetched once more", error)
            job.start_over(error, self._advice)
            self._meter.expect(job.file.size)
            self.schedule.again(job)
            return
        if whole:
            job.close()
            self._meter.file_done()
            # Before the schedule ends with the last file: after that, this thread has only a short time.
            self._done(job.file)
            self.schedule.finished(job)

    def _move(self, item: WorkItem) -> bool:
        job, part, buffer = item.job, item.part, item.buffer
        if part is None or buffer is None:
            return self._prepare(job)
        last = job.move(part, memoryview(buffer), lambda: self.schedule.give_back(buffer))
        self._meter.add(part.length)
        if not last:
            job.save_if_due()
            self.schedule.advanced()
        return last

    def _prepare(self, job: FileJob) -> bool:
        proved = job.prepare(self._moves[job])
        self._meter.expect(-job.stored_earlier)
        self.schedule.ready(job)
        return proved
