"""Free capacity is what the scheduler would give: taints, cordons, tolerations, node selector and required affinity.

The taints are those of public reports; each case is decided as the documentation of Kubernetes decides it.
https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
"""

from typing import Any

import pytest

from steps.check_platform import plan
from steps.checks.scheduling import obstacle
from steps.kinds import Manifest
from tests.plan.test_check_platform import erdma_device, healthy, node
from tests.support.samples import release, service

GPU = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
ANY = "[{operator: Exists}]"
TAINTS: list[tuple[dict[str, Any], str, str]] = [
    # taint, tolerations of the document, obstacle
    (GPU, "[]", "taint nvidia.com/gpu=present:NoSchedule not tolerated"),  # LLMKube#658, kuda#11
    (GPU, "[{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]", ""),
    (GPU, "[{key: nvidia.com/gpu, value: present, effect: NoSchedule}]", ""),  # the operator is Equal
    (GPU, "[{key: nvidia.com/gpu, value: 'true'}]", "taint nvidia.com/gpu=present:NoSchedule not tolerated"),
    (GPU, "[{key: nvidia.com/gpu, operator: Exists, effect: NoExecute}]", "taint nvidia.com/gpu=present:NoSchedule"),
    (GPU, "[{key: nvidia.com, operator: Exists}]", "taint nvidia.com/gpu=present:NoSchedule"),  # no prefix matches
    (GPU, ANY, ""),
    ({"key": "nvidia.com/gpu", "effect": "NoSchedule"}, "[{key: nvidia.com/gpu}]", ""),  # both values are empty
    ({**GPU, "effect": "PreferNoSchedule"}, "[]", ""),  # a preference
    ({**GPU, "effect": "NoExecute"}, "[{key: nvidia.com/gpu, operator: Exists}]", ""),
    (  # the pod would be evicted after an hour
        {**GPU, "effect": "NoExecute"},
        "[{key: nvidia.com/gpu, operator: Exists, effect: NoExecute, tolerationSeconds: 3600}]",
        "taint nvidia.com/gpu=present:NoExecute",
    ),
    ({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, "[]", "cordoned"),
    ({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, ANY, ""),
]


@pytest.mark.parametrize(("taint", "tolerations", "expected"), TAINTS)
def test_a_taint_counts_as_kubernetes_counts_it(taint: dict[str, Any], tolerations: str, expected: str) -> None:
    found = obstacle(node("gpu-a", taints=[taint]), service(f"serving.pod.tolerations={tolerations}").serving.pod)
    assert found.startswith(expected) if expected else not found


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
ZONE_A = {"zone": "a", "cards": "8"}
AFFINITY = [
    ("{key: zone, operator: In, values: [a, b]}", True),
    ("{key: zone, operator: NotIn, values: [a]}", False),
    ("{key: rack, operator: NotIn, values: [r1]}", True),  # a node without the label
    ("{key: rack, operator: Exists}", False),
    ("{key: rack, operator: DoesNotExist}", True),
    ("{key: cards, operator: Gt, values: ['7']}", True),
    ("{key: cards, operator: Lt, values: ['8']}", False),
    ("{key: zone, operator: Gt, values: ['7']}", False),  # no number
]


@pytest.mark.parametrize(("expression", "fits"), AFFINITY)
def test_required_node_affinity_counts_as_kubernetes_counts_it(expression: str, fits: bool) -> None:
    found = node("gpu-a")
    found["metadata"]["labels"] |= ZONE_A
    terms = f"{{{REQUIRED}: {{nodeSelectorTerms: [{{matchExpressions: [{expression}]}}]}}}}"
    assert (obstacle(found, service(f"serving.pod.affinity.nodeAffinity={terms}").serving.pod) == "") == fits


def test_one_term_of_several_is_enough_and_a_node_may_be_named() -> None:
    named = "{matchFields: [{key: metadata.name, operator: In, values: [gpu-b]}]}"
    other = "{matchExpressions: [{key: zone, operator: Exists}]}"
    pod = service(f"serving.pod.affinity.nodeAffinity={{{REQUIRED}: {{nodeSelectorTerms: [{other}, {named}]}}}}")
    assert obstacle(node("gpu-b"), pod.serving.pod) == ""
    assert obstacle(node("gpu-a"), pod.serving.pod) == "not in the required node affinity"


def test_a_cordon_counts_without_its_taint() -> None:
    assert obstacle(node("gpu-a", unschedulable=True), service().serving.pod) == "cordoned"


def findings(*overrides: str, nodes: tuple[Manifest, ...]) -> tuple[list[str], list[str]]:
    devices = tuple(erdma_device(one["metadata"]["name"], "Ready") for one in nodes)
    made = plan(release(*overrides), healthy(nodes=nodes, erdma_devices=devices))
    return ([line for line in made.ok if "GPU01" in line], [line for line in made.failed if "GPU01" in line])


TAINTED = tuple(node(name, taints=[GPU]) for name in ("gpu-a", "gpu-b", "gpu-c"))
TOLERATED = "serving.pod.tolerations=[{key: nvidia.com/gpu, operator: Exists}]"


def test_three_tainted_nodes_of_eight_gpus_are_no_free_capacity_and_the_finding_names_them() -> None:
    _, (fault,) = findings(nodes=TAINTED)
    assert "found 0 free slots of 2 GPUs (none on any node; taint nvidia.com/gpu=present:NoSchedule" in fault
    assert "gpu-a, gpu-b, gpu-c" in fault
    assert "serving.pod.tolerations" in fault.partition("Next: ")[2]


def test_a_toleration_of_the_document_makes_them_free() -> None:
    ok, faults = findings(TOLERATED, nodes=TAINTED)
    assert (ok, faults) == (["GPU01 12 free slots of 2 GPUs for 3 workers"], [])


def test_each_role_needs_nodes_of_its_own() -> None:
    small, large = node("gpu-a", gpus=2), node("gpu-b", gpus=4, taints=[GPU])
    prefill = "serving.prefill.pod.tolerations=[{key: nvidia.com/gpu, operator: Exists}]"
    assert findings(prefill, nodes=(small, large))[1] == []
    decode = "serving.decode.pod.tolerations=[{key: nvidia.com/gpu, operator: Exists}]"
    assert len(findings(decode, nodes=(small, large))[1]) == 1


def test_a_role_that_needs_more_memory_needs_a_node_that_has_it() -> None:
    nodes = (node("gpu-a", gpus=4), node("gpu-b", gpus=2))
    assert findings(nodes=nodes)[1] == []
    _, (fault,) = findings("serving.decode.resources.memory=2000Gi", nodes=nodes)
    assert "2000Gi memory" in fault
