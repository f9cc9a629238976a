"""The one loop: look, plan, apply, look again, until nothing is left to do.

Done means an empty plan. There is no other wait loop in the project, so there is one deadline and one clock.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from steps.errors import Blocked, DeadlineExceeded, NotConverging, TransientError
from steps.reconcile.clock import Clock
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report

Facts = TypeVar("Facts")
Found = TypeVar("Found")

FIRST_LOOK_AGAIN = 0.25  # seconds; doubles up to the last value, so short waits stay short and long ones cheap
LAST_LOOK_AGAIN = 5.0


class Step(Protocol[Facts]):
    """Four questions; the engine owns the rest."""

    @property
    def deadline(self) -> float:
        """Seconds after which the engine gives up waiting."""
        ...

    def observe(self) -> Facts:
        """Read the world; change nothing."""
        ...

    def plan(self, facts: Facts, /) -> Plan:
        """Decide. Pure: no I/O, no clock."""
        ...

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        """Do what the plan says, and call `report.changed(change)` for each change once it is done."""
        ...

    def outputs(self, facts: Facts, /) -> Any:
        """A frozen dataclass of strings and numbers for people and for the next task."""
        ...


@dataclass(frozen=True)
class Outcome:
    changes: tuple[Change, ...]
    outputs: Any


def converge(step: Step[Facts], report: Report, clock: Clock, *, patience: float = 0.0) -> Outcome:
    """Make the plan of `step` empty, or raise.

    `patience` is for how many seconds without an answer the step looks again, for a step that has no other attempt.
    Raises Blocked (faults), NotConverging (a change that was done is wanted again), DeadlineExceeded, and whatever the
    adapters raise.
    """
    done: list[Change] = []
    until = clock.now() + step.deadline
    pause = FIRST_LOOK_AGAIN
    while True:
        facts, plan = _patiently(partial(_turn, step, done, report), report, clock, patience)
        if plan.converged:
            report.ok(plan.ok)
            return Outcome(tuple(done), step.outputs(facts))
        if plan.changes:
            pause = FIRST_LOOK_AGAIN
            continue
        if clock.now() >= until:
            raise DeadlineExceeded(
                f"gave up after {step.deadline / 60:g} minutes, still waiting for: {'; '.join(plan.waiting)}",
                "look at what it waits for; if it only needs longer, raise deadlineMinutes in the document",
            )
        report.waiting(plan.waiting)
        clock.sleep(pause)
        pause = min(pause * 2, LAST_LOOK_AGAIN)


def _turn(step: Step[Facts], done: list[Change], report: Report) -> tuple[Facts, Plan]:
    """Look, plan, and do what is to be done."""
    facts = step.observe()
    plan = step.plan(facts)
    if plan.failed:
        report.ok(plan.ok)
    _stop_at_faults(plan, report)
    if plan.changes:
        _refuse_to_repeat(plan.changes, done)
        step.apply(plan.changes, report)
        done += plan.changes
    return facts, plan


def _patiently(ask: Callable[[], Found], report: Report, clock: Clock, patience: float) -> Found:
    """Ask again as long as there is no answer. A change that was cut off is planned anew, unless it was done."""
    since = clock.now()
    while True:
        try:
            return ask()
        except TransientError as error:
            if clock.now() - since >= patience:
                raise
            report.waiting((error.reason,))
            clock.sleep(LAST_LOOK_AGAIN)


def check(step: Step[Any], report: Report) -> None:
    """The whole of check mode: print the plan, change nothing. Raises Blocked if the plan has faults."""
    plan = step.plan(step.observe())
    report.ok(plan.ok)
    for change in plan.changes:
        report.changed(change)
    report.waiting(plan.waiting)
    _stop_at_faults(plan, report)


def _stop_at_faults(plan: Plan, report: Report) -> None:
    if not plan.failed:
        return
    for fault in plan.failed:
        report.failed(fault)
    count = "1 fault" if len(plan.failed) == 1 else f"{len(plan.failed)} faults"
    raise Blocked(f"{count}: {'; '.join(plan.failed)}")


def _refuse_to_repeat(changes: Iterable[Change], done: list[Change]) -> None:
    for change in changes:
        if change in done:
            who = f"; last written by {change.last_writer}" if change.last_writer else ""
            raise NotConverging(
                f"{change} was done by this run and is wanted again{who}",
                "find who undoes it (another controller, another run, a webhook) and stop it, then run again",
            )
