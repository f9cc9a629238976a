"""The one loop: observe, plan, apply, observe again, until the plan is empty.

Done means an empty plan. There is no other wait loop in the project, so there is one deadline and one clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from steps.errors import Blocked, DeadlineExceeded, NotConverging, TransientError
from steps.reconcile.clock import Clock
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report

Facts = TypeVar("Facts")

# Seconds between two observations; the pause doubles, so short waits stay short and long ones cheap.
SHORTEST_PAUSE = 0.25
LONGEST_PAUSE = 5.0


@dataclass(frozen=True)
class Past(Generic[Facts]):
    """The earlier turns of the loop: the memory of a step, which has no other."""

    facts: Facts | None = None  # of the last observation; None for the first
    done: tuple[Change, ...] = ()  # changes that `apply` has reported


class Step(Protocol[Facts]):
    """The four functions of a step; the loop owns the rest."""

    @property
    def deadline(self) -> float:
        """Seconds after which the loop gives up waiting."""
        ...

    def observe(self, past: Past[Facts], /) -> Facts:
        """Read; change nothing."""
        ...

    def plan(self, facts: Facts, /) -> Plan:
        """Decide. Pure: no I/O, no clock."""
        ...

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        """Make the changes, and call `report.changed(change)` for each change once it is done."""
        ...

    def outputs(self, facts: Facts, /) -> Any:
        """A frozen dataclass of strings and numbers for people and for the next task."""
        ...


@dataclass(frozen=True)
class Outcome:
    changes: tuple[Change, ...]
    outputs: Any


def converge(step: Step[Facts], report: Report, clock: Clock, *, no_answer_seconds: float = 0.0) -> Outcome:
    """Make the plan of `step` empty, or raise.

    Without an answer, a step that has no other attempt observes again for `no_answer_seconds`; the deadline does not
    end that wait. Raises Blocked (the plan lists failures), NotConverging (a change that was done is planned again),
    DeadlineExceeded, and the errors of the adapters.
    """
    first, done = len(report.done), list[Change]()
    answered = clock.now()
    until, pause = answered + step.deadline, SHORTEST_PAUSE
    facts: Facts | None = None
    while True:
        try:
            facts = step.observe(Past(facts, tuple(report.done[first:])))
            plan = step.plan(facts)
            _apply(step, plan, done, report)
        except TransientError as error:
            if clock.now() - answered >= no_answer_seconds:
                raise
            plan, pause = Plan(waiting=(error.reason,)), LONGEST_PAUSE
        else:
            if plan.converged:
                report.ok(plan.ok)
                return Outcome(tuple(done), step.outputs(facts))
            answered = clock.now()
            if plan.changes:
                pause = SHORTEST_PAUSE
                continue
            _stop_at_deadline(plan, step.deadline, answered >= until)
        report.waiting(plan.waiting)
        clock.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def check(step: Step[Any], report: Report) -> None:
    """The whole of check mode: print the plan, change nothing. Raises Blocked if the plan lists failures."""
    plan = step.plan(step.observe(Past()))
    report.ok(plan.ok)
    for change in plan.changes:
        report.changed(change)
    report.waiting(plan.waiting)
    _stop_at_failures(plan, report)


def _apply(step: Step[Any], plan: Plan, done: list[Change], report: Report) -> None:
    """Raises as `converge`. A change that was cut off is not done, and may be planned again."""
    if plan.failed:
        report.ok(plan.ok)
        _stop_at_failures(plan, report)
    if not plan.changes:
        return
    _refuse_to_repeat(plan.changes, done)
    try:
        step.apply(plan.changes, report)
    except Blocked:
        report.ok(plan.ok)
        raise
    done += plan.changes


def _stop_at_failures(plan: Plan, report: Report) -> None:
    if not plan.failed:
        return
    for reason in plan.failed:
        report.failed(reason)
    raise Blocked(f"{len(plan.failed)} failed: {'; '.join(plan.failed)}")


def _stop_at_deadline(plan: Plan, deadline: float, late: bool) -> None:
    if late:
        raise DeadlineExceeded(
            f"gave up after {deadline / 60:g} minutes, still waiting for: {'; '.join(plan.waiting)}",
            "check the objects that it waits for; if they only need longer, raise deadlineMinutes in the document",
        )


def _refuse_to_repeat(changes: Iterable[Change], done: list[Change]) -> None:
    for change in changes:
        if change in done:
            writer = f"; last written by {change.last_writer}" if change.last_writer else ""
            raise NotConverging(
                f"{change} was done by this run and is planned again{writer}",
                "stop the writer that undoes it (another controller, another run, a webhook), then run again",
            )
