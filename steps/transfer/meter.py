"""The progress of a transfer for people: bytes, files, and the current rate."""

import threading
from collections import deque

from steps.reconcile.clock import Clock
from steps.reconcile.report import Progress, Report

WINDOW = 10.0  # seconds of the rate: long enough to be steady, short enough to show a stall
SHOWN = 2  # files named on the one line of progress


class Meter:
    """`add` and `file_done` may be called from any thread, `show` from one."""

    def __init__(self, report: Report, clock: Clock, total: int, files: int) -> None:
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._total = total
        self._done = 0
        self._files = files
        self._files_done = 0
        self._samples: deque[tuple[float, int]] = deque([(clock.now(), 0)])

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count

    def expect(self, count: int) -> None:
        """Correct the total: more bytes have to move, or, if negative, fewer."""
        with self._lock:
            self._total += count

    def file_done(self) -> None:
        with self._lock:
            self._files_done += 1

    def show(self, moving: list[tuple[str, int]]) -> None:
        """`moving` holds the files in transfer, with the percentage of each."""
        named = ", ".join(f"{path} {percent}%" for path, percent in moving[:SHOWN])
        more = f" and {len(moving) - SHOWN} more" if len(moving) > SHOWN else ""
        with self._lock:
            done, total, files_done = self._done, self._total, self._files_done
        progress = Progress(done, total, files_done, self._files, named + more, self._rate(done))
        self._report.progress(progress)

    def _rate(self, done: int) -> float:
        now = self._clock.now()
        self._samples.append((now, done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW:  # noqa: PLR2004  # a rate needs two samples
            self._samples.popleft()
        since, before = self._samples[0]
        return (done - before) / (now - since) if now > since else 0.0
