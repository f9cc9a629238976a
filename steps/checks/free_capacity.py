"""Do the workers fit? GPUs are packed node by node: two free GPUs on two nodes are no place for tensor parallel two."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from steps.checks.fabric import healthy_nodes
from steps.checks.facts import Objects, PlatformFacts
from steps.checks.findings import Fail, Finding, Pass, Refusal
from steps.checks.nodes import allocatable_gpus, card_memory, name_of
from steps.checks.scheduling import obstacle
from steps.document.quantities import quantity
from steps.document.schema import WORKER_ROLES, WorkerRole
from steps.kinds import ERDMA, GPU, RELEASE_LABEL, ROLE_LABEL, SERVICE_LABEL, Manifest
from steps.reconcile.report import size
from steps.release import Release

# The part of a card that SGLang gives to weights and KV cache by default; CUDA graphs and activations take the rest.
# https://docs.sglang.io/advanced_features/server_arguments.html (--mem-fraction-static)
USABLE_SHARE = 0.88
GIGABYTE = 10**9
_MOST_NAMED = 5  # nodes of one obstacle in a message


@dataclass(frozen=True)
class FreeCapacity:
    """Free resources of a GPU node, and the roles that may use them."""

    node: str
    free: Mapping[str, float]  # resource -> amount that no pod has requested
    gpu_memory: int | None  # bytes of one card, None without a label for it
    roles: frozenset[WorkerRole]  # workers that the scheduler may put here

    def fits(self, requests: Mapping[str, float]) -> bool:
        return all(self.free.get(resource, 0) >= amount for resource, amount in requests.items())

    def without(self, requests: Mapping[str, float]) -> "FreeCapacity":
        left = {resource: self.free.get(resource, 0) - amount for resource, amount in requests.items()}
        return replace(self, free={**self.free, **left})


def gpu_slots(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """Enough slots of `tensorParallel` GPUs, with ERDMA, CPU and memory beside them, for the workers still to start."""
    capacities = free_capacities(release, facts)
    if isinstance(capacities, Refusal):
        return (Fail(capacities.reason, "permission to list nodes and pods"),)
    missing = workers_to_start(release, facts)
    if not any(missing.values()):
        return (Pass("every worker of this release has its GPUs"),)
    usable = [capacity for capacity in capacities if fits_memory(release, facts, capacity)]
    slots = _slots(release, usable)
    tensor_parallel = release.service.serving.tensor_parallel
    have = f"{sum(slots.values())} free slots of {tensor_parallel} GPUs"
    count = sum(missing.values())
    if _all_fit(release, usable, missing):
        return (Pass(f"{have} for {count} workers"),)
    where = ", ".join(f"{name} {number}" for name, number in sorted(slots.items()) if number) or "none on any node"
    needs = {_requests_text(worker_requests(release, role)): role for role in WORKER_ROLES if missing[role]}
    return (
        Fail(
            f"{have} ({where}{_excluded(release, facts)})",
            f"{count} slots, each with {' or '.join(needs)} on one node",
        ),
    )


def gpu_memory(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """The weights that one GPU holds fit into the usable part of its memory."""
    if isinstance(facts.weight_bytes, Refusal):
        return (Fail(facts.weight_bytes.reason, "the size of the model's weights"),)
    capacities = free_capacities(release, facts)
    if isinstance(capacities, Refusal) or not capacities:
        return ()  # gpu_slots reports it
    per_gpu = facts.weight_bytes / release.service.serving.tensor_parallel
    if any(fits_memory(release, facts, capacity) for capacity in capacities):
        return (Pass(f"{size(int(per_gpu))} of weights fit into each GPU"),)
    largest = max(capacity.gpu_memory or 0 for capacity in capacities)
    return (
        Fail(
            f"GPUs of at most {largest / GIGABYTE:.1f} GB, of which {USABLE_SHARE:.0%} hold weights and KV cache",
            f"{per_gpu / USABLE_SHARE / GIGABYTE:.1f} GB for {per_gpu / GIGABYTE:.1f} GB of weights on each of "
            f"{release.service.serving.tensor_parallel} GPUs",
        ),
    )


def free_capacities(release: Release, facts: PlatformFacts) -> tuple[FreeCapacity, ...] | Refusal:
    """Of the GPU nodes that may run workers, without the pods that this rollout stops first."""
    if isinstance(facts.nodes, Refusal):
        return facts.nodes
    if isinstance(facts.pods, Refusal):
        return facts.pods
    staying = [pod for pod in facts.pods if _holds_resources(pod) and not gives_way(release, facts, pod)]
    healthy = healthy_nodes(release, facts)
    found = (
        _free_capacity(release, node, staying) for node in facts.nodes if healthy is None or name_of(node) in healthy
    )
    return tuple(capacity for capacity in found if capacity.roles)


def workers_to_start(release: Release, facts: PlatformFacts) -> dict[WorkerRole, int]:
    """Workers of the release that no pod of its own holds GPUs for yet."""
    pods = () if isinstance(facts.pods, Refusal) else facts.pods
    missing: dict[WorkerRole, int] = {}
    for role in WORKER_ROLES:
        labels = {SERVICE_LABEL: release.service.name, RELEASE_LABEL: release.id, ROLE_LABEL: role}.items()
        placed = [pod for pod in pods if labels <= pod["metadata"].get("labels", {}).items() and _holds_resources(pod)]
        missing[role] = max(0, release.replicas[role] - len(placed))
    return missing


def fits_memory(release: Release, facts: PlatformFacts, capacity: FreeCapacity) -> bool:
    """A node without a label for the memory of its cards may be large enough."""
    if capacity.gpu_memory is None or isinstance(facts.weight_bytes, Refusal):
        return True
    return facts.weight_bytes / release.service.serving.tensor_parallel <= capacity.gpu_memory * USABLE_SHARE


def worker_requests(release: Release, role: WorkerRole) -> dict[str, float]:
    serving = release.service.serving
    resources = serving.worker(role).resources
    need = {
        GPU: float(serving.tensor_parallel),
        "cpu": quantity(resources.cpu),
        "memory": quantity(resources.memory),
    }
    return {**need, ERDMA: 1.0} if serving.fabric == "erdma" else need


def pod_requests(pod: Manifest) -> dict[str, float]:
    total: dict[str, float] = {}
    for container in pod["spec"].get("containers", ()):
        resources = container.get("resources", {})
        for resource, amount in {**resources.get("limits", {}), **resources.get("requests", {})}.items():
            total[resource] = total.get(resource, 0) + quantity(amount)
    return total


def gives_way(release: Release, facts: PlatformFacts, pod: Manifest) -> bool:
    """Recreate stops the other releases of this service before it starts the new one, and BlueGreen those that a run
    left behind.
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


def _slots(release: Release, capacities: Iterable[FreeCapacity]) -> dict[str, int]:
    """Workers that each node could still take, by the role that needs less."""
    found = {}
    for capacity in capacities:
        counts = [
            min(int(capacity.free.get(resource, 0) // amount) for resource, amount in requests.items())
            for requests in (worker_requests(release, role) for role in capacity.roles)
        ]
        found[capacity.node] = max(0, *counts)
    return found


def _all_fit(release: Release, capacities: Iterable[FreeCapacity], missing: Mapping[WorkerRole, int]) -> bool:
    """Places workers one by one, first on nodes that the other role may not use."""
    left = {capacity.node: capacity for capacity in capacities}
    for role in WORKER_ROLES:
        requests = worker_requests(release, role)
        for _ in range(missing[role]):
            open_to = [one for one in left.values() if role in one.roles and one.fits(requests)]
            if not open_to:
                return False
            chosen = min(open_to, key=lambda one: len(one.roles))
            left[chosen.node] = chosen.without(requests)
    return True


def _excluded(release: Release, facts: PlatformFacts) -> str:
    """GPU nodes that no worker may run on, and why; the person on call reads the taint here."""
    nodes: Objects = () if isinstance(facts.nodes, Refusal) else facts.nodes
    reasons: dict[str, list[str]] = {}
    for node in nodes:
        found = {obstacle(node, release.service.serving.worker(role).pod): role for role in WORKER_ROLES}
        if allocatable_gpus(node) and "" not in found:
            reasons.setdefault(next(iter(found)), []).append(name_of(node))
    return "".join(f"; {reason}: {_names(names)}" for reason, names in sorted(reasons.items()))


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"


def _requests_text(need: Mapping[str, float]) -> str:
    return ", ".join(
        f"{amount / 2**30:g}Gi memory" if resource == "memory" else f"{amount:g} {resource}"
        for resource, amount in need.items()
    )


def _free_capacity(release: Release, node: Manifest, pods: Iterable[Manifest]) -> FreeCapacity:
    serving = release.service.serving
    free = {resource: quantity(amount) for resource, amount in node["status"].get("allocatable", {}).items()}
    for pod in pods:
        if pod["spec"].get("nodeName") == name_of(node):
            for resource, amount in pod_requests(pod).items():
                free[resource] = free.get(resource, 0) - amount
    roles = [role for role in WORKER_ROLES if allocatable_gpus(node) and not obstacle(node, serving.worker(role).pod)]
    return FreeCapacity(name_of(node), free, card_memory(node), frozenset(roles))


def _holds_resources(pod: Manifest) -> bool:
    return bool(pod["spec"].get("nodeName")) and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
