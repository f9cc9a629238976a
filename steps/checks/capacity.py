"""Do the workers fit? GPUs are packed node by node: two free GPUs on two nodes are no place for tensor parallel two."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steps.checks.fabric import healthy_nodes
from steps.checks.facts import PlatformFacts
from steps.checks.findings import Finding, Refusal, Well, Wrong
from steps.checks.nodes import card_memory, gpu_nodes, quantity
from steps.kinds import ERDMA, GPU, RELEASE_LABEL, ROLE_LABEL, SERVICE_LABEL, Manifest
from steps.reconcile.report import size
from steps.release import Release

# The part of a card that SGLang gives to weights and KV cache by default; CUDA graphs and activations take the rest.
# https://docs.sglang.io/advanced_features/server_arguments.html (--mem-fraction-static)
USABLE_SHARE = 0.88
GIGABYTE = 10**9


@dataclass(frozen=True)
class NodeRoom:
    name: str
    free: Mapping[str, float]  # resource -> amount that no pod has requested
    gpu_memory: int | None  # bytes of one card, None if the node does not say

    def workers(self, need: Mapping[str, float]) -> int:
        """How many workers with these requests fit here."""
        return max(0, min(int(self.free.get(resource, 0) // amount) for resource, amount in need.items()))


def gpu_slots(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """Enough slots of `tensorParallel` GPUs, with ERDMA, CPU and memory beside them, for the workers still to start."""
    rooms = rooms_of(release, facts)
    if isinstance(rooms, Refusal):
        return (Wrong(rooms.reason, "permission to list nodes and pods"),)
    missing = workers_to_start(release, facts)
    if not missing:
        return (Well("every worker of this release has its GPUs"),)
    need = worker_requests(release)
    slots = {room.name: room.workers(need) for room in rooms if fits_memory(release, facts, room)}
    have = sum(slots.values())
    tensor_parallel = release.service.serving.tensor_parallel
    if have >= missing:
        return (Well(f"{have} free slots of {tensor_parallel} GPUs for {missing} workers"),)
    where = ", ".join(f"{name} {count}" for name, count in sorted(slots.items()) if count) or "none on any node"
    return (
        Wrong(
            f"{have} free slots of {tensor_parallel} GPUs ({where})",
            f"{missing} slots, each with {_requests_text(need)} on one node",
        ),
    )


def gpu_memory(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """The weights that one GPU holds fit into the usable part of its memory."""
    if isinstance(facts.weight_bytes, Refusal):
        return (Wrong(facts.weight_bytes.reason, "the size of the model's weights"),)
    rooms = rooms_of(release, facts)
    if isinstance(rooms, Refusal) or not rooms:
        return ()  # gpu_slots says so
    per_gpu = facts.weight_bytes / release.service.serving.tensor_parallel
    if any(fits_memory(release, facts, room) for room in rooms):
        return (Well(f"{size(int(per_gpu))} of weights fit into each GPU"),)
    largest = max(room.gpu_memory or 0 for room in rooms)
    return (
        Wrong(
            f"GPUs of at most {largest / GIGABYTE:.1f} GB, of which {USABLE_SHARE:.0%} hold weights and KV cache",
            f"{per_gpu / USABLE_SHARE / GIGABYTE:.1f} GB for {per_gpu / GIGABYTE:.1f} GB of weights on each of "
            f"{release.service.serving.tensor_parallel} GPUs",
        ),
    )


def rooms_of(release: Release, facts: PlatformFacts) -> tuple[NodeRoom, ...] | Refusal:
    """The GPU nodes that may run workers, with what is free there once this rollout has stopped what it replaces."""
    if isinstance(facts.nodes, Refusal):
        return facts.nodes
    if isinstance(facts.pods, Refusal):
        return facts.pods
    staying = [pod for pod in facts.pods if _holds_resources(pod) and not gives_way(release, facts, pod)]
    healthy = healthy_nodes(release, facts)
    return tuple(
        _room(node, staying)
        for node in gpu_nodes(release, facts.nodes)
        if healthy is None or node["metadata"]["name"] in healthy
    )


def workers_to_start(release: Release, facts: PlatformFacts) -> int:
    """Workers of the release that no pod of its own holds GPUs for yet."""
    pods = () if isinstance(facts.pods, Refusal) else facts.pods
    missing = 0
    for role in ("prefill", "decode"):
        labels = {SERVICE_LABEL: release.service.name, RELEASE_LABEL: release.id, ROLE_LABEL: role}.items()
        placed = [pod for pod in pods if labels <= pod["metadata"].get("labels", {}).items() and _holds_resources(pod)]
        missing += max(0, release.replicas[role] - len(placed))
    return missing


def fits_memory(release: Release, facts: PlatformFacts, room: NodeRoom) -> bool:
    """A node that does not say how much memory its cards have gets the benefit of the doubt."""
    if room.gpu_memory is None or isinstance(facts.weight_bytes, Refusal):
        return True
    return facts.weight_bytes / release.service.serving.tensor_parallel <= room.gpu_memory * USABLE_SHARE


def worker_requests(release: Release) -> dict[str, float]:
    serving = release.service.serving
    need = {
        GPU: float(serving.tensor_parallel),
        "cpu": quantity(serving.resources.cpu),
        "memory": quantity(serving.resources.memory),
    }
    return {**need, ERDMA: 1.0} if serving.fabric == "erdma" else need


def _requests_text(need: Mapping[str, float]) -> str:
    return ", ".join(
        f"{amount / 2**30:g}Gi memory" if resource == "memory" else f"{amount:g} {resource}"
        for resource, amount in need.items()
    )


def _room(node: Manifest, pods: Iterable[Manifest]) -> NodeRoom:
    name = node["metadata"]["name"]
    free = {resource: quantity(amount) for resource, amount in node["status"]["allocatable"].items()}
    for pod in pods:
        if pod["spec"].get("nodeName") == name:
            for resource, amount in pod_requests(pod).items():
                free[resource] = free.get(resource, 0) - amount
    return NodeRoom(name, free, card_memory(node))


def pod_requests(pod: Manifest) -> dict[str, float]:
    total: dict[str, float] = {}
    for container in pod["spec"].get("containers", ()):
        resources = container.get("resources", {})
        for resource, amount in {**resources.get("limits", {}), **resources.get("requests", {})}.items():
            total[resource] = total.get(resource, 0) + quantity(amount)
    return total


def _holds_resources(pod: Manifest) -> bool:
    return bool(pod["spec"].get("nodeName")) and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def gives_way(release: Release, facts: PlatformFacts, pod: Manifest) -> bool:
    """Recreate stops the other releases of this service before it starts the new one, and BlueGreen what a run left
    behind that could not clean up.
    """
    metadata = pod["metadata"]
    labels = metadata.get("labels", {})
    found = labels.get(RELEASE_LABEL, "")
    if labels.get(SERVICE_LABEL) != release.service.name or metadata.get("namespace") != release.service.namespace:
        return False
    if found in ("", release.id):
        return False
    recreate = release.service.rollout.strategy == "Recreate"
    return recreate or (facts.staying is not None and found not in facts.staying)
