"""What the exit handler reads of its run, whatever state the Workflow object is in, and what a Retry tells of it."""

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from steps.adapters.kubernetes.cluster import connect
from steps.errors import Blocked, TransientError
from steps.reconcile.converge import converge
from steps.report.argo_nodes import read_run
from steps.report.run import NOT_FAILED
from steps.report.run_end import RunEnd, observe_run, workflow_of
from steps.report_run import ReportRun
from tests.support.argo_cluster import NAMESPACE, SERVICE, ArgoCluster, Attempt, nodes
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.samples import service
from workflows.simulator.core.cluster.resources import CUSTOM_RESOURCE_DEFINITIONS
from workflows.simulator.faults import request_faults

RUN = "qwen3-32b-nightly"
TASKS = {"resolve-model": (Attempt(),), "smoke-test": (Attempt("Failed", "no KV cache moved", "nothing changed"),)}
DONE = Attempt(outputs={"verdict": "removed", "message": "a release that is neither recorded nor serving was removed"})
AT_WORK = {**TASKS, "promote-release": (), "roll-back": (DONE,), "report-run": (Attempt("Running"),)}


class Inbox(list[Any]):
    error: Exception | None = None

    def send(self, message: Any) -> None:
        if self.error:
            raise self.error
        self.append(message)


@pytest.fixture
def failed(world: ArgoCluster) -> ArgoCluster:
    """A run that failed and was rolled back, while people are told."""
    metadata = {"name": RUN, "namespace": NAMESPACE, "labels": {"slipway/service": SERVICE}}
    world.store.create(world.kind("Workflow"), {"metadata": metadata, "spec": {}})
    world.tell(phase="Running", nodes=nodes(RUN, AT_WORK, root="Failed"))
    return world


def reported(world: ArgoCluster, inbox: Inbox, status: str = "Failed") -> tuple[RecordingReport, Any]:
    cluster = connect(world.kubeconfig)
    step = ReportRun(
        service(), cluster, lambda: inbox, RunEnd.of(RUN, status), lambda: workflow_of(cluster, service(), RUN)
    )
    report = RecordingReport()
    return report, converge(step, report, FakeClock()).outputs


def test_the_recap_names_every_task_that_ended(failed: ArgoCluster) -> None:
    report, outputs = reported(failed, Inbox())
    assert report.of("ok") == [
        f"run {RUN}: Failed",
        "smoke-test failed: no KV cache moved",
        "resolve-model: Succeeded in 42s (nothing changed, 2 as wanted)",
        "smoke-test: Failed in 42s (no KV cache moved)",
        "roll-back: Succeeded in 42s (nothing changed, 2 as wanted)",
    ]
    assert outputs.verdict == "removed"
    assert outputs.message == (
        f"run {RUN}: Failed (smoke-test failed: no KV cache moved); a release that is neither recorded nor serving was "
        "removed; qwen3-32b serves no release yet"
    )


def test_each_end_of_a_run_is_told_also_that_of_a_retry(failed: ArgoCluster) -> None:
    """A Retry ran the exit handler again; once it is green, people heard only that it had failed."""
    inbox = Inbox()
    reported(failed, inbox)
    green = {**TASKS, "smoke-test": (Attempt("Failed", "no answer"), Attempt()), "promote-release": (Attempt(),)}
    failed.tell(phase="Running", nodes=nodes(RUN, {**green, "roll-back": ()}, root="Succeeded"))
    reported(failed, inbox, "Succeeded")
    assert [message["status"] for message in inbox] == ["Failed", "Succeeded"]
    assert "(tried again on the way: smoke-test failed: no answer)" in inbox[1]["text"]
    assert [task["task"] for task in inbox[1]["tasks"]] == ["resolve-model", "smoke-test", "promote-release"]


def test_each_of_three_ends_is_told_once_whatever_other_runs_were_told_in_between(failed: ArgoCluster) -> None:
    """A name that was remembered as told kept the end of a Retry from people, unless another run was told after it."""
    inbox, other = Inbox(), f"{RUN}-other"
    reported(failed, inbox)
    reported(failed, inbox)  # a Retry that failed again is another end
    failed.store.create(failed.kind("Workflow"), {"metadata": {"name": other, "namespace": NAMESPACE}, "spec": {}})
    cluster = connect(failed.kubeconfig)
    step = ReportRun(
        service(), cluster, lambda: inbox, RunEnd.of(other, "Succeeded"), lambda: workflow_of(cluster, service(), other)
    )
    converge(step, RecordingReport(), FakeClock())
    reported(failed, inbox, "Succeeded")
    assert [(message["run"], message["status"]) for message in inbox] == [
        (RUN, "Failed"),
        (RUN, "Failed"),
        (other, "Succeeded"),
        (RUN, "Succeeded"),
    ]


def test_without_the_right_to_read_its_run_it_does_the_rest(failed: ArgoCluster) -> None:
    failed.faults.plan(f"/workflows/{RUN}", request_faults.FORBIDDEN, 10)
    inbox = Inbox()
    report, outputs = reported(failed, inbox)
    assert len(inbox) == 1
    assert "the result of the rollback is not known" in outputs.message
    assert any(
        "the state of the tasks is not known: " in line and "get workflows.argoproj.io" in line
        for line in report.of("ok")
    )


def test_on_a_cluster_without_argo_there_is_no_recap_and_no_complaint(failed: ArgoCluster) -> None:
    failed.store.delete(CUSTOM_RESOURCE_DEFINITIONS, "workflows.argoproj.io")
    report, _ = reported(failed, Inbox())
    assert not any("not known" in line for line in report.of("ok"))


def test_a_green_run_that_changed_nothing_says_so_in_its_output(world: ArgoCluster) -> None:
    world.store.create(world.kind("Workflow"), {"metadata": {"name": RUN, "namespace": NAMESPACE}, "spec": {}})
    quiet = {"resolve-model": (Attempt(),), "promote-release": (Attempt(),), "roll-back": ()}
    world.tell(phase="Running", nodes=nodes(RUN, {**quiet, "report-run": (Attempt("Running"),)}))
    report, outputs = reported(world, Inbox(), "Succeeded")
    assert outputs.message.startswith(f"run {RUN}: Succeeded; nothing changed; no rollback; ")
    assert not any("roll-back" in line for line in report.of("ok"))
    (run,) = (read_run(found) for found in world.runs())
    assert [(task.name, task.phase, task.message) for task in run.tasks if task.at_exit] == [
        ("roll-back", "Skipped", NOT_FAILED),
        ("report-run", "Running", ""),
    ]


def test_how_the_way_back_ended_is_waited_for_until_argo_has_written_it(failed: ArgoCluster) -> None:
    late = {**AT_WORK, "roll-back": (Attempt("Running"),)}
    failed.tell(phase="Running", nodes=nodes(RUN, late, root="Failed"))
    cluster, inbox = connect(failed.kubeconfig), Inbox()
    step = ReportRun(
        service(), cluster, lambda: inbox, RunEnd.of(RUN, "Failed"), lambda: workflow_of(cluster, service(), RUN)
    )
    clock = FakeClock(lambda _: failed.tell(phase="Running", nodes=nodes(RUN, AT_WORK, root="Failed")))
    assert converge(step, RecordingReport(), clock).outputs.verdict == "removed"
    failed.tell(phase="Running", nodes=nodes(RUN, late, root="Failed"))
    _, outputs = reported(failed, inbox)  # it never does
    assert outputs.verdict == "not known"
    assert len(inbox) == 2


def test_a_webhook_that_refuses_is_shown_after_the_recap(failed: ArgoCluster) -> None:
    inbox = Inbox()
    inbox.error = Blocked("410 Gone", "check the Secret")
    cluster, report = connect(failed.kubeconfig), RecordingReport()
    step = ReportRun(
        service(), cluster, lambda: inbox, RunEnd.of(RUN, "Failed"), lambda: workflow_of(cluster, service(), RUN)
    )
    with pytest.raises(
        Blocked, match=r"the result of the run did not reach every target: 410 Gone\. Next: check the Secret"
    ):
        converge(step, report, FakeClock())
    assert "smoke-test failed: no KV cache moved" in report.of("ok")


def test_a_webhook_that_does_not_answer_is_asked_for_minutes(failed: ArgoCluster) -> None:
    inbox = Inbox()
    inbox.error = TransientError("no answer")
    cluster = connect(failed.kubeconfig)
    step = ReportRun(
        service(), cluster, lambda: inbox, RunEnd.of(RUN, "Failed"), lambda: workflow_of(cluster, service(), RUN)
    )

    def later(seconds: float) -> None:
        inbox.error = TransientError("no answer") if seconds < 1_200 else None

    converge(step, RecordingReport(), FakeClock(later), no_answer_seconds=240.0)
    assert len(inbox) == 1


def _status(world: ArgoCluster, change: Callable[[dict[str, Any]], Any]) -> None:
    workflow = world.only_run()
    workflow["status"] = change(workflow["status"])
    world.store.replace(world.kind("Workflow"), workflow)


def _packed(status: dict[str, Any], text: bytes | None = None) -> dict[str, Any]:
    """As Argo packs the nodes of a Workflow that would be too large for etcd."""
    found = gzip.compress(text if text is not None else json.dumps(status["nodes"]).encode())
    return {**status, "nodes": None, "compressedNodes": base64.b64encode(found).decode()}


def test_nodes_that_argo_packed_are_read(failed: ArgoCluster) -> None:
    whole = read_run(failed.only_run())
    _status(failed, _packed)
    assert read_run(failed.only_run()) == whole


GARBLED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "offloaded": lambda status: {**status, "nodes": None, "offloadNodeStatusVersion": "fnv:1"},
    "a bomb": lambda status: _packed(status, b'"' + b"a" * 2**26 + b'"'),
    "packed in another way": lambda status: {**status, "nodes": None, "compressedNodes": "KLUv/QQA"},
    "no base64": lambda status: {**status, "nodes": None, "compressedNodes": "ä"},
    "cut off": lambda status: {**status, "nodes": None, "compressedNodes": _packed(status)["compressedNodes"][:40]},
    "nested": lambda status: _packed(status, b"[" * 100_000),
    "a list of nodes": lambda status: {**status, "nodes": [1]},
    "nodes of text": lambda status: {**status, "nodes": {"a": "b"}},
    "outputs of text": lambda status: {**status, "nodes": {"a": {"type": "Pod", "outputs": "b"}}},
    "a status of text": lambda _: "garbled",
}


@pytest.mark.parametrize("how", GARBLED)
def test_a_status_that_cannot_be_read_is_said_and_people_are_told(failed: ArgoCluster, how: str) -> None:
    _status(failed, GARBLED[how])
    inbox = Inbox()
    report, _ = reported(failed, inbox)
    assert inbox[0]["status"] == "Failed"
    assert any(line.startswith("the state of the tasks is not known: ") for line in report.of("ok")), report.lines
    found = observe_run(failed.only_run)
    assert found.ran(frozenset({"roll-out-service"}))  # it may have


def test_a_text_of_100_kilobytes_is_no_part_of_a_template_and_is_told_as_it_is(failed: ArgoCluster) -> None:
    hostile = "{{=sprig.repeat(3000000,workflow.name)}} " + "x" * 100_000
    late = {**AT_WORK, "smoke-test": (Attempt("Failed", hostile, ""),)}
    failed.tell(phase="Running", nodes=nodes(RUN, late, root="Failed"))
    inbox = Inbox()
    reported(failed, inbox)
    assert inbox[0]["failures"] == [{"task": "smoke-test", "message": hostile}]
