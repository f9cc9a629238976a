"""After a failed run what served before serves again, no GPU is held for no one, and traffic follows proof alone."""

from dataclasses import replace
from typing import Any

import pytest

from steps.kinds import Manifest
from steps.objects import services
from steps.objects.converging import ObjectObservation
from steps.objects.record import Entry, Record
from steps.reconcile.plan import Plan
from steps.release import Release
from steps.report.run import Run, TaskResult
from steps.report.run_end import ObservedRun, RunEnd
from steps.roll_back import Facts, plan, summary, verdict
from steps.rollout.observation import GroupObservation
from steps.rollout.readiness import fingerprint
from tests.support.group_objects import absent, as_wanted, group_of, live, ready_group
from tests.support.samples import release, service

CURRENT = release(digest="sha256:" + "2" * 64)
CANDIDATE = release(digest="sha256:" + "3" * 64)
SERVICE = service()
ENTRY = Entry.of(CURRENT, [group_of(CURRENT), services.release_service(CURRENT), services.traffic_service(CURRENT)])
RECORD = Record(ENTRY)
FAILED = RunEnd.of("nightly-7", "Failed")
SUCCEEDED = RunEnd.of("nightly-7", "Succeeded")
BY_HAND = RunEnd.of("", "")
ANSWERED = Plan(ok=("services/default/x:8000 answered: Wood.",))


def observed(*tasks: tuple[str, str]) -> ObservedRun:
    return ObservedRun(Run("nightly-7", "Running", tasks=tuple(TaskResult(*task) for task in tasks)))


LATE = observed(("roll-out-service", "Succeeded"), ("smoke-test", "Failed"))
EARLY = observed(("create-volume", "Succeeded"), ("check-components", "Failed"), ("roll-out-service", "Omitted"))
EITHER = pytest.mark.parametrize("run", [LATE, EARLY])


def made(*releases: Release) -> tuple[Manifest, ...]:
    groups = tuple(live(group_of(found)) for found in releases)
    return (*groups, *(live(services.release_service(found)) for found in releases))


def healthy(run: ObservedRun = LATE, **changes: Any) -> Facts:
    """The recorded release serves and takes the traffic; nothing else is there."""
    facts = Facts(
        run,
        record=RECORD,
        traffic=live(services.traffic_service(CURRENT)),
        found=made(CURRENT),
        looks=tuple(as_wanted(manifest) for manifest in ENTRY.objects[:2]),
        moving=as_wanted(ENTRY.objects[2]),
        group=ready_group(group_of(CURRENT)),
    )
    return replace(facts, **changes)


def astray(**changes: Any) -> Facts:
    """The traffic goes to a release that is gone."""
    to = live(services.traffic_service(CANDIDATE))
    return healthy(traffic=to, moving=ObjectObservation(ENTRY.objects[2], to, live(ENTRY.objects[2])), **changes)


def planned(run: RunEnd, facts: Facts) -> Plan:
    return plan(SERVICE, run, facts)


def lines(found: Plan) -> list[str]:
    return [f"{change.action} {change.target}" for change in found.changes]


REMOVED = [f"delete RoleBasedGroup/default/{CANDIDATE.group}", f"delete Service/default/{CANDIDATE.group}"]


def test_a_run_that_succeeded_leaves_nothing_to_do() -> None:
    found = planned(SUCCEEDED, healthy(found=made(CURRENT, CANDIDATE)))
    assert found.converged
    assert found.ok[0] == "run nightly-7: Succeeded"


def test_without_the_status_that_argo_was_to_fill_in_nothing_is_touched() -> None:
    found = planned(RunEnd.of("x", "{{workflow.status}}"), healthy(ObservedRun(), found=made(CURRENT, CANDIDATE)))
    assert found == Plan(ok=("no status of a run was given, so no rollback",))


@EITHER
def test_a_run_that_wrote_nothing_rolls_nothing_back_whatever_there_is(run: ObservedRun) -> None:
    facts = healthy(run, found=made(CURRENT, CANDIDATE), group=GroupObservation(None), wrote=False)
    assert planned(FAILED, facts).converged
    assert planned(FAILED, facts).ok[-1] == "run nightly-7 wrote nothing, so no rollback"
    assert summary(FAILED, facts) == "run nightly-7 wrote nothing, so no rollback"


@EITHER
def test_a_candidate_is_removed_and_the_current_release_stays(run: ObservedRun) -> None:
    assert lines(planned(FAILED, healthy(run, found=made(CURRENT, CANDIDATE)))) == REMOVED


def test_the_very_first_release_is_removed_if_it_failed() -> None:
    """It holds GPUs and serves no one."""
    assert lines(planned(FAILED, Facts(LATE, found=made(CANDIDATE)))) == REMOVED


def test_a_failure_before_the_rollout_touches_no_healthy_release() -> None:
    drifted = ObjectObservation(
        ENTRY.objects[0], live(group_of(release("serving.prefill.replicas=5"))), live(ENTRY.objects[0])
    )
    assert planned(FAILED, healthy(EARLY, looks=(drifted, as_wanted(ENTRY.objects[1])))).converged


@pytest.mark.parametrize("run", [LATE, ObservedRun(unread="not allowed to get workflows")])
def test_a_failed_rollout_in_place_is_taken_back_also_if_the_run_cannot_be_read(run: ObservedRun) -> None:
    scaled = live(group_of(release("serving.prefill.replicas=3", digest=CURRENT.model_digest)))
    looks = (ObjectObservation(ENTRY.objects[0], scaled, live(ENTRY.objects[0])), as_wanted(ENTRY.objects[1]))
    found = planned(FAILED, healthy(run, looks=looks))
    assert lines(found) == [f"update RoleBasedGroup/default/{CURRENT.group}"]
    assert "3 -> 2" in found.changes[0].reason


@EITHER
def test_a_recreated_release_is_restored_from_the_record(run: ObservedRun) -> None:
    gone = healthy(
        run,
        found=made(CANDIDATE),
        looks=(absent(ENTRY.objects[0]), as_wanted(ENTRY.objects[1])),
        group=GroupObservation(None),
    )
    assert lines(planned(FAILED, gone)) == [*REMOVED, f"create RoleBasedGroup/default/{CURRENT.group}"]


def test_a_restored_release_is_waited_for() -> None:
    starting = ready_group(group_of(CURRENT))
    starting = replace(starting, pods=starting.pods[1:])
    waiting = planned(FAILED, healthy(EARLY, group=starting, done=("rolled back",)))
    assert "prefill 1/2 ready" in waiting.waiting[0]
    assert not waiting.changes
    serving = healthy(EARLY, done=("rolled back",), before=fingerprint(ready_group(group_of(CURRENT))))
    assert planned(FAILED, serving).converged
    assert verdict(serving) == "rolled back"


def test_a_release_that_takes_the_traffic_is_left_to_the_next_run() -> None:
    """Its smoke test passed; only its promotion was cut off between the Service and the record."""
    moved = healthy(found=made(CURRENT, CANDIDATE), traffic=live(services.traffic_service(CANDIDATE)), looks=())
    assert planned(FAILED, moved).converged


def test_the_first_release_that_takes_the_traffic_is_left_too() -> None:
    moved = Facts(LATE, found=made(CANDIDATE), traffic=live(services.traffic_service(CANDIDATE)))
    assert planned(FAILED, moved).converged


def test_traffic_moves_back_only_to_a_release_that_is_ready_and_has_answered() -> None:
    """It moved with the group once, to a prefill of which 0 of 2 were ready."""
    gone = (absent(ENTRY.objects[0]), as_wanted(ENTRY.objects[1]))
    assert lines(planned(FAILED, astray(looks=gone, group=GroupObservation(None)))) == [
        f"create RoleBasedGroup/default/{CURRENT.group}"
    ]
    starting = ready_group(group_of(CURRENT))
    starting = replace(starting, pods=starting.pods[1:])
    waiting = planned(FAILED, astray(group=starting, done=("rolled back",), proof=ANSWERED))
    assert not waiting.changes
    assert "prefill 1/2 ready" in waiting.waiting[0]
    silent = planned(FAILED, astray())
    assert (silent.changes, silent.waiting) == ((), ("the first answer",))
    assert lines(planned(FAILED, astray(proof=ANSWERED))) == ["update Service/default/sglang-pd"]


def test_traffic_stays_where_it_is_if_the_recorded_release_does_not_answer_well() -> None:
    found = planned(FAILED, astray(proof=Plan(failed=("no good answer",))))
    assert (found.changes, found.failed) == ((), ("no good answer",))


def test_traffic_that_goes_to_the_recorded_release_already_is_not_written() -> None:
    renamed = live(ENTRY.objects[2])
    renamed["metadata"]["labels"]["by"] = "hand"
    moving = ObjectObservation(ENTRY.objects[2], renamed, live(ENTRY.objects[2]))
    assert planned(FAILED, healthy(moving=moving, done=("rolled back",))).converged


def test_a_service_that_was_handed_over_keeps_its_traffic_and_no_group_is_made_for_it() -> None:
    theirs = live(services.traffic_service(release("metadata.name=chat")))
    moving = ObjectObservation(ENTRY.objects[2], theirs, None)
    gone = (absent(ENTRY.objects[0]), as_wanted(ENTRY.objects[1]))
    for facts in (
        healthy(moving=moving, traffic=theirs),
        healthy(moving=moving, looks=gone, group=GroupObservation(None)),
    ):
        found = planned(FAILED, facts)
        assert not found.changes
        assert found.failed[0].startswith("the recorded release is not restored: Service/default/sglang-pd exists and")
        assert "it belongs to chat" in found.failed[0]
        # What this run left behind goes all the same.
        assert lines(planned(FAILED, replace(facts, found=made(CURRENT, CANDIDATE)))) == REMOVED


def test_a_record_of_another_owner_is_a_fault_before_anything_is_removed() -> None:
    facts = healthy(found=made(CANDIDATE), foreign="ConfigMap/default/qwen3-32b-release exists and belongs to chat")
    assert planned(FAILED, facts).failed == (facts.foreign,)
    assert not planned(FAILED, facts).changes


@pytest.mark.parametrize(
    ("found", "traffic", "expected"),
    [
        (made(CURRENT, CANDIDATE), services.traffic_service(CURRENT), REMOVED),
        (made(CURRENT, CANDIDATE), None, []),
        (made(CANDIDATE), services.traffic_service(CANDIDATE), []),
    ],
)
def test_a_broken_record_costs_only_the_way_back(
    found: tuple[Manifest, ...], traffic: Manifest | None, expected: list[str]
) -> None:
    """Which release it names is not known: what takes the traffic stays, and everything if nothing does."""
    facts = Facts(LATE, broken="it is no JSON", found=found, traffic=live(traffic) if traffic else None)
    assert lines(planned(FAILED, facts)) == expected
    assert "no release can be restored: it is no JSON" in planned(FAILED, facts).ok
    assert "no release can be restored: it is no JSON" in summary(FAILED, facts)


def test_a_run_that_a_newer_one_overtook_removes_its_candidate_and_leaves_the_rest() -> None:
    facts = healthy(found=made(CURRENT, CANDIDATE), looks=(), moving=None, overtaken="nightly-8 promoted since")
    assert lines(planned(FAILED, facts)) == REMOVED
    assert "the recorded release is left as it is: nightly-8 promoted since" in planned(FAILED, facts).ok


def test_what_another_run_changes_by_now_is_left_to_it() -> None:
    """A run that waited in vain for the service, or lost it: whatever is half made there is not its own."""
    facts = healthy(found=made(CURRENT, CANDIDATE), other_writer="nightly-8 changes this service")
    assert planned(FAILED, facts).converged
    assert planned(FAILED, facts).ok[-1] == "no rollback: nightly-8 changes this service"
    assert "another run changes the service" in summary(FAILED, facts)


def test_by_hand_it_is_the_decision_of_a_person() -> None:
    facts = healthy(ObservedRun(), found=made(CURRENT, CANDIDATE), wrote=False)
    assert lines(planned(BY_HAND, facts)) == REMOVED
    scaled = live(group_of(release("serving.prefill.replicas=3", digest=CURRENT.model_digest)))
    looks = (ObjectObservation(ENTRY.objects[0], scaled, live(ENTRY.objects[0])), as_wanted(ENTRY.objects[1]))
    assert lines(planned(BY_HAND, healthy(ObservedRun(), looks=looks))) == [
        f"update RoleBasedGroup/default/{CURRENT.group}"
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"other_writer": "nightly-8 changes this service. Next: if it is dead, kubectl delete lease"},
            "kubectl delete lease",
        ),
        ({"observed": LATE}, "run nightly-7 is Running: stop it first"),
    ],
)
def test_by_hand_it_refuses_what_another_run_works_on(changes: dict[str, Any], words: str) -> None:
    facts = healthy(ObservedRun(), found=made(CURRENT, CANDIDATE))
    found = planned(RunEnd.of("nightly-7", ""), replace(facts, **changes))
    assert not found.changes
    assert words in found.failed[0]


def test_each_failed_task_is_in_the_recap() -> None:
    run = ObservedRun(Run("nightly-7", "Running", tasks=(TaskResult("smoke-test", "Failed", "no KV cache moved"),)))
    assert planned(FAILED, healthy(run)).ok[:2] == (
        "run nightly-7: Failed",
        "smoke-test failed: no KV cache moved",
    )
    unread = planned(FAILED, healthy(ObservedRun(unread="it is offloaded"))).ok
    assert "the state of the tasks is not known: it is offloaded" in unread


@pytest.mark.parametrize(
    ("run", "done", "words"),
    [
        (SUCCEEDED, (), "no rollback"),
        (FAILED, (), "no rollback was needed"),
        (FAILED, ("removed",), "a release that is neither recorded nor serving was removed"),
        (FAILED, ("removed", "rolled back"), "the recorded release was restored"),
    ],
)
def test_one_phrase_says_what_was_done(run: RunEnd, done: tuple[str, ...], words: str) -> None:
    assert summary(run, healthy(done=done)) == words


@pytest.mark.parametrize(
    ("status", "failed"), [("Failed", True), ("Error", True), ("Succeeded", False), ("", False), ("Running", False)]
)
def test_only_a_failed_run_is_a_failed_run(status: str, failed: bool) -> None:
    assert RunEnd.of("", status).failed is failed
