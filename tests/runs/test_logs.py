"""The logs of a run, by its pods."""

from typing import Any

import pytest

from steps.errors import Blocked
from tests.support.argo_cluster import NAMESPACE, SERVICE, ArgoCluster
from workflows.__main__ import main
from workflows.commands import run as run_commands
from workflows.commands.run import Place

RUN = "qwen3-32b-1f4c09aa"


@pytest.fixture
def started(world: ArgoCluster) -> ArgoCluster:
    metadata = {"name": RUN, "namespace": NAMESPACE}
    spec = {"workflowTemplateRef": {"name": SERVICE}}
    world.store.create(world.kind("Workflow"), {"metadata": metadata, "spec": spec})
    world.add_pod(f"{RUN}-resolve-model-1", f"{RUN}.resolve-model(0)", "pinned\n", RUN)
    world.add_pod(f"{RUN}-mirror-model-2", f"{RUN}.mirror-model(0:0)(0)", "no answer\n", RUN)
    world.add_pod(f"{RUN}-mirror-model-3", f"{RUN}.mirror-model(0:0)(1)", "moved\x1b[2J\n", RUN)
    world.add_pod(f"{RUN}-roll-back-4", f"{RUN}.onExit[0].roll-back", None, RUN)
    world.add_pod("another-5", "another.resolve-model(0)", "of another run\n", "another")
    return world


def logs(capsys: Any, *words: str) -> list[str]:
    assert main(["logs", *words, "-n", NAMESPACE]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line]


def test_every_pod_of_the_run_is_printed_and_no_pod_of_another_run(started: ArgoCluster, capsys: Any) -> None:
    lines = logs(capsys, RUN)
    assert [line.split()[1] for line in lines if line.startswith("== ")] == [
        "mirror-model(0:0)(0)",
        "mirror-model(0:0)(1)",
        "resolve-model(0)",
        "roll-back",
    ]
    assert "of another run" not in lines
    assert "no log: the container has not started" in lines
    assert lines[-1] == f"Next: slipway runs {RUN} -n {NAMESPACE}"


def test_a_task_is_printed_with_every_attempt_and_instance_of_it(started: ArgoCluster, capsys: Any) -> None:
    lines = logs(capsys, RUN, "mirror-model")
    assert [line for line in lines if line in ("pinned", "no answer")] == ["no answer"]
    assert len([line for line in lines if line.startswith("== ")]) == 2
    assert "moved\N{REPLACEMENT CHARACTER}[2J" in lines, "a log must not move the cursor of its reader"
    assert logs(capsys, RUN, "roll-back")[0].startswith("== roll-back ")


@pytest.mark.parametrize(
    ("run", "task", "found"),
    [
        ("absent", "", "there is no run absent in namespace slipway. Next: name a run"),
        (RUN, "mirror", "no pod of task mirror in namespace slipway; its pods: mirror-model"),
    ],
)
def test_an_absent_run_or_task_is_refused_with_the_next_step(
    started: ArgoCluster, run: str, task: str, found: str
) -> None:
    with pytest.raises(Blocked) as refused:
        run_commands.logs(run, task, Place(NAMESPACE))
    assert found in str(refused.value)


def test_argo_server_is_refused_with_the_command_that_works(started: ArgoCluster) -> None:
    with pytest.raises(Blocked, match=f"argo logs -n {NAMESPACE} {RUN}"):
        run_commands.logs(RUN, "", Place(NAMESPACE, started.argo_server))
