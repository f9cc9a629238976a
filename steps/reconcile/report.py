"""The report of a step for people: ok, changed, waiting, failed, progress, and a RECAP line.

On a terminal it has colours and one live progress line. Otherwise it is plain lines on stdout, and progress goes to the
log as JSON lines.
"""

import difflib
import json
import logging
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import yaml

from steps.reconcile.clock import Clock
from steps.reconcile.console import console
from steps.reconcile.outputs import NOTHING_CHANGED
from steps.reconcile.plan import Change

log = logging.getLogger(__name__)

EVERY = 5.0  # seconds between progress lines in a log
EVERY_LIVE = 0.2  # seconds between updates of the live line
MEGABYTE = 10**6
NAMED = 3  # changes that one line names

_STYLES = {"ok": "green", "changed": "yellow", "waiting": "cyan", "failed": "bold red"}


@dataclass(frozen=True)
class Progress:
    """Progress of a transfer. Bytes that were there before count as neither done nor total."""

    done: int  # bytes
    total: int  # bytes
    files_done: int
    files_total: int
    current: str = ""  # name of the file that moves now
    rate: float = 0.0  # bytes per second

    @property
    def eta(self) -> float | None:
        """Seconds left, or None while nothing moves."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    def __str__(self) -> str:
        eta = self.eta
        left = f", {duration(eta)} left" if eta is not None else ""
        percent = 100 * self.done // self.total if self.total else 100
        return (
            f"{percent}%  {size(self.done)} of {size(self.total)}, {self.files_done} of {self.files_total} files, "
            f"{size(int(self.rate))}/s{left}" + (f"  {self.current}" if self.current else "")
        )


class Report(Protocol):
    """The report of a step while it works; safe to call from several threads."""

    @property
    def done(self) -> Sequence[Change]:
        """The changes that were reported so far."""
        ...

    def changed(self, change: Change) -> None: ...

    def ok(self, reasons: Iterable[str]) -> None: ...

    def waiting(self, reasons: Iterable[str]) -> None: ...

    def failed(self, reason: str) -> None: ...

    def note(self, text: str) -> None:
        """A line with none of the four words: the answer of the model, a warning."""
        ...

    def progress(self, progress: Progress) -> None: ...


class StreamReport:
    """The report of a step process."""

    def __init__(self, stream: TextIO, clock: Clock, *, diff: bool = False, progress_file: Path | None = None) -> None:
        self._console = console(stream)
        self._clock = clock
        self._diff = diff
        self._progress_file = progress_file  # Argo's: https://argo-workflows.readthedocs.io/en/latest/progress/
        self._lock = threading.RLock()
        self._waited: set[str] = set()
        self._last_progress = float("-inf")
        self._live = False
        self.counts = {"ok": 0, "changed": 0, "failed": 0}
        self.done: list[Change] = []

    def changed(self, change: Change) -> None:
        self.done.append(change)
        self._line("changed", str(change))
        if self._diff:
            self._print_diff(change)

    def ok(self, reasons: Iterable[str]) -> None:
        for reason in reasons:
            self._line("ok", reason)

    def waiting(self, reasons: Iterable[str]) -> None:
        """Each reason once: a log that repeats itself every few seconds is not read."""
        for reason in reasons:
            if reason not in self._waited:
                self._waited.add(reason)
                self._line("waiting", reason)

    def failed(self, reason: str) -> None:
        self._line("failed", reason)

    def note(self, text: str) -> None:
        with self._lock:
            self._clear_live()
            self._console.line((text, ""))

    def progress(self, progress: Progress) -> None:
        with self._lock:
            pause = EVERY_LIVE if self._console.live else EVERY
            finished = progress.done >= progress.total
            if self._clock.now() - self._last_progress < pause and not finished:
                return
            self._last_progress = self._clock.now()
            self._write_progress_file(progress)
            if self._console.live:
                self._show_live(f"  {progress}")
            else:
                log.info("progress", extra={"progress": _progress_fields(progress)})

    def recap(self, step: str) -> None:
        with self._lock:
            self._clear_live()
            counts = " ".join(f"{word}={count}" for word, count in self.counts.items())
            self._console.line((f"RECAP {step}: {counts}", "bold"))

    def in_one_line(self) -> str:
        """Counts, and the first changes by name, for a list with one line for each step."""
        if not self.done:
            failed = f", {self.counts['failed']} failed" if self.counts["failed"] else ""
            return f"{NOTHING_CHANGED}, {self.counts['ok']} ok{failed}"
        names = "; ".join(f"{change.action} {change.target}" for change in self.done[:NAMED])
        more = f" and {len(self.done) - NAMED} more" if len(self.done) > NAMED else ""
        return f"{len(self.done)} changed: {names}{more}"

    def _line(self, word: str, text: str) -> None:
        with self._lock:
            self._clear_live()
            if word in self.counts:
                self.counts[word] += 1
            self._console.line((f"{word:<8}", _STYLES[word]), (" ", ""), (text, ""))

    def _print_diff(self, change: Change) -> None:
        before, after = _as_lines(change.before), _as_lines(change.after)
        for line in difflib.unified_diff(before, after, "now", "declared", lineterm="", n=2):
            style = {"+": "green", "-": "red"}.get(line[:1], "")
            self._console.line((line, style))

    def _write_progress_file(self, progress: Progress) -> None:
        if self._progress_file is None or not progress.total:
            return
        done, total = progress.done // MEGABYTE, max(1, progress.total // MEGABYTE)
        try:
            self._progress_file.write_text(f"{min(done, total)}/{total}\n", encoding="utf-8")
        except OSError as error:
            log.warning("cannot write the progress file %s: %s", self._progress_file, error)
            self._progress_file = None

    def _show_live(self, text: str) -> None:
        self._live = True
        width = max(20, self._console.width - 1)
        self._console.stream.write(f"\r\x1b[2K{text[:width]}")
        self._console.stream.flush()

    def _clear_live(self) -> None:
        if self._live:
            self._live = False
            self._console.stream.write("\r\x1b[2K")


def size(count: int) -> str:
    """Bytes for people, in the decimal units that clouds bill: 65.5 GB."""
    for unit, divisor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= divisor:
            return f"{count / divisor:.1f} {unit}"
    return f"{count} B"


def stdout_report(clock: Clock, *, diff: bool, progress_file: Path | None) -> StreamReport:
    return StreamReport(sys.stdout, clock, diff=diff, progress_file=progress_file)


def duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds: 1h05m, 3m20s, 7s. Two clocks may differ: never below 0s."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _progress_fields(progress: Progress) -> dict[str, Any]:
    return {
        "done_bytes": progress.done,
        "total_bytes": progress.total,
        "files_done": progress.files_done,
        "files_total": progress.files_total,
        "bytes_per_second": int(progress.rate),
        "seconds_left": progress.eta and int(progress.eta),
        "current": progress.current,
    }


def _as_lines(content: Any) -> list[str]:
    if content is None:
        return []
    text = content if isinstance(content, str) else yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=True)
    return text.splitlines()
