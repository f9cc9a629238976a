"""The recap of a run as text: one row for each task, and durations. Pure; tables and pages arrange the rows."""

from dataclasses import dataclass
from datetime import UTC, datetime

from steps.reconcile.report import duration
from steps.report.run import Run, TaskResult

UNKNOWN = "-"  # in place of a duration


@dataclass(frozen=True)
class Row:
    task: str
    phase: str
    took: str  # a duration, or UNKNOWN
    text: str  # number of attempts, then the message or the recap of the last one


def rows(run: Run) -> tuple[Row, ...]:
    """The tasks in the order of the pipeline, the exit handler last."""
    return tuple(map(row, run.tasks))


def row(task: TaskResult) -> Row:
    attempts = f"{len(task.recaps)} attempts" if len(task.recaps) > 1 else ""
    text = "; ".join(filter(None, (attempts, task.message or task.recap)))
    return Row(task.name, task.phase, UNKNOWN if task.seconds is None else duration(task.seconds), text)


def task_line(task: TaskResult) -> str:
    """One task in one line of a log."""
    took = "" if task.seconds is None else f" in {duration(task.seconds)}"
    text = task.message or task.recap
    return f"{task.name}: {task.phase}{took}" + (f" ({text})" if text else "")


def run_duration(run: Run, now: float) -> str:
    """Time since the run started, or between its start and end; `now` in seconds since 1970."""
    if run.started is None:
        return UNKNOWN
    end = run.finished or datetime.fromtimestamp(now, UTC)
    return duration((end - run.started).total_seconds())
