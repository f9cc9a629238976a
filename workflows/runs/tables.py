"""Runs and their tasks as text lines, as Markdown and as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from steps.document.overrides import DOCUMENT
from steps.report.recap import UNKNOWN, rows, run_duration
from steps.report.run import SUCCEEDED, Run
from workflows.runs.follow import failure, where

COLUMNS = ("RUN", "TRIGGER", "PHASE", "STARTED", "DURATION", "PROGRESS", "RELEASE", "MESSAGE")


def runs_table(runs: Iterable[Run], now: float) -> list[str]:
    """One line for each run; `now` in seconds since 1970."""
    return _aligned([COLUMNS, *(_row(run, now) for run in runs)])


def recap(run: Run, now: float) -> list[str]:
    """A run and every task of it."""
    table = [(f"  {row.task}", row.phase, row.took, row.text) for row in rows(run)]
    unread = [f"  the results of its tasks are not known: {run.unread}"] if run.unread else []
    return [headline(run, now), *_overrides(run), *unread, *_aligned(table)]


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
    lines = [f"| {row.task} | {row.phase} | {row.took} | {_cell(row.text)} |" for row in rows(run)]
    table = ["| task | phase | duration | result |", "|---|---|---|---|", *lines]
    return "\n".join([f"### {_cell(headline(run, now))}", "", *(table if lines else ()), ""])


def as_data(run: Run) -> dict[str, Any]:
    """A run for JSON; times as ISO 8601, empty texts for unknown values."""
    return {
        "name": run.name,
        "namespace": run.namespace,
        "service": run.service,
        "trigger": run.trigger,
        "phase": run.phase,
        "message": _message(run),
        "progress": run.progress,
        "release": run.release,
        "created": _iso(run.created),
        "started": _iso(run.started),
        "finished": _iso(run.finished),
        "overrides": [asdict(one) for one in run.overrides],
        "tasks": [
            {name: getattr(task, name) for name in ("name", "phase", "seconds", "message", "recap")}
            for task in run.tasks
        ],
    }


def headline(run: Run, now: float) -> str:
    text = failure(run) if run.failed else f"run {run.name} {run.phase if run.ended else _state(run)}"
    result = f": {run.result}" if run.result and not run.failed else ""
    return f"{text}{result}" + (f", {run_duration(run, now)}" if run.started else "")


def _state(run: Run) -> str:
    state = where(run)
    return state if state.startswith(run.phase) else f"{run.phase}, {state}"


def _row(run: Run, now: float) -> tuple[str, ...]:
    started = run.started or run.created
    return (
        run.name,
        run.trigger,
        run.phase,
        started.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ") if started else UNKNOWN,
        run_duration(run, now),
        run.progress or UNKNOWN,
        run.release or UNKNOWN,
        _message(run),
    )


def _message(run: Run) -> str:
    if run.failed:
        return failure(run).partition(f"{run.phase}: ")[2]
    return run.result or run.message if run.ended else where(run)


def _iso(moment: datetime | None) -> str:
    return moment.isoformat() if moment else ""


def _cell(text: str) -> str:
    """The text of a task must not end a cell, and is no markup."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    if not table:
        return []
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
