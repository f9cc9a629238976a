"""Is there a node for the steps themselves? A pod without one stays Pending; only its events give the reason."""

from collections import Counter

from steps.catalogue import CATALOGUE
from steps.checks.facts import PlatformFacts
from steps.checks.findings import Fail, Finding, Pass, Refusal
from steps.checks.nodes import has_gpus
from steps.checks.scheduling import obstacle
from steps.document.quantities import quantity
from steps.document.schema import ModelService
from steps.kinds import Manifest
from steps.release import Release
from steps.resource_requests import ResourceRequests


def nodes_for_steps(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """By the whole size of a node: a pod may wait until others end."""
    if not facts.in_pods:
        return (Pass("the steps run outside of the cluster"),)
    if isinstance(facts.nodes, Refusal):
        return ()  # the check of the GPUs reports it
    service = release.service
    need = largest(service)
    obstacles = [_obstacle(node, service, need) for node in facts.nodes]
    fitting = obstacles.count("")
    if fitting:
        return (Pass(f"{fitting} of {len(obstacles)} nodes may run the steps"),)
    counts = ", ".join(f"{count} {found}" for found, count in sorted(Counter(obstacles).items()))
    labels = "".join(f", with label {key}={value}" for key, value in service.workflow.pod.node_selector.items())
    where = "" if service.workflow.gpu_nodes == "allow" else " without GPUs"
    return (
        Fail(
            f"no node that may run the steps ({counts or 'no nodes at all'})",
            f"a Ready node{where}{labels} with {need.cpu} CPU and {need.memory_mebibytes}Mi of memory",
        ),
    )


def largest(service: ModelService) -> ResourceRequests:
    found = [spec.resources(service) for spec in CATALOGUE.values()]
    cpu = max(found, key=lambda one: quantity(one.cpu)).cpu
    return ResourceRequests(cpu, max(one.memory_mebibytes for one in found))


def _obstacle(node: Manifest, service: ModelService, need: ResourceRequests) -> str:
    """Why the scheduler would pass over this node; empty if it would not."""
    if has_gpus(node) and service.workflow.gpu_nodes == "never":
        return "with GPUs"
    found = obstacle(node, service.workflow.pod)
    size = node["status"].get("allocatable", {})
    too_small = quantity(size.get("cpu", "0")) < quantity(need.cpu) or (
        quantity(size.get("memory", "0")) < need.memory_mebibytes * 2**20
    )
    return found or ("too small" if too_small else "")
