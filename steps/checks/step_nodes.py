"""Is there a node for the steps themselves? A pod that fits nowhere stays Pending, and only its own events say why."""

from collections import Counter

from steps.catalogue import CATALOGUE
from steps.checks.facts import PlatformFacts
from steps.checks.findings import Finding, Refusal, Well, Wrong
from steps.checks.nodes import has_gpus, is_ready, quantity
from steps.document.schema import ModelService
from steps.kinds import Manifest
from steps.release import Release
from steps.resource_requests import ResourceRequests

_REPELLING = ("NoSchedule", "NoExecute")


def nodes_for_steps(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """By what a node has in all: pods that wait for others to end are no fault."""
    if not facts.in_pods:
        return (Well("the steps run outside of the cluster"),)
    if isinstance(facts.nodes, Refusal):
        return ()  # the check of the GPUs says so
    service = release.service
    need = largest(service)
    obstacles = [_obstacle(node, service, need) for node in facts.nodes]
    fitting = obstacles.count("")
    if fitting:
        return (Well(f"{fitting} of {len(obstacles)} nodes may run the steps"),)
    counts = ", ".join(f"{count} {obstacle}" for obstacle, count in sorted(Counter(obstacles).items()))
    wanted = "".join(f", with label {key}={value}" for key, value in service.workflow.node_selector.items())
    where = "" if service.workflow.gpu_nodes == "allow" else " without GPUs"
    return (
        Wrong(
            f"no node that may run the steps ({counts or 'no nodes at all'})",
            f"a Ready node{where}{wanted} with {need.cpu} CPU and {need.memory_mebibytes}Mi of memory",
        ),
    )


def largest(service: ModelService) -> ResourceRequests:
    found = [spec.resources(service) for spec in CATALOGUE.values()]
    cpu = max(found, key=lambda one: quantity(one.cpu)).cpu
    return ResourceRequests(cpu, max(one.memory_mebibytes for one in found))


def _obstacle(node: Manifest, service: ModelService, need: ResourceRequests) -> str:
    """Why the scheduler would pass over this node; empty if it would not."""
    labels, spec = node["metadata"].get("labels", {}), node["spec"]
    room = node["status"].get("allocatable", {})
    lacks_room = quantity(room.get("cpu", "0")) < quantity(need.cpu) or (
        quantity(room.get("memory", "0")) < need.memory_mebibytes * 2**20
    )
    reasons = {
        "with GPUs": has_gpus(node) and service.workflow.gpu_nodes == "never",
        "without the labels of workflow.nodeSelector": not service.workflow.node_selector.items() <= labels.items(),
        "not Ready or cordoned": not is_ready(node) or bool(spec.get("unschedulable")),
        "tainted": any(taint.get("effect") in _REPELLING for taint in spec.get("taints", ())),
        "too small": lacks_room,
    }
    return next((reason for reason, applies in reasons.items() if applies), "")
