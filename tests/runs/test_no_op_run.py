"""A run that found nothing to do says so wherever people look, and one that walked the line is not taken for it."""

import json
from typing import Any

import pytest

from steps.adapters.kubernetes.cluster import connect
from steps.reconcile.converge import converge
from steps.report.argo_nodes import read_run
from steps.report.run import EXIT_TASKS, NOTHING_TO_DO, ROLL_BACK, Run
from steps.report.run_end import RunEnd, workflow_of
from steps.report_run import ReportRun
from tests.support import samples
from tests.support.argo_cluster import NAMESPACE, SERVICE, ArgoCluster
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.rendered import sample
from tests.support.samples import service
from workflows.__main__ import main
from workflows.pipeline import SCRATCH, tasks
from workflows.runs.tables import headline, markdown

RECORDED = samples.RECORDED / "runs"


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return found


def run_of(nodes: dict[str, Any], variant: str = "reference") -> Run:
    graph = {"templates": [{"dag": {"tasks": [{"name": task.name} for task in tasks(sample(variant))]}}]}
    status = {"phase": "Succeeded", "nodes": nodes, "storedWorkflowTemplateSpec": graph}
    return read_run({"metadata": {"name": "run"}, "status": status})


@pytest.mark.parametrize(("name", "variant"), [("quiet", "reference"), ("quiet-in-shards", "in shards")])
def test_a_run_that_left_its_tasks_out_changed_nothing_and_names_what_serves(name: str, variant: str) -> None:
    run = run_of(recorded(name), variant)
    assert run.result == "nothing changed"
    assert run.release == "ab12cd34"
    assert headline(run, 0.0) == "run run Succeeded: nothing changed"
    left = [task for task in run.tasks if task.skipped]
    names = {task.name.partition("(")[0] for task in left}
    made_since = {SCRATCH.name}  # the record is older than this task
    assert names == {task.name for task in tasks(sample(variant)) if task.spec.skippable} - made_since
    assert all((task.phase, task.message, task.changed) == ("Skipped", NOTHING_TO_DO, False) for task in left)


def test_the_node_that_is_only_a_sign_is_no_task() -> None:
    for name in ("quiet", "walked"):
        nodes = recorded(name)
        assert any(node["displayName"] == "nothing-changed" for node in nodes.values())
        assert not any(task.name == "nothing-changed" for task in run_of(nodes).tasks)


def test_a_run_that_walked_the_line_says_what_each_of_its_tasks_did() -> None:
    run = run_of(recorded("walked"))
    assert [task.name for task in run.tasks] == [*(task.name for task in tasks(sample())), *EXIT_TASKS]
    assert [task.name for task in run.tasks if task.phase == "Skipped"] == [ROLL_BACK]
    assert run.result == "changed by create-scratch, create-volume, roll-out-service, promote-release"
    assert run.release == "521db312"


@pytest.mark.parametrize(
    "message",
    [
        "when '{{tasks.check-release.outputs.parameters.state}} != current' evaluated false ",
        "original pod: run-1",
        "Skipped, empty params",
        "",
    ],
)
def test_a_task_that_was_skipped_for_another_reason_is_not_claimed_to_have_changed_nothing(message: str) -> None:
    nodes = recorded("quiet")
    for node in nodes.values():
        if node["displayName"] == "roll-out-service":
            node["message"] = message
    expected = "nothing changed" if message.startswith("when '") else ""
    assert run_of(nodes).result == expected


def test_a_task_that_a_failure_left_out_did_not_find_that_nothing_changed() -> None:
    nodes = recorded("quiet")
    for node in nodes.values():
        if node["type"] == "Skipped":
            node |= {"phase": "Omitted", "message": "omitted: depends condition not met"}
    assert run_of(nodes).result == ""


def test_a_task_that_reads_an_output_of_one_that_was_left_out_is_left_out_with_it() -> None:
    """It depends on the success of the other, so Argo omits it before it looks at its `when`."""
    nodes = recorded("quiet")
    for node in nodes.values():
        if node["displayName"] == "promote-release":
            node |= {"phase": "Omitted", "message": "omitted: depends condition not met"}
    run = run_of(nodes)
    assert run.result == "nothing changed"
    (promotion,) = (task for task in run.tasks if task.name == "promote-release")
    assert (promotion.skipped, promotion.message) == (True, NOTHING_TO_DO)


def test_status_says_it_in_the_list_and_of_the_run(world: ArgoCluster, capsys: Any) -> None:
    add(world, phase="Succeeded", progress="3/3", startedAt="2026-11-22T19:00:00Z", finishedAt="2026-11-22T19:00:31Z")
    assert main(["runs", SERVICE]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[-3:] == ["ab12cd34", "nothing", "changed"]
    assert main(["runs", "run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "run run Succeeded: nothing changed, 31s"
    assert f"  preflight         Skipped    0s  {NOTHING_TO_DO}" in said
    run = read_run(world.only_run())
    assert f"| preflight | Skipped | 0s | {NOTHING_TO_DO} |" in markdown(run, 0.0).splitlines()


def test_who_follows_it_hears_it_at_the_end(world: ArgoCluster, capsys: Any) -> None:
    add(world, phase="Succeeded", startedAt="2026-11-22T19:00:00Z", finishedAt="2026-11-22T19:00:31Z")
    assert main(["runs", "run", "--follow"]) == 0
    assert "run run Succeeded: nothing changed" in capsys.readouterr().out


def test_the_exit_handler_tells_it_without_a_word_on_each_task_that_was_left_out(world: ArgoCluster) -> None:
    add(world, phase="Running")
    people: list[Any] = []
    cluster = connect(world.kubeconfig)
    step = ReportRun(
        service(),
        cluster,
        lambda: _Inbox(people),
        RunEnd.of("run", "Succeeded"),
        lambda: workflow_of(cluster, service(), "run"),
    )
    report = RecordingReport()
    outputs = converge(step, report, FakeClock()).outputs
    assert outputs.message.startswith("run run: Succeeded; nothing changed; ")
    assert people[0]["result"] == "nothing changed"
    assert [task["task"] for task in people[0]["tasks"]] == ["resolve-model", "check-release", "finish-run"]
    assert not any("Skipped" in line for line in report.of("ok"))


class _Inbox:
    def __init__(self, messages: list[Any]) -> None:
        self._messages = messages

    def send(self, message: Any) -> None:
        self._messages.append(message)


def add(world: ArgoCluster, **status: Any) -> None:
    metadata = {"name": "run", "namespace": NAMESPACE, "labels": {"slipway/service": SERVICE}}
    spec = {"workflowTemplateRef": {"name": SERVICE}}
    world.store.create(world.kind("Workflow"), {"metadata": metadata, "spec": spec})
    world.tell("run", nodes=recorded("quiet"), **status)
