"""Runs and their tasks as lines for people: on a terminal, in the log of a CI job, and as Markdown."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from steps.document.overrides import DOCUMENT
from steps.report.run import SUCCEEDED, Run, TaskResult
from workflows.runs.follow import failure, where

COLUMNS = ("RUN", "TRIGGER", "PHASE", "STARTED", "DURATION", "PROGRESS", "RELEASE", "MESSAGE")


def runs_table(runs: Iterable[Run], now: float) -> list[str]:
    """One line for each run; `now` in seconds since 1970."""
    return _aligned([COLUMNS, *(_row(run, now) for run in runs)])


def recap(run: Run, now: float) -> list[str]:
    """Every task of a run, and how it ended or what it is doing."""
    rows = [(f"  {task.name}", task.phase, _took(task), _words(task)) for task in run.tasks]
    unread = [f"  what its tasks did is not known: {run.unread}"] if run.unread else []
    return [headline(run, now), *_overrides(run), *unread, *_aligned(rows)]


def in_force(runs: Iterable[Run]) -> list[str]:
    """Overrides that the next run of each service inherits, by its newest run that succeeded; `runs` newest first."""
    newest: dict[str, Run] = {}
    for run in runs:
        if run.phase == SUCCEEDED:
            newest.setdefault(run.service, run)
    return [f"{run.service}:{line}" for run in newest.values() for line in _overrides(run)]


def _overrides(run: Run) -> list[str]:
    return [f"  {one}, until -p {one.parameter}={DOCUMENT} or a changed document" for one in run.overrides]


def markdown(run: Run, now: float) -> str:
    """The recap for the summary of a CI job."""
    rows = [f"| {task.name} | {task.phase} | {_took(task)} | {_cell(_words(task))} |" for task in run.tasks]
    table = ["| task | phase | took | what |", "|---|---|---|---|", *rows]
    return "\n".join([f"### {_cell(headline(run, now))}", "", *(table if rows else ()), ""])


def headline(run: Run, now: float) -> str:
    words = failure(run) if run.failed else f"run {run.name} {run.phase if run.ended else _at_work(run)}"
    result = f": {run.result}" if run.result and not run.failed else ""
    return f"{words}{result}" + (f", {_duration(run, now)}" if run.started else "")


def _at_work(run: Run) -> str:
    doing = where(run)
    return doing if doing.startswith(run.phase) else f"{run.phase}, {doing}"


def _row(run: Run, now: float) -> tuple[str, ...]:
    started = run.started or run.created
    return (
        run.name,
        run.trigger,
        run.phase,
        started.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ") if started else "-",
        _duration(run, now) if run.started else "-",
        run.progress or "-",
        run.release or "-",
        _message(run),
    )


def _message(run: Run) -> str:
    if run.failed:
        return failure(run).partition(f"{run.phase}: ")[2]
    return run.result or run.message if run.ended else where(run)


def _duration(run: Run, now: float) -> str:
    end = run.finished or datetime.fromtimestamp(now, UTC)
    return _time((end - run.started).total_seconds()) if run.started else "-"


def _took(task: TaskResult) -> str:
    return _time(task.seconds) if task.seconds is not None else "-"


def _time(seconds: float) -> str:
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _words(task: TaskResult) -> str:
    attempts = f"{len(task.recaps)} attempts" if len(task.recaps) > 1 else ""
    return "; ".join(word for word in (attempts, task.message or task.recap) if word)


def _cell(text: str) -> str:
    """What a task says must not end a cell, and is no markup."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
