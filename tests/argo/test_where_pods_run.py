"""Where the pods of a run may go, and what they ask for there: a node with GPUs belongs to the workers."""

from collections.abc import Mapping
from typing import Any

import pytest

from steps import resource_requests
from steps.catalogue import CATALOGUE
from steps.checks.nodes import GPU_NAME_LABEL, GPU_PRESENT_LABEL
from steps.document.quantities import quantity
from tests.support.rendered import VARIANTS, VERSIONS, sample, templates, workflow_spec
from tests.support.samples import ROOT, service
from workflows.argo.workflow import workflow_template

CPU_NODE: Mapping[str, str] = {"kubernetes.io/arch": "amd64"}
GPU_NODES: Mapping[str, Mapping[str, str]] = {
    "as ACK labels it": {"aliyun.accelerator/nvidia_name": "NVIDIA-H20", "aliyun.accelerator/nvidia_count": "8"},
    "as NVIDIA's GPU operator labels it": {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.memory": "97871"},
}


@pytest.mark.parametrize("argo", VERSIONS)
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "all options"])
@pytest.mark.parametrize("node", GPU_NODES)
def test_no_pod_of_a_run_ever_sits_on_a_node_with_gpus(argo: str, variant: str, node: str) -> None:
    assert not may_go(workflow_spec(argo, variant), GPU_NODES[node])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pod_of_a_run_may_go_to_any_other_node(variant: str) -> None:
    spec = workflow_spec(variant=variant)
    assert may_go(spec, {**CPU_NODE, "pool": "cpu"})
    assert may_go(spec, {"pool": "cpu", "nvidia.com/gpu.present": "false"})  # its cards were taken out


@pytest.mark.parametrize("node", GPU_NODES)
def test_a_document_can_let_pods_onto_nodes_with_gpus_and_they_still_prefer_others(node: str) -> None:
    spec = workflow_spec(variant="all options")
    assert may_go(spec, {"pool": "cpu", **GPU_NODES[node]})
    *_, wish = spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert not _matches(wish["preference"], GPU_NODES[node])
    assert _matches(wish["preference"], CPU_NODE)


def test_no_template_has_a_place_of_its_own_that_would_replace_that_of_the_run() -> None:
    for variant in VARIANTS:
        for template in workflow_spec(variant=variant)["templates"]:
            assert not {"affinity", "nodeSelector", "tolerations", "podSpecPatch"} & set(template), template["name"]


def may_go(spec: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """As the scheduler sees it: the selector, and one of the required terms.

    https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
    """
    if not spec.get("nodeSelector", {}).items() <= labels.items():
        return False
    required = spec["affinity"]["nodeAffinity"].get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(_matches(term, labels) for term in required["nodeSelectorTerms"])


def _matches(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return all(_holds(expression, labels) for expression in term["matchExpressions"])


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "DoesNotExist":
            return value is None
        case "NotIn":
            return value not in expression["values"]
    raise AssertionError(f"no such operator here: {expression}")


def test_a_transfer_fits_on_a_node_of_two_cpus_and_has_room_for_every_part_in_flight_twice() -> None:
    for variant in VARIANTS:
        transfer = sample(variant).transfer
        for name, template in templates(workflow_spec(variant=variant)).items():
            resources = template["container"]["resources"]
            asked = resources["requests"]
            assert set(resources["limits"]) == {"memory"}, "a limit of CPU would only slow a step down"
            assert resources["limits"]["memory"] == asked["memory"]
            assert quantity(asked["cpu"]) <= 1, name
            if CATALOGUE[name].resources is resource_requests.transfer:
                in_flight = transfer.workers * transfer.part_bytes
                assert quantity(asked["memory"]) >= 2 * in_flight + 128 * 2**20


def test_the_page_of_the_resources_says_what_the_templates_ask_for() -> None:
    page = (ROOT / "docs" / "reference" / "resources.md").read_text(encoding="utf-8")
    asked = {name: one["container"]["resources"]["requests"] for name, one in templates(workflow_spec()).items()}
    assert asked.pop("check-platform") == {"cpu": "100m", "memory": "256Mi"}
    assert "| `check-platform` | 100m | 256 MiB |" in page
    assert "448 MiB with the defaults" in page
    assert "| every other | 100m | 128 MiB |" in page
    for name, requests in asked.items():
        wanted = (
            {"cpu": "1", "memory": "448Mi"}
            if CATALOGUE[name].resources is resource_requests.transfer
            else {"cpu": "100m", "memory": "128Mi"}
        )
        assert requests == wanted, name


def test_each_node_term_of_the_document_keeps_the_steps_away_from_gpus() -> None:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    terms = "[{matchExpressions: [{key: zone, operator: Exists}]}, {matchExpressions: [{key: rack, operator: Exists}]}]"
    found = service(f"workflow.pod.affinity.nodeAffinity={{{required}: {{nodeSelectorTerms: {terms}}}}}")
    spec = workflow_template(found, "")["spec"]
    rendered = spec["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    assert [term["matchExpressions"][0]["key"] for term in rendered] == ["zone", "rack"]
    for term in rendered:
        assert {one["key"] for one in term["matchExpressions"][1:]} == {GPU_NAME_LABEL, GPU_PRESENT_LABEL}
