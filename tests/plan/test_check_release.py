"""`current` only if every step of the line is at rest; whatever else is found is `stale`, and no failure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from steps.check_release import CheckRelease, Outputs, Part
from steps.errors import Blocked, DeadlineExceeded, Interrupted, NotConverging, StepError, TransientError
from steps.reconcile.converge import Past, converge
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.samples import release

RELEASE = release()
AT_REST = Plan(ok=("as wanted",))
WAITING = Plan(waiting=("the counters to move",))


@dataclass(frozen=True)
class Told:
    """What the outputs of the line's own steps hold."""

    release: str = RELEASE.id
    endpoint: str = "http://sglang-pd.default.svc:8000/v1"
    answer: str = "Prefill reads, decode writes."


@dataclass
class Scripted:
    """A step of the line whose plans are known, one for each look; the last one stays."""

    plans: list[Plan | Exception]
    looks: int = 0
    deadline: float = 60.0

    def observe(self, _past: Past[Plan]) -> Plan:
        self.looks += 1
        found = self.plans[min(self.looks, len(self.plans)) - 1]
        if isinstance(found, Exception):
            raise found
        return found

    def plan(self, facts: Plan) -> Plan:
        return facts

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        raise AssertionError("check-release applies nothing")

    def outputs(self, facts: Plan) -> Told:
        assert facts.converged
        return Told()


@dataclass
class Line:
    """The steps that check-release asks."""

    steps: dict[str, Scripted] = field(
        default_factory=lambda: {
            name: Scripted([AT_REST]) for name in ("mirror-model", "roll-out-service", "promote-release", "smoke-test")
        }
    )

    def says(self, step: str, *plans: Plan | Exception) -> "Line":
        self.steps[step] = Scripted(list(plans))
        return self

    def ask(self, *overrides: str, overtaken: Callable[[], str] = lambda: "") -> tuple[RecordingReport, Outputs]:
        def built(name: str) -> Callable[[], Any]:
            return lambda: self.steps[name]

        parts = tuple(Part(name, built(name), looks=8 if name == "smoke-test" else 1) for name in self.steps)
        report = RecordingReport()
        return report, converge(CheckRelease(release(*overrides), parts, overtaken), report, FakeClock()).outputs


def test_a_line_at_rest_is_current_and_says_what_serves() -> None:
    report, outputs = Line().ask()
    assert outputs == Outputs(
        state="current",
        reason=f"qwen3-32b serves release {RELEASE.id} of Qwen/Qwen3-32B, whole and proved just now",
        release=RELEASE.id,
        endpoint=Told.endpoint,
        answer=Told.answer,
    )
    assert report.of("ok") == ["as wanted", f"current: {outputs.reason}"]


SCALED = Change("update", "RoleBasedGroup/default/a", "spec.roles[prefill].replicas: 1 -> 2")
FOUND: dict[str, tuple[Plan | Exception, str]] = {
    "a change": (
        Plan((SCALED,)),
        "would update RoleBasedGroup/default/a (spec.roles[prefill].replicas: 1 -> 2)",
    ),
    "changes": (Plan((SCALED, Change("delete", "Service/default/b"))), f"would {SCALED}, and 1 more"),
    "a wait": (Plan(waiting=("prefill 1/2 ready",)), "waits for: prefill 1/2 ready"),
    "a fault": (Plan((SCALED,), waiting=("x",), failed=("it is foreign",)), "finds: it is foreign"),
}
ERRORS: dict[str, StepError] = {
    "a refusal": Blocked("not allowed to get services", "grant it"),
    "no answer": TransientError("no answer from the API server", "run it again"),
    "an endless loop": NotConverging("done and wanted again"),
    "a deadline": DeadlineExceeded("late"),
}


@pytest.mark.parametrize("step", ["mirror-model", "roll-out-service", "promote-release"])
@pytest.mark.parametrize("found", FOUND)
def test_whatever_a_step_would_do_is_a_reason_to_walk_the_line(step: str, found: str) -> None:
    plan, words = FOUND[found]
    line = Line().says(step, plan)
    report, outputs = line.ask()
    assert outputs == Outputs("stale", f"{step} {words}", "", "", "")
    assert report.of("ok")[-1] == f"stale: {outputs.reason}"
    assert report.of("changed") == report.of("failed") == report.of("waiting") == []


@pytest.mark.parametrize("step", ["mirror-model", "smoke-test"])
@pytest.mark.parametrize("error", ERRORS)
def test_a_step_that_cannot_even_look_is_a_reason_and_no_failure(step: str, error: str) -> None:
    _, outputs = Line().says(step, ERRORS[error]).ask()
    assert (outputs.state, outputs.reason) == ("stale", f"{step}: {ERRORS[error]}")


def test_a_step_that_lacks_a_credential_is_a_reason_too() -> None:
    def missing() -> Any:
        raise Blocked("the environment variable OSS_ACCESS_KEY_ID is not set")

    outputs = CheckRelease(RELEASE, (Part("create-volume", missing),))
    assert converge(outputs, RecordingReport(), FakeClock()).outputs.reason.startswith("create-volume: the environment")


def test_behind_the_first_reason_nothing_is_asked() -> None:
    line = Line().says("roll-out-service", Plan((SCALED,)))
    line.ask()
    assert {name: step.looks for name, step in line.steps.items()} == {
        "mirror-model": 1,
        "roll-out-service": 1,
        "promote-release": 0,
        "smoke-test": 0,
    }


def test_a_run_that_was_overtaken_is_never_current() -> None:
    _, outputs = Line().ask(overtaken=lambda: "nightly-8 promoted release x")
    assert outputs == Outputs("stale", "nightly-8 promoted release x", "", "", "")


def test_a_run_that_cannot_learn_whether_it_was_overtaken_is_not_current_either() -> None:
    def no_answer() -> str:
        raise ERRORS["no answer"]

    _, outputs = Line().ask(overtaken=no_answer)
    assert (outputs.state, outputs.reason) == ("stale", str(ERRORS["no answer"]))


@pytest.mark.parametrize("looks", [1, 3, 7])
def test_the_counters_of_an_answer_may_follow_a_moment_later(looks: int) -> None:
    report, outputs = Line().says("smoke-test", *[WAITING] * looks, AT_REST).ask()
    assert outputs.state == "current"
    assert report.of("waiting") == ["the counters to move"]


def test_counters_that_never_move_are_waited_for_some_seconds_only() -> None:
    line = Line().says("smoke-test", WAITING)
    _, outputs = line.ask()
    assert (outputs.state, outputs.reason) == ("stale", "smoke-test waits for: the counters to move")
    assert line.steps["smoke-test"].looks == 8


def test_whoever_insists_gets_the_whole_line_and_nobody_is_asked() -> None:
    line = Line()
    _, outputs = line.ask("workflow.skipUnchanged=false")
    assert outputs.state == "stale"
    assert "workflow.skipUnchanged is false" in outputs.reason
    assert all(not step.looks for step in line.steps.values())
    assert RELEASE.id == release("workflow.skipUnchanged=false").id  # and it is no other release


@pytest.mark.parametrize("error", [KeyError("a bug"), AssertionError("a bug")])
def test_a_bug_is_no_reason_but_a_bug(error: Exception) -> None:
    with pytest.raises(type(error)):
        Line().says("roll-out-service", error).ask()


def test_who_stops_it_stops_it() -> None:
    class Stopped(Scripted):
        def observe(self, _past: Past[Plan]) -> Plan:
            raise Interrupted("stopped by SIGTERM")

    line = Line()
    line.steps["mirror-model"] = Stopped([])
    with pytest.raises(Interrupted):
        line.ask()
