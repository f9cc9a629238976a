"""The one loop: look, plan, apply, look again; done means an empty plan."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from steps.errors import Blocked, DeadlineExceeded, NotConverging, TransientError
from steps.reconcile.converge import LONGEST_PAUSE, SHORTEST_PAUSE, Past, check, converge
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from tests.support.fakes import FakeClock, RecordingReport


@dataclass(frozen=True)
class Outputs:
    size: int


@dataclass
class World:
    """A step over a set of names: wants all of `wanted`, may add them, and may be told what it waits for."""

    wanted: tuple[str, ...] = ()
    present: set[str] = field(default_factory=set)
    waits: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    deadline: float = 60.0
    applied: list[str] = field(default_factory=list)
    undo: Callable[[str], bool] = lambda _name: False

    def observe(self, past: Past[set[str]]) -> set[str]:
        return set(self.present)

    def plan(self, facts: set[str]) -> Plan:
        missing = [name for name in self.wanted if name not in facts]
        return Plan(
            changes=tuple(
                Change("create", name, reason=f"absent, look {len(self.applied)}", last_writer="kubectl-edit")
                for name in missing
            ),
            ok=tuple(name for name in self.wanted if name in facts),
            waiting=self.waits,
            failed=self.faults,
        )

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        for change in changes:
            self.applied.append(change.target)
            report.changed(change)
            if not self.undo(change.target):
                self.present.add(change.target)

    def outputs(self, facts: set[str]) -> Outputs:
        return Outputs(len(facts))


def test_a_world_that_is_right_is_left_alone() -> None:
    world, report, clock = World(("a",), {"a"}), RecordingReport(), FakeClock()
    outcome = converge(world, report, clock)
    assert (outcome.changes, outcome.outputs) == ((), Outputs(1))
    assert report.lines == [("ok", "a")]
    assert world.applied == []
    assert clock.seconds == FakeClock().seconds


def test_only_what_differs_is_changed_and_the_world_is_looked_at_again() -> None:
    world, report = World(("a", "b"), {"a"}), RecordingReport()
    outcome = converge(world, report, FakeClock())
    assert world.applied == ["b"]
    assert [change.target for change in outcome.changes] == ["b"]
    assert outcome.outputs == Outputs(2)  # of the facts after the change, not before it
    assert report.lines == [("changed", "create b (absent, look 0)"), ("ok", "a"), ("ok", "b")]


@pytest.mark.parametrize("broken", ["observe", "apply"])
def test_a_step_without_another_attempt_asks_for_minutes_and_repeats_no_change(broken: str) -> None:
    """An API server that restarts must not be the end of a way back."""
    clock = FakeClock()
    back = clock.now() + 300

    class Silent(World):
        def observe(self, past: Past[set[str]]) -> set[str]:
            if broken == "observe" and clock.now() < back:
                raise TransientError("no answer")
            return super().observe(past)

        def apply(self, changes: tuple[Change, ...], report: Report) -> None:
            super().apply(changes, report)
            if broken == "apply" and clock.now() < back:
                self.present.discard("b")
                raise TransientError("no answer")

    for patience in (0.0, 200.0):
        with pytest.raises(TransientError):
            converge(Silent(("a", "b")), RecordingReport(), clock, no_answer_seconds=patience)
    world, report = Silent(("a", "b"), deadline=3_600), RecordingReport()
    converge(world, report, clock, no_answer_seconds=600.0)
    assert world.present == {"a", "b"}
    assert report.of("waiting") in (["no answer"], [])


def test_what_only_shows_after_a_change_is_changed_in_the_next_round() -> None:
    class Staged(World):
        def observe(self, past: Past[set[str]]) -> set[str]:
            self.wanted = ("a", "b") if "a" in self.present else ("a",)
            return super().observe(past)

    world = Staged()
    assert [change.target for change in converge(world, RecordingReport(), FakeClock()).changes] == ["a", "b"]


def test_somebody_elses_work_is_waited_for_and_told_once() -> None:
    world, report = World(waits=("pod is starting",)), RecordingReport()

    def during(now: float) -> None:
        if now >= 1_030:
            world.waits = ()

    clock = FakeClock(during)
    converge(world, report, clock)
    assert report.lines == [("waiting", "pod is starting")]
    assert 1_030 <= clock.seconds <= 1_030 + LONGEST_PAUSE


def test_looks_come_quickly_at_first_and_then_seldom() -> None:
    looks: list[float] = []
    clock = FakeClock(looks.append)
    with pytest.raises(DeadlineExceeded):
        converge(World(waits=("a pod",)), RecordingReport(), clock)
    pauses = [after - before for before, after in pairwise([1_000.0, *looks])]
    assert pauses[0] == SHORTEST_PAUSE
    assert all(after in (2 * before, LONGEST_PAUSE) for before, after in pairwise(pauses))
    assert pauses[-1] == LONGEST_PAUSE


def test_after_a_change_the_looks_come_quickly_again() -> None:
    looks: list[float] = []
    world = World(("a",), {"a"}, waits=("a pod",), deadline=40)

    def during(now: float) -> None:
        looks.append(now)
        if len(looks) == 6:
            world.present.discard("a")

    with pytest.raises(DeadlineExceeded):
        converge(world, RecordingReport(), FakeClock(during))
    assert world.applied == ["a"]
    assert looks[6] - looks[5] == SHORTEST_PAUSE


def test_a_late_world_is_given_up_with_what_it_waited_for() -> None:
    clock = FakeClock()
    with pytest.raises(DeadlineExceeded) as late:
        converge(World(waits=("decode-0 is Pending", "decode-1 is Pending"), deadline=600), RecordingReport(), clock)
    assert "gave up after 10 minutes" in late.value.reason
    assert "decode-0 is Pending; decode-1 is Pending" in late.value.reason
    assert "deadlineMinutes" in late.value.hint
    assert 600 <= clock.seconds - 1_000 <= 600 + LONGEST_PAUSE


def test_a_world_that_becomes_right_at_the_last_look_is_done() -> None:
    world = World(waits=("a pod",), deadline=10)

    def during(now: float) -> None:
        if now >= 1_010:
            world.waits = ()

    converge(world, RecordingReport(), FakeClock(during))


def test_a_step_that_waits_for_nobody_does_not_wait() -> None:
    clock = FakeClock()
    with pytest.raises(DeadlineExceeded):
        converge(World(waits=("a pod",), deadline=0), RecordingReport(), clock)
    assert clock.seconds == 1_000


def test_a_change_that_is_wanted_again_names_who_undid_it() -> None:
    world = World(("Service/default/sglang-pd",), undo=lambda _name: True)
    with pytest.raises(NotConverging) as again:
        converge(world, RecordingReport(), FakeClock())
    assert "Service/default/sglang-pd" in again.value.reason
    assert "last written by kubectl-edit" in again.value.reason
    assert world.applied == ["Service/default/sglang-pd"]  # once, although the reason was another the second time


def test_a_fault_stops_before_anything_is_changed_and_all_faults_are_told() -> None:
    world, report = World(("a",), faults=("no GPU", "no CRD")), RecordingReport()
    with pytest.raises(Blocked, match="2 failed: no GPU; no CRD"):
        converge(world, report, FakeClock())
    assert report.of("failed") == ["no GPU", "no CRD"]
    assert world.applied == []


def test_a_fault_ends_the_waiting_at_once() -> None:
    world = World(waits=("pod is starting",), deadline=3_600)

    def during(now: float) -> None:
        if now >= 1_020:
            world.faults = ("ImagePullBackOff",)

    clock = FakeClock(during)
    with pytest.raises(Blocked, match="1 failed: ImagePullBackOff"):
        converge(world, RecordingReport(), clock)
    assert clock.seconds < 1_030


def test_check_mode_tells_the_plan_and_changes_nothing() -> None:
    world, report = World(("a", "b"), {"a"}, waits=("a pod",)), RecordingReport()
    check(world, report)
    assert report.lines == [("ok", "a"), ("changed", "create b (absent, look 0)"), ("waiting", "a pod")]
    assert world.applied == []
    assert world.present == {"a"}


def test_check_mode_fails_where_the_run_would() -> None:
    world, report = World(("a",), faults=("no GPU",)), RecordingReport()
    with pytest.raises(Blocked):
        check(world, report)
    assert report.of("changed") == ["create a (absent, look 0)"]
    assert world.applied == []


def test_plans_add_up() -> None:
    change = Change("create", "a")
    both = Plan(changes=(change,), ok=("k",)) + Plan(waiting=("w",), failed=("f",))
    assert both == Plan((change,), ("k",), ("w",), ("f",))
    assert [Plan(ok=("k",)).converged, both.converged] == [True, False]
