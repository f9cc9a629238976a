"""Is the eRDMA fabric there? Without it the KV cache would move over TCP, silently and slowly.

https://github.com/AliyunContainerService/alibabacloud-erdma-controller
"""

from steps.checks.cluster import deployment_available
from steps.checks.facts import Objects, PlatformFacts
from steps.checks.findings import Fail, Finding, Pass, Refusal
from steps.checks.nodes import allocatable_gpus, name_of
from steps.checks.scheduling import obstacle
from steps.document.quantities import quantity
from steps.document.schema import WORKER_ROLES
from steps.kinds import ERDMA, Manifest
from steps.release import Release

ERDMA_CONTROLLER = "alibabacloud-erdma-controller"


def erdma_controller(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    if release.service.serving.fabric != "erdma":
        return (Pass("the document has TCP, no eRDMA is needed"),)
    return deployment_available(ERDMA_CONTROLLER, facts.deployments)


def erdma_devices(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """Every GPU node that offers RDMA has an ERdmaDevice whose devices are all Ready; enough nodes offer it."""
    if release.service.serving.fabric != "erdma":
        return ()
    if isinstance(facts.erdma_devices, Refusal):
        return (Fail(facts.erdma_devices.reason, "permission to list ERdmaDevices"),)
    if isinstance(facts.nodes, Refusal):
        return (Fail(facts.nodes.reason, "permission to list nodes"),)
    if facts.erdma_devices is None:
        return (Fail("no ERdmaDevice API", "network.alibabacloud.com/v1 ERdmaDevice"),)
    problems = _problems(release, facts.nodes, facts.erdma_devices)
    healthy = [name for name, problem in problems.items() if not problem]
    if healthy:
        broken = [f"{name} ({problem})" for name, problem in problems.items() if problem]
        left_out = f"; left out: {', '.join(broken)}" if broken else ""
        return (Pass(f"eRDMA is healthy on {len(healthy)} of {len(problems)} GPU nodes{left_out}"),)
    found = "; ".join(f"{name}: {problem}" for name, problem in problems.items()) or "no GPU node at all"
    return (Fail(found, f"a GPU node with a Ready ERdmaDevice and allocatable {ERDMA}"),)


def healthy_nodes(release: Release, facts: PlatformFacts) -> frozenset[str] | None:
    """Names of the GPU nodes whose fabric is healthy; None where the fabric is not needed or not known."""
    if release.service.serving.fabric != "erdma":
        return None
    if isinstance(facts.nodes, Refusal) or facts.erdma_devices is None or isinstance(facts.erdma_devices, Refusal):
        return None
    problems = _problems(release, facts.nodes, facts.erdma_devices)
    return frozenset(name for name, problem in problems.items() if not problem)


def _problems(release: Release, nodes: Objects, erdma_devices: Objects) -> dict[str, str]:
    devices = {device["metadata"]["name"]: device for device in erdma_devices}
    workers = [release.service.serving.worker(role).pod for role in WORKER_ROLES]
    return {
        name_of(node): _problem(node, devices)
        for node in nodes
        if allocatable_gpus(node) and not all(obstacle(node, pod) for pod in workers)
    }


def _problem(node: Manifest, devices: dict[str, Manifest]) -> str:
    """Why the fabric of a node cannot be used; empty if it can.

    An interface in an unexpected mode yields no status entry at all, so the counts must agree
    (internal/controller/erdmadevice_controller.go upstream).
    """
    device = devices.get(node["metadata"]["name"])
    if device is None:
        return "no ERdmaDevice, so no RDMA interface"
    wanted = device.get("spec", {}).get("devices", [])
    states = device.get("status", {}).get("devices", [])
    failed = [
        f"{state['id']} is {state['status']} {state.get('message', '')}".strip()
        for state in states
        if state.get("status") != "Ready"
    ]
    if failed:
        return ", ".join(failed)
    if not wanted or len(states) != len(wanted):
        return f"{len(states)} of {len(wanted)} devices report a status"
    if quantity(node["status"]["allocatable"].get(ERDMA, "0")) < 1:
        return f"no allocatable {ERDMA}"
    return ""
