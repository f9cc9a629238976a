"""Puts pods on nodes that have room for them.

https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/
"""

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from workflows.simulator.core.cluster.controllers.view import ClusterView, condition, is_going, is_true
from workflows.simulator.core.cluster.quantities import Amounts, amounts, requested
from workflows.simulator.core.cluster.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PODS
from workflows.simulator.core.cluster.store import Manifest, copied

_SOURCE = "default-scheduler"


class Scheduler:
    def reconcile(self, view: ClusterView) -> float | None:
        pods = view.all(PODS)
        waiting = [pod for pod in pods if not pod["spec"].get("nodeName") and not is_going(pod)]
        if not waiting:
            return None
        nodes = view.all(NODES)
        free = {node["metadata"]["name"]: _free(node, pods) for node in nodes}
        for pod in waiting:
            self._place(view, pod, nodes, free)
        return None

    def _place(self, view: ClusterView, pod: Manifest, nodes: list[Manifest], free: dict[str, Amounts]) -> None:
        wanted = requested(pod["spec"])
        message = _claim_fault(view, pod)
        if not message:
            faults = {node["metadata"]["name"]: why_not(pod, node, free[node["metadata"]["name"]]) for node in nodes}
            fitting = [name for name, found in faults.items() if not found]
            if fitting:
                chosen = max(fitting, key=lambda name: _room(free[name], wanted))
                _bind(view, pod, chosen)
                free[chosen] = {key: left - wanted.get(key, Decimal(0)) for key, left in free[chosen].items()}
                return
            message = unschedulable(list(faults.values()))
        status = pod.get("status") or {}
        conditions = condition(status, "PodScheduled", value=False, reason="Unschedulable", message=message)
        view.write_status(PODS, pod, {**status, "phase": "Pending", "conditions": conditions})
        view.event(pod, "FailedScheduling", message, source=_SOURCE)


def why_not(pod: Mapping[str, Any], node: Mapping[str, Any], free: Amounts) -> tuple[str, ...]:
    """The reasons against a node, worded as by the scheduler; empty if the pod fits."""
    if node["spec"].get("unschedulable"):
        return ("node(s) were unschedulable",)
    if not is_true(node, "Ready"):
        return ("node(s) had untolerated taint {node.kubernetes.io/not-ready: }",)
    labels = node["metadata"].get("labels") or {}
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return ("node(s) didn't match Pod's node affinity/selector",)
    wanted = requested(pod["spec"])
    return tuple(
        f"Insufficient {name}" for name, amount in sorted(wanted.items()) if amount > free.get(name, Decimal(0))
    )


def unschedulable(faults: list[tuple[str, ...]]) -> str:
    """`0/4 nodes are available: 1 node(s) ..., 3 Insufficient nvidia.com/gpu. preemption: ...`"""
    total = len(faults)
    counted = Counter(fault for found in faults for fault in found)
    reasons = ", ".join(sorted(f"{count} {fault}" for fault, count in counted.items()))
    lacking = sum(all(fault.startswith("Insufficient") for fault in found) for found in faults)
    preemption = [f"{lacking} No preemption victims found for incoming pod"] if lacking else []
    preemption += [f"{total - lacking} Preemption is not helpful for scheduling"] if total > lacking else []
    return (
        f"0/{total} nodes are available: {reasons or 'no nodes available to schedule pods'}. "
        f"preemption: 0/{total} nodes are available: {', '.join(preemption)}."
    )


def _claim_fault(view: ClusterView, pod: Manifest) -> str:
    for volume in pod["spec"].get("volumes") or []:
        name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if not name:
            continue
        claim = view.get(PERSISTENT_VOLUME_CLAIMS, name, pod["metadata"]["namespace"])
        if claim is None:
            return f'persistentvolumeclaim "{name}" not found'
        if is_going(claim):
            return f'persistentvolumeclaim "{name}" is being deleted'
        if (claim.get("status") or {}).get("phase") != "Bound":
            return "pod has unbound immediate PersistentVolumeClaims"
    return ""


def _free(node: Mapping[str, Any], pods: list[Manifest]) -> Amounts:
    free = amounts(node["status"].get("allocatable"))
    for pod in pods:
        if pod["spec"].get("nodeName") != node["metadata"]["name"] or _is_over(pod):
            continue
        for name, amount in requested(pod["spec"]).items():
            free[name] = free.get(name, Decimal(0)) - amount
    return free


def _is_over(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _room(free: Amounts, wanted: Amounts) -> tuple[Decimal, ...]:
    """The node with the most free capacity wins; one without GPUs wins for a pod that needs none."""
    scarce = free.get("nvidia.com/gpu", Decimal(0))
    return (scarce if "nvidia.com/gpu" in wanted else -scarce, free.get("cpu", Decimal(0)))


def _bind(view: ClusterView, pod: Manifest, node: str) -> None:
    bound = copied(pod)
    bound["spec"]["nodeName"] = node
    bound = view.write(PODS, bound)
    status = bound.get("status") or {}
    view.write_status(
        PODS, bound, {**status, "phase": "Pending", "conditions": condition(status, "PodScheduled", value=True)}
    )
    metadata = pod["metadata"]
    view.event(
        pod, "Scheduled", f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {node}",
        kind="Normal", source=_SOURCE,
    )  # fmt: skip
