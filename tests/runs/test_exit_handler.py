"""What the exit handler reads of its run, and what pressing Retry may ask of it again."""

import json
from pathlib import Path
from typing import Any

import pytest

from steps.adapters.kubernetes import connect
from steps.engine.converge import converge
from steps.finish_run import FinishRun, RunResult
from tests.argo_world import NAMESPACE, SERVICE, ArgoWorld, Attempt, nodes
from tests.fakes import FakeClock, RecordingReport
from tests.samples import service
from workflows.rehearsal import faults
from workflows.rehearsal.cluster.resources import CUSTOM_RESOURCE_DEFINITIONS

RUN = "qwen3-32b-nightly"
TASKS = {"resolve-model": (Attempt(),), "smoke-test": (Attempt("Failed", "no KV cache moved", "nothing changed"),)}
FAILURES = json.dumps(json.dumps([{"displayName": "smoke-test(0)", "message": "no KV cache moved"}]))


class Inbox(list[Any]):
    def send(self, message: Any) -> None:
        self.append(message)


@pytest.fixture
def failed(world: ArgoWorld) -> ArgoWorld:
    """A run that failed, while its exit handler works."""
    metadata = {"name": RUN, "namespace": NAMESPACE, "labels": {"slipway/service": SERVICE}}
    world.store.create(world.kind("Workflow"), {"metadata": metadata, "spec": {}})
    at_work = {**TASKS, "promote-release": (), "finish-run": (Attempt("Running"),)}
    world.tell(phase="Running", nodes=nodes(RUN, at_work, root="Failed"))
    return world


def finish(world: ArgoWorld, inbox: Inbox, status: str = "Failed") -> tuple[RecordingReport, Any]:
    step = FinishRun(service(), connect(world.kubeconfig), inbox, RunResult.of(RUN, status, FAILURES))
    report = RecordingReport()
    return report, converge(step, report, FakeClock()).outputs


def test_the_recap_names_every_task_that_ended(failed: ArgoWorld) -> None:
    report, outputs = finish(failed, Inbox())
    assert report.of("ok")[:4] == [
        f"run {RUN}: Failed",
        "smoke-test failed: no KV cache moved",
        "resolve-model: Succeeded in 42 s (nothing changed, 2 as wanted)",
        "smoke-test: Failed in 42 s (no KV cache moved)",
    ]
    assert "smoke-test failed: no KV cache moved" in outputs.message


def test_a_second_time_tells_nobody_again_and_still_says_that_the_run_failed(failed: ArgoWorld) -> None:
    inbox = Inbox()
    first = finish(failed, inbox)
    again = finish(failed, inbox)
    assert len(inbox) == 1
    assert inbox[0]["status"] == "Failed"
    assert first[1] == again[1]
    assert again[0].of("changed") == []
    assert again[0].of("ok")[:2] == [f"run {RUN}: Failed", "smoke-test failed: no KV cache moved"]


def test_without_the_right_to_read_its_run_it_does_the_rest(failed: ArgoWorld) -> None:
    failed.faults.script(f"/workflows/{RUN}", faults.FORBIDDEN, 10)
    inbox = Inbox()
    report, _ = finish(failed, inbox)
    assert len(inbox) == 1
    assert any(
        "what the tasks did is not known: " in line and "get workflows.argoproj.io" in line for line in report.of("ok")
    )


def test_on_a_cluster_without_argo_there_is_no_recap_and_no_complaint(failed: ArgoWorld, tmp_path: Path) -> None:
    failed.store.delete(CUSTOM_RESOURCE_DEFINITIONS, "workflows.argoproj.io")
    report, _ = finish(failed, Inbox())
    assert not any("not known" in line for line in report.of("ok"))


def test_a_green_run_that_changed_nothing_says_so_in_its_output(world: ArgoWorld) -> None:
    world.store.create(world.kind("Workflow"), {"metadata": {"name": RUN, "namespace": NAMESPACE}, "spec": {}})
    quiet = {"resolve-model": (Attempt(),), "promote-release": (Attempt(),), "finish-run": (Attempt("Running"),)}
    world.tell(phase="Running", nodes=nodes(RUN, quiet))
    step = FinishRun(service(), connect(world.kubeconfig), None, RunResult.of(RUN, "Succeeded", '"null"'))
    outputs = converge(step, RecordingReport(), FakeClock()).outputs
    assert outputs.message.startswith(f"run {RUN}: Succeeded; nothing changed; ")
