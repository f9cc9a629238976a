"""People are notified of the result of a run and of its rollback, in the words of the tasks themselves."""

import json
from dataclasses import replace
from typing import Any

import pytest

from steps.document.overrides import InForce
from steps.reconcile.plan import Plan
from steps.report.argo_nodes import read_run
from steps.report.run import Run, TaskResult
from steps.report.run_end import Failure, ObservedRun, RunEnd
from steps.report_run import OBSERVATIONS_OF_ROLL_BACK, Facts, Notification, plan, summary
from tests.support.argo_cluster import Attempt, nodes
from tests.support.samples import service

SERVICE = service()
FAILED = RunEnd.of("nightly-7", "Failed")
SUCCEEDED = RunEnd.of("nightly-7", "Succeeded")
RESOLVED = TaskResult(
    "resolve-model", "Succeeded", outputs={"recap": "nothing changed, 1 ok"}, recaps=("nothing changed",)
)
TASKS = (
    RESOLVED,
    TaskResult("smoke-test", "Failed", message="no KV cache moved"),
    TaskResult("promote-release", "Omitted"),
)
REMOVED = {"verdict": "removed", "message": "a release that is neither recorded nor serving was removed"}
BACK = TaskResult("roll-back", "Succeeded", outputs=REMOVED, at_exit=True)
AT_WORK = TaskResult("report-run", "Running", at_exit=True)


def facts(*tasks: TaskResult, **changes: Any) -> Facts:
    return replace(Facts(ObservedRun(Run("nightly-7", "Running", tasks=tasks)), "ab12cd34"), **changes)


def planned(run: RunEnd, found: Facts, *, notifies: bool = True) -> Plan:
    return plan(SERVICE, run, found, notifies=notifies)


def message(run: RunEnd, found: Facts) -> dict[str, Any]:
    (change,) = planned(run, found).changes
    assert isinstance(change.payload, Notification)
    return dict(change.payload.message)


def test_the_message_says_what_failed_and_what_became_of_it() -> None:
    found = message(FAILED, facts(*TASKS, BACK, AT_WORK))
    assert {key: found[key] for key in ("service", "namespace", "run", "status", "verdict", "release", "result")} == {
        "service": "qwen3-32b",
        "namespace": "default",
        "run": "nightly-7",
        "status": "Failed",
        "verdict": "removed",
        "release": "ab12cd34",
        "result": "",
    }
    assert found["failures"] == [{"task": "smoke-test", "message": "no KV cache moved"}]
    assert found["tasks"][:2] == [
        {"task": "resolve-model", "phase": "Succeeded", "seconds": None, "recap": "nothing changed, 1 ok"},
        {"task": "smoke-test", "phase": "Failed", "seconds": None, "recap": ""},
    ]
    assert [task["task"] for task in found["tasks"]] == ["resolve-model", "smoke-test", "roll-back"]
    assert json.loads(json.dumps(found)) == found
    assert found["text"] == (
        "run nightly-7: Failed (smoke-test failed: no KV cache moved); a release that is neither recorded nor serving "
        "was removed; qwen3-32b serves release ab12cd34"
    )


def test_people_are_notified_also_of_a_rollback_that_failed() -> None:
    broken = TaskResult("roll-back", "Failed", "Error (exit code 11): InvalidImageName", at_exit=True)
    found = message(FAILED, facts(*TASKS, broken))
    assert found["verdict"] == "not rolled back"
    assert "the rollback failed: Error (exit code 11): InvalidImageName" in found["text"]
    assert found["failures"] == [{"task": "smoke-test", "message": "no KV cache moved"}]


def test_a_result_that_is_not_known_is_reported_as_such() -> None:
    found = message(FAILED, Facts(ObservedRun(unread="it is offloaded"), release=None))
    assert found["text"] == (
        "run nightly-7: Failed; the result of the rollback is not known; the release of qwen3-32b is not known"
    )
    assert (
        "the state of the tasks is not known: it is offloaded"
        in planned(FAILED, Facts(ObservedRun(unread="it is offloaded"))).ok
    )


def test_people_are_notified_once_and_only_if_the_document_names_a_target() -> None:
    assert planned(FAILED, facts(*TASKS, notified=True)).converged
    assert planned(FAILED, facts(*TASKS), notifies=False).converged
    assert planned(RunEnd.of("", ""), facts(*TASKS)) == Plan(
        ok=("no status of a run was given, so no message is sent",)
    )


def test_the_end_of_a_rollback_that_argo_has_not_written_yet_is_waited_for_some_observations() -> None:
    late = facts(*TASKS, TaskResult("roll-back", "Running", at_exit=True))
    assert planned(FAILED, late).waiting == ("Argo to write how roll-back ended",)
    assert planned(FAILED, replace(late, observations=OBSERVATIONS_OF_ROLL_BACK)).changes
    assert planned(SUCCEEDED, late).changes


def test_each_failed_task_is_in_the_recap_and_a_skipped_one_is_not() -> None:
    skipped = TaskResult("roll-back", "Skipped", at_exit=True)
    assert planned(FAILED, facts(*TASKS, skipped, notified=True)).ok == (
        "run nightly-7: Failed",
        "smoke-test failed: no KV cache moved",
        "resolve-model: Succeeded (nothing changed, 1 ok)",
        "smoke-test: Failed (no KV cache moved)",
    )


@pytest.mark.parametrize(
    ("recap", "result"),
    [("nothing changed, 3 ok", "nothing changed"), ("1 changed: a", "changed by upload-model")],
)
def test_a_no_op_run_is_reported_as_such(recap: str, result: str) -> None:
    quiet = facts(TaskResult("upload-model", "Succeeded", outputs={"recap": recap}, recaps=(recap,)), AT_WORK)
    assert summary(SERVICE, SUCCEEDED, quiet).startswith(f"run nightly-7: Succeeded; {result}; no rollback; ")
    assert message(SUCCEEDED, quiet)["result"] == result


def test_an_attempt_that_failed_on_the_way_does_not_make_a_green_run_read_like_a_failed_one() -> None:
    green = facts(TaskResult("download-model", "Succeeded", tried=("pod deleted",)))
    words = "Succeeded (tried again on the way: download-model failed: pod deleted)"
    assert words in summary(SERVICE, SUCCEEDED, green)
    assert planned(SUCCEEDED, green, notifies=False).ok[1] == "download-model failed: pod deleted, then retried"


def test_the_last_attempt_of_a_task_says_why_it_failed() -> None:
    tasks = {
        "download-model": (Attempt("Error", "pod deleted", ""), Attempt()),
        "mirror-model(2:2)": (Attempt("Failed", "no answer", ""), Attempt("Failed", "no such key", "")),
        "roll-back": (Attempt("Failed", "no way back", ""),),
    }
    run = read_run({"metadata": {"name": "r"}, "status": {"phase": "Running", "nodes": nodes("r", tasks)}})
    assert ObservedRun(run).failures == (
        Failure("mirror-model(2:2)", "no such key"),
        Failure("download-model", "pod deleted"),
    )


def test_the_message_names_each_override_of_what_serves_with_its_run() -> None:
    image = InForce("image", "registry.example.com/llm/x:0.5.24", "demo-c1")
    found = message(SUCCEEDED, facts(RESOLVED, overrides=(image,)))
    assert found["overrides"] == [{"parameter": "image", "value": image.value, "run": "demo-c1"}]
    assert found["text"].endswith(f"serves release ab12cd34 with serving.image={image.value} (run demo-c1)")
    assert message(SUCCEEDED, facts(RESOLVED))["overrides"] == []
