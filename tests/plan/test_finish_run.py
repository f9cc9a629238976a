"""Whatever became of a run: what served before serves again, nothing holds GPUs for nothing, people are told once."""

import json
from dataclasses import replace
from typing import Any

import pytest

from steps.engine.plan import Plan
from steps.finish_run import Facts, Failure, RunResult, Told, plan, summary, verdict
from steps.objects import record, services
from steps.objects.converging import Look
from steps.objects.group_look import GroupLook
from steps.objects.readiness import signature
from steps.objects.record import Entry, Record
from steps.objects.workflow_run import Run, TaskResult
from steps.ports import Manifest
from steps.release import Release
from tests.group_world import absent, as_wanted, group_of, live, ready_group
from tests.samples import release, service

CURRENT = release(digest="sha256:" + "2" * 64)
CANDIDATE = release(digest="sha256:" + "3" * 64)
SERVICE = service()
ENTRY = Entry.of(CURRENT, [group_of(CURRENT), services.release_service(CURRENT), services.traffic_service(CURRENT)])
RECORD = Record(ENTRY)
FAILED = RunResult("nightly-7", "Failed", (Failure("smoke-test", "no KV cache moved"),))
EARLY = RunResult("nightly-7", "Failed", (Failure("download-model", "no answer"),))
SUCCEEDED = RunResult("nightly-7", "Succeeded")


def made(*releases: Release) -> tuple[Manifest, ...]:
    groups = tuple(live(group_of(found)) for found in releases)
    return (*groups, *(live(services.release_service(found)) for found in releases))


def healthy(**changes: Any) -> Facts:
    """The recorded release serves and takes the traffic; nothing else is there."""
    facts = Facts(
        record=RECORD,
        traffic=live(services.traffic_service(CURRENT)),
        found=made(CURRENT),
        looks=tuple(as_wanted(manifest) for manifest in ENTRY.objects),
        group=ready_group(group_of(CURRENT)),
    )
    return replace(facts, **changes)


def planned(run: RunResult, facts: Facts, *, tells: bool = False) -> Plan:
    return plan(SERVICE, run, facts, tells=tells)


def lines(found: Plan) -> list[str]:
    return [f"{change.action} {change.target}" for change in found.changes]


def test_a_run_that_succeeded_leaves_nothing_to_do() -> None:
    found = planned(SUCCEEDED, healthy())
    assert found.converged
    assert found.kept[0] == "run nightly-7: Succeeded"


def test_without_a_status_nothing_is_touched() -> None:
    found = planned(RunResult.of("x", "{{workflow.status}}", ""), healthy(found=made(CURRENT, CANDIDATE)), tells=True)
    assert found.converged
    assert "nothing is touched" in found.kept[0]


@pytest.mark.parametrize("run", [FAILED, EARLY])
def test_a_candidate_is_removed_and_the_current_release_stays(run: RunResult) -> None:
    found = planned(run, healthy(found=made(CURRENT, CANDIDATE)))
    assert lines(found) == [
        f"delete RoleBasedGroup/default/{CANDIDATE.group}",
        f"delete Service/default/{CANDIDATE.group}",
    ]


def test_the_very_first_release_is_removed_if_it_failed() -> None:
    """It holds GPUs and serves nobody."""
    found = planned(FAILED, Facts(found=made(CANDIDATE)))
    assert lines(found)[0] == f"delete RoleBasedGroup/default/{CANDIDATE.group}"


def test_a_failure_before_the_rollout_touches_no_healthy_release() -> None:
    drifted = (Look(ENTRY.objects[0], live(group_of(release("serving.prefill.replicas=5"))), live(ENTRY.objects[0])),)
    found = planned(EARLY, healthy(looks=drifted))
    assert found.converged


def test_a_failed_rollout_in_place_is_taken_back() -> None:
    scaled = live(group_of(release("serving.prefill.replicas=3", digest=CURRENT.model_digest)))
    found = planned(FAILED, healthy(looks=(Look(ENTRY.objects[0], scaled, live(ENTRY.objects[0])),)))
    assert lines(found) == [f"update RoleBasedGroup/default/{CURRENT.group}"]
    assert "3 -> 2" in found.changes[0].reason


@pytest.mark.parametrize("run", [FAILED, EARLY])
def test_a_recreated_release_is_put_back_from_the_record(run: RunResult) -> None:
    gone = healthy(
        found=made(CANDIDATE),
        looks=(absent(ENTRY.objects[0]), *map(as_wanted, ENTRY.objects[1:])),
        group=GroupLook(None),
    )
    assert lines(planned(run, gone)) == [
        f"delete RoleBasedGroup/default/{CANDIDATE.group}",
        f"delete Service/default/{CANDIDATE.group}",
        f"create RoleBasedGroup/default/{CURRENT.group}",
    ]


def test_what_was_put_back_is_waited_for() -> None:
    starting = ready_group(group_of(CURRENT))
    starting = replace(starting, pods=starting.pods[1:])
    waiting = planned(EARLY, healthy(group=starting, done=("put back",)), tells=True)
    assert "prefill 1/2 ready" in waiting.waits[0]
    assert not waiting.changes
    serving = healthy(done=("put back",), before=signature(ready_group(group_of(CURRENT))))
    assert planned(EARLY, serving).converged
    assert verdict(serving) == "put back"


def test_a_release_that_takes_the_traffic_is_left_to_the_next_run() -> None:
    """Its smoke test passed; only its promotion was cut off between the Service and the record."""
    moved = healthy(found=made(CURRENT, CANDIDATE), traffic=live(services.traffic_service(CANDIDATE)), looks=())
    assert planned(FAILED, moved).converged


def test_the_first_release_that_takes_the_traffic_is_left_too() -> None:
    moved = Facts(found=made(CANDIDATE), traffic=live(services.traffic_service(CANDIDATE)))
    assert planned(FAILED, moved).converged


def test_traffic_to_a_group_that_is_gone_is_put_back() -> None:
    astray = live(services.traffic_service(CANDIDATE))
    looks = (*map(as_wanted, ENTRY.objects[:2]), Look(ENTRY.objects[2], astray, live(ENTRY.objects[2])))
    assert lines(planned(FAILED, healthy(traffic=astray, looks=looks))) == ["update Service/default/sglang-pd"]


@pytest.mark.parametrize("run", [SUCCEEDED, EARLY])
def test_people_are_told_once_for_each_run(run: RunResult) -> None:
    (change,) = planned(run, healthy(), tells=True).changes
    assert isinstance(change.payload, Told)
    assert change.payload.message["status"] == run.status
    assert planned(run, healthy(done=("told",)), tells=True).converged
    told = healthy(record=replace(RECORD, notified_run="nightly-7"))
    assert planned(run, told, tells=True).converged
    assert planned(replace(run, name="nightly-8"), told, tells=True).changes


def test_nobody_is_told_before_the_way_back_is_done() -> None:
    found = planned(FAILED, healthy(found=made(CURRENT, CANDIDATE)), tells=True)
    assert all(not isinstance(change.payload, Told) for change in found.changes)


def test_the_message_says_what_failed_and_what_became_of_it() -> None:
    (change,) = planned(FAILED, healthy(done=("removed", "removed")), tells=True).changes
    message = change.payload.message
    assert {key: message[key] for key in ("service", "namespace", "run", "status", "verdict", "release")} == {
        "service": "qwen3-32b",
        "namespace": "default",
        "run": "nightly-7",
        "status": "Failed",
        "verdict": "removed",
        "release": CURRENT.id,
    }
    assert message["failures"] == [{"task": "smoke-test", "message": "no KV cache moved"}]
    assert json.loads(json.dumps(message)) == message
    assert "smoke-test failed: no KV cache moved" in message["text"]


def test_people_are_told_even_if_nothing_can_be_put_back() -> None:
    broken = ready_group(group_of(CURRENT))
    pods = list(broken.pods)
    pods[2]["status"]["conditions"][1]["status"] = "False"
    pods[2]["status"]["containerStatuses"][0] |= {"ready": False, "state": {"waiting": {"reason": "InvalidImageName"}}}
    stuck = healthy(group=replace(broken, pods=tuple(pods)), done=("put back",))
    (change,) = planned(FAILED, stuck, tells=True).changes
    assert change.payload.message["verdict"] == "not put back"
    assert "InvalidImageName" in change.payload.message["text"]
    after = planned(FAILED, replace(stuck, done=("put back", "told")), tells=True)
    assert "InvalidImageName" in after.faults[0]


def test_each_failed_task_is_in_the_recap() -> None:
    run = replace(FAILED, failures=(*FAILED.failures, Failure("finish", "")))
    assert planned(run, healthy(done=("told",))).kept[:3] == (
        "run nightly-7: Failed",
        "smoke-test failed: no KV cache moved",
        "finish failed",
    )


@pytest.mark.parametrize(
    ("run", "done", "words"),
    [
        (SUCCEEDED, (), "run nightly-7: Succeeded; nothing to put back"),
        (FAILED, ("removed",), "a release that is neither recorded nor serving was removed"),
        (FAILED, ("removed", "put back"), "the recorded release was put back"),
        (RunResult("", "Error"), (), "the run: Error; nothing had to be put back"),
    ],
)
def test_one_sentence_says_it_all(run: RunResult, done: tuple[str, ...], words: str) -> None:
    assert words in summary(SERVICE, run, healthy(done=done))
    assert f"serves release {CURRENT.id}" in summary(SERVICE, run, healthy(done=done))
    assert "serves no release yet" in summary(SERVICE, run, Facts(done=done))


NODES = [
    {"displayName": "download-model(0)", "message": "no answer", "templateName": "download-model", "phase": "Failed"},
    {"displayName": "download-model(1)", "message": "no  answer\nagain", "phase": "Failed"},
    {"templateName": "smoke-test", "message": None},
]
READ = (Failure("download-model", "no answer again"), Failure("smoke-test", ""))


@pytest.mark.parametrize(
    ("text", "failures"),
    [
        ("", ()),
        ("null", ()),
        ('""', ()),
        ('"null"', ()),
        ("[]", ()),
        ("{{workflow.failures}}", ()),
        ('"{{workflow.failures}}"', ()),
        ("not JSON", ()),
        ('{"displayName": "x"}', ()),
        ("[1, null]", ()),
        (json.dumps(NODES), READ),
        (json.dumps(json.dumps(NODES)), READ),
    ],
)
def test_whatever_argo_says_of_failures_is_read(text: str, failures: tuple[Failure, ...]) -> None:
    assert RunResult.of("nightly-7", "Failed", text).failures == failures


# As Argo 3.5.15 told it of a run whose second task failed for good; a Go map gives the entries in any order.
OF_A_RUN = [
    ("nightly-7", "", "2026-11-22T16:18:30Z"),
    ("roll-out-service", "retryStrategy.expression evaluated to false", "2026-11-22T16:18:29Z"),
    ("roll-out-service(10)", "Error (exit code 11): no GPU is free", "2026-11-22T16:18:28Z"),
    ("roll-out-service(9)", "Error (exit code 75): no answer", "2026-11-22T16:18:00Z"),
    ("download-model(0)", "pod deleted", "2026-11-22T16:17:40Z"),
    ("nightly-7.onExit(0)", "pod deleted", "2026-11-22T16:18:40Z"),
]


@pytest.mark.parametrize("nodes", [OF_A_RUN, OF_A_RUN[::-1], OF_A_RUN[2:] + OF_A_RUN[:2]])
def test_the_last_attempt_of_a_task_says_why_it_failed_in_whatever_order_argo_tells(
    nodes: list[tuple[str, str, str]],
) -> None:
    told = [dict(zip(("displayName", "message", "finishedAt"), node, strict=True)) for node in nodes]
    assert RunResult.of("nightly-7", "Failed", json.dumps(json.dumps(told))).failures == (
        Failure("download-model", "pod deleted"),
        Failure("roll-out-service", "Error (exit code 11): no GPU is free"),
    )


def test_a_failed_shard_is_named_alone_without_the_nodes_around_it() -> None:
    words = {
        "mirror-model(2:2)(0)": "Error (exit code 11): no such key",
        "mirror-model(2:2)": "retryStrategy.expression evaluated to false",
        "mirror-model": "child 'nightly-7-123' failed",
    }
    told = [{"displayName": name, "message": message} for name, message in words.items()]
    expected = (Failure("mirror-model(2:2)", "Error (exit code 11): no such key"),)
    assert RunResult.of("nightly-7", "Failed", json.dumps(told)).failures == expected
    assert RunResult.of("nightly-7", "Failed", json.dumps(told[::-1])).failures == expected


def test_an_attempt_that_failed_on_the_way_does_not_make_a_green_run_read_like_a_failed_one() -> None:
    run = RunResult("nightly-7", "Succeeded", (Failure("download-model", "pod deleted"),))
    assert "Succeeded (tried again on the way: download-model failed: pod deleted)" in summary(SERVICE, run, Facts())
    assert plan(SERVICE, run, Facts(), tells=False).kept == (
        "run nightly-7: Succeeded",
        "download-model failed: pod deleted, and was tried again",
    )


@pytest.mark.parametrize(
    ("status", "failed"), [("Failed", True), ("Error", True), ("Succeeded", False), ("", False), ("Running", False)]
)
def test_only_a_failed_run_is_a_failed_run(status: str, failed: bool) -> None:
    assert RunResult.of("", status, "").failed is failed


def test_a_record_remembers_who_was_told() -> None:
    written = record.record(SERVICE, Record(notified_run="nightly-7"))
    assert record.read(live(written)) == Record(notified_run="nightly-7")


def test_what_another_run_changes_by_now_is_left_to_it_and_people_hear_so() -> None:
    """A run that waited in vain for the service, or lost it: whatever is half made there is not its own."""
    facts = healthy(found=made(CURRENT, CANDIDATE), other_writer="nightly-8 changes this service")
    found = planned(FAILED, facts, tells=True)
    assert [type(change.payload) for change in found.changes] == [Told]
    assert "another run changes the service" in found.changes[0].payload.message["text"]
    assert planned(FAILED, facts).kept[-1] == "nothing is put back: nightly-8 changes this service"


WHOLE = Run(
    "nightly-7",
    "Running",
    tasks=(
        TaskResult(
            "resolve-model", "Succeeded", outputs={"recap": "nothing changed, 1 as wanted"}, recaps=("nothing changed",)
        ),
        TaskResult("smoke-test", "Failed", message="no KV cache moved"),
        TaskResult("promote-release", "Omitted"),
        TaskResult("finish-run", "Running"),
    ),
)


def test_every_task_that_ended_is_in_the_recap_and_in_the_message() -> None:
    assert planned(FAILED, healthy(done=("told",), whole=WHOLE)).kept[2:4] == (
        "resolve-model: Succeeded (nothing changed, 1 as wanted)",
        "smoke-test: Failed (no KV cache moved)",
    )
    (change,) = planned(FAILED, healthy(whole=WHOLE), tells=True).changes
    assert change.payload.message["tasks"] == [
        {"task": "resolve-model", "phase": "Succeeded", "seconds": None, "recap": "nothing changed, 1 as wanted"},
        {"task": "smoke-test", "phase": "Failed", "seconds": None, "recap": ""},
    ]


@pytest.mark.parametrize(
    ("recap", "result"),
    [("nothing changed, 3 as wanted", "nothing changed"), ("1 changed: a", "changed by upload-model")],
)
def test_a_night_in_which_nothing_changed_says_so(recap: str, result: str) -> None:
    tasks = (TaskResult("upload-model", "Succeeded", outputs={"recap": recap}, recaps=(recap,)), WHOLE.tasks[3])
    quiet = healthy(whole=replace(WHOLE, tasks=tasks))
    assert summary(SERVICE, SUCCEEDED, quiet).startswith(f"run nightly-7: Succeeded; {result}; nothing to put back; ")
    (change,) = planned(SUCCEEDED, quiet, tells=True).changes
    assert change.payload.message["result"] == result


def test_a_recap_that_cannot_be_read_costs_nothing_but_itself() -> None:
    unread = healthy(found=made(CURRENT, CANDIDATE), unread="not allowed to get workflows.argoproj.io")
    found = planned(FAILED, unread)
    assert lines(found) == lines(planned(FAILED, healthy(found=made(CURRENT, CANDIDATE))))
    assert "what the tasks did is not known: not allowed to get workflows.argoproj.io" in found.kept
