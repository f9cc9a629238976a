"""A pod of the line that no node may take would wait without a word; the check says it before."""

import dataclasses
from typing import Any

import pytest

from steps import kinds
from steps.check_platform import plan
from steps.checks.facts import PARTS, PlatformFacts
from steps.kinds import Manifest
from tests.plan.test_check_platform import healthy
from tests.support.samples import release

NO_GPUS: dict[str, str] = {}


def cpu_node(labels: dict[str, str] = NO_GPUS, cpu: str = "1930m", memory: str = "1Gi", **spec: Any) -> Manifest:
    ready = [{"type": "Ready", "status": "True"}]
    return {
        "metadata": {"name": "cpu", "labels": labels},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": memory}, "conditions": ready},
    }


def seen(*nodes: Manifest, in_pods: bool = True) -> PlatformFacts:
    known = healthy()
    assert isinstance(known.nodes, tuple)
    return dataclasses.replace(known, nodes=(*known.nodes, *nodes), in_pods=in_pods)


def said(found: PlatformFacts, *overrides: str) -> tuple[list[str], list[str]]:
    made = plan(release(*overrides), found)
    return [line for line in made.ok if line.startswith("NOD01")], [
        line for line in made.failed if line.startswith("NOD01")
    ]


ACK = {"aliyun.accelerator/nvidia_name": "NVIDIA-H20"}
NVIDIA = {"nvidia.com/gpu.present": "true"}


def test_a_small_node_without_gpus_takes_every_step() -> None:
    kept, faults = said(seen(cpu_node()), "workflow.pod.nodeSelector={}")
    assert faults == []
    assert "nodes may run the steps" in kept[0]


@pytest.mark.parametrize(
    ("node", "obstacle"),
    [
        (cpu_node(ACK), "with GPUs"),
        (cpu_node(NVIDIA), "with GPUs"),
        (cpu_node(cpu="900m"), "too small"),
        (cpu_node(memory="300Mi"), "too small"),
        (cpu_node(unschedulable=True), "cordoned"),
        (cpu_node(taints=[{"key": "a", "effect": "NoSchedule"}]), "taint a:NoSchedule not tolerated"),
    ],
    ids=["ACK", "NVIDIA", "cpu", "memory", "cordon", "taint"],
)
def test_a_cluster_whose_nodes_cannot_take_a_step_is_told_why_not_and_what_is_needed(
    node: Manifest, obstacle: str
) -> None:
    alone = dataclasses.replace(seen(), nodes=(node,))
    _, [fault] = said(alone)
    assert obstacle in fault
    assert "needed a Ready node without GPUs with 1 CPU and 448Mi of memory" in fault
    assert "workflow.gpuNodes: allow" in fault


def test_a_node_selector_that_no_node_has_is_named() -> None:
    _, [fault] = said(dataclasses.replace(seen(), nodes=(cpu_node(),)), "workflow.pod.nodeSelector={pool: cpu}")
    assert "without the labels of nodeSelector" in fault
    assert "with label pool=cpu" in fault


def test_nodes_with_gpus_will_do_if_the_document_says_so() -> None:
    alone = dataclasses.replace(seen(), nodes=(cpu_node(ACK),))
    assert said(alone, "workflow.gpuNodes=allow")[1] == []


def test_a_step_runs_on_a_tainted_node_if_the_document_tolerates_the_taint() -> None:
    alone = dataclasses.replace(seen(), nodes=(cpu_node(taints=[{"key": "a", "effect": "NoSchedule"}]),))
    assert said(alone, "workflow.pod.tolerations=[{key: a, operator: Exists}]")[1] == []


def test_a_laptop_runs_the_steps_itself() -> None:
    assert said(dataclasses.replace(seen(in_pods=False), nodes=(cpu_node(ACK),)))[1] == []


def test_what_is_kept_of_a_large_object_says_the_same_as_all_of_it() -> None:
    whole = seen(cpu_node(ACK), cpu_node())
    assert isinstance(whole.nodes, tuple)
    assert isinstance(whole.pods, tuple)
    assert isinstance(whole.deployments, tuple)
    assert isinstance(whole.daemon_sets, tuple)
    lean = dataclasses.replace(
        whole,
        nodes=tuple(map(PARTS[kinds.NODE], whole.nodes)),
        pods=tuple(map(PARTS[kinds.POD], whole.pods)),
        deployments=tuple(map(PARTS[kinds.DEPLOYMENT], whole.deployments)),
        daemon_sets=tuple(map(PARTS[kinds.DAEMON_SET], whole.daemon_sets)),
    )
    assert plan(release(), lean) == plan(release(), whole)


def test_the_part_of_a_pod_has_none_of_what_makes_it_large() -> None:
    pod = {
        "metadata": {"name": "a", "namespace": "b", "managedFields": [1], "annotations": {"c": "d"}},
        "spec": {"nodeName": "n", "containers": [{"name": "m", "env": [1], "resources": {"limits": {"cpu": "1"}}}]},
        "status": {"phase": "Running", "containerStatuses": [1]},
    }
    assert PARTS[kinds.POD](pod) == {
        "metadata": {"name": "a", "namespace": "b"},
        "spec": {"nodeName": "n", "containers": [{"resources": {"limits": {"cpu": "1"}}}]},
        "status": {"phase": "Running"},
    }
