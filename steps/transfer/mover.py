"""Moves files from a source to a sink with a few threads.

Memory: at most `2 x workers x part` bytes of buffers, where `part` is `transfer.partSize`. Only for a file that
would need more than 9,000 parts is a part larger; then there are fewer buffers, but at least one more than workers.
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
from steps.transfer.schedule import Schedule, Task
from steps.transfer.sink import Corrupted, Move, Sink

log = logging.getLogger(__name__)

LOOK = 0.2  # seconds between two looks at the progress
GRACE = 5.0  # seconds in which threads may end what they are doing; Kubernetes kills a pod 30 s after SIGTERM


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
    """Moves each file once, or raises the first error; either way no thread stays and checkpoints are saved.

    Raises WrongContent, DeadlineExceeded, Interrupted (by a signal), and what source and sink raise.
    """

    def __init__(self, source: ModelSource, sink: Sink, limits: Limits, report: Report, clock: Clock) -> None:
        self._source = source
        self._sink = sink
        self._limits = limits
        self._report = report
        self._clock = clock
        self._failures: list[BaseException] = []

    def run(self, moves: Sequence[Move], done: Callable[[ModelFile], None], advice: str) -> Moved:
        """`done` is told each file, from several threads; `advice` is what to do about a wrong SHA-256."""
        # The largest first: the last thing that moves is then small, and no thread waits long for it.
        ordered = sorted(moves, key=lambda move: (-move.file.size, move.file.path))
        jobs = {self._job(move): move for move in ordered}
        largest = max((job.layout.part_size for job in jobs), default=self._limits.part_size)
        budget = 2 * self._limits.workers * self._limits.part_size
        buffers = max(self._limits.workers + 1, budget // largest)
        size = min(largest, max((move.file.size for move in moves), default=0))
        schedule = Schedule(jobs, buffers=buffers, buffer_size=size)
        meter = Meter(self._report, self._clock, sum(move.file.size for move in moves), len(moves))
        crew = _Crew(schedule, meter, jobs, done, advice)
        threads = [
            threading.Thread(target=self._work, args=(crew,), name=f"transfer-{number}", daemon=True)
            for number in range(min(self._limits.workers, max(1, sum(job.layout.parts for job in jobs))))
        ]
        try:
            for thread in threads:
                thread.start()
            self._watch(crew)
        finally:
            self._stop(crew, threads)
        if self._failures:
            raise self._failures[0]
        return Moved(len(jobs), sum(job.moved for job in jobs))

    def _job(self, move: Move) -> FileJob:
        parts = layout(move.file.size, self._limits.part_size)
        sink = self._sink.open(move, parts.part_size)
        return FileJob(move.file, parts, self._source, sink, self._clock, SAVE_PARTS + 2 * self._limits.workers)

    def _watch(self, crew: "_Crew") -> None:
        until = self._clock.now() + self._limits.deadline
        while not crew.schedule.wait(LOOK):
            crew.show()
            if self._clock.now() >= until:
                raise DeadlineExceeded(
                    f"gave up the transfer after {self._limits.deadline / 60:g} minutes",
                    "run again, it goes on from here; if it only needs longer, raise transfer.deadlineMinutes",
                )
        crew.show()

    def _work(self, crew: "_Crew") -> None:
        try:
            while task := crew.schedule.take():
                crew.do(task)
        except BaseException as error:  # noqa: BLE001  # carried to the thread that waits, which raises it
            self._failures.append(error)
            crew.schedule.stop()

    def _stop(self, crew: "_Crew", threads: Sequence[threading.Thread]) -> None:
        crew.schedule.stop()
        until = self._clock.now() + GRACE
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - self._clock.now()))
        for job in crew.schedule.moving:
            try:
                job.save()
            except StepError as error:
                log.warning(
                    "cannot save how far %s is, so the next run moves more of it again: %s", job.file.path, error
                )
            # A thread that is still held up in a request must not find its file closed, or another one in its place.
            if not any(thread.is_alive() for thread in threads):
                job.close()


class _Crew:
    """What the threads of one run share, and what each does with a task."""

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

    def do(self, task: Task) -> None:
        job = task.job
        try:
            whole = self._move(task)
            if whole:
                job.complete()
        except Corrupted as error:
            log.warning("%s: it is fetched once more", error)
            job.start_over(error, self._advice)
            self._meter.expect(job.file.size)
            self.schedule.again(job)
            return
        if whole:
            job.close()
            self._meter.file_done()
            # Told before the schedule knows: once the last file is finished, nobody waits for this thread for long.
            self._done(job.file)
            self.schedule.finished(job)

    def _move(self, task: Task) -> bool:
        job, part, buffer = task.job, task.part, task.buffer
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
        self._meter.expect(-job.at_hand)
        self.schedule.ready(job)
        return proved
