"""Progress of the workload of one role: StatefulSet or RoleInstanceSet.

StatefulSet: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#rolling-updates; the operator moves
its `partition` from the highest ordinal down to 0. RoleInstanceSet: sgl-project/rbg, api/workloads/v1alpha2.
"""

from collections.abc import Mapping
from typing import Any

from steps.kinds import HASH_LABEL, ROLE_INSTANCE_SET, Manifest
from steps.rollout.observation import ExpectedRole

_COUNTS = ("replicas", "updatedReplicas", "readyReplicas")


def workload_remarks(role: ExpectedRole, workload: Manifest | None) -> list[str]:
    """Open points; empty if the workload has exactly the wanted pods, all of the wanted template."""
    target = role.workload
    if workload is None:
        return [f"{target} to be created by the operator"]
    status = workload.get("status") or {}
    generation, observed = workload["metadata"].get("generation", 0), status.get("observedGeneration", 0)
    partition = _partition(workload)
    current, update = status.get("currentRevision"), status.get("updateRevision")
    checks = (
        (_carried_hash(role, workload) == role.spec_hash, f"{target} to get the wanted template"),
        (
            observed >= generation,
            f"{target} to be observed by its controller: generation {generation}, observed {observed}",
        ),
        (workload["spec"].get("replicas") == role.replicas, f"{target} to be scaled to {role.replicas}"),
        (not partition, f"{target} to update all pods: partition {partition}, expected 0"),
        (current == update, f"{target} to finish its update: revision {current} is current, {update} is wanted"),
    )
    return [remark for done, remark in checks if not done] or _count_remarks(role, status)


def _count_remarks(role: ExpectedRole, status: Mapping[str, Any]) -> list[str]:
    counts = (*_COUNTS, "updatedReadyReplicas") if role.workload.kind == ROLE_INSTANCE_SET else _COUNTS
    wrong = [f"{count} {status.get(count, 0)}" for count in counts if status.get(count, 0) != role.replicas]
    return [f"{role.workload} to count {role.replicas}: {', '.join(wrong)}"] if wrong else []


def _carried_hash(role: ExpectedRole, workload: Manifest) -> str:
    spec = workload["spec"]
    if role.workload.kind == ROLE_INSTANCE_SET:
        components = (spec.get("roleInstanceTemplate") or {}).get("components") or [{}]
        template = components[0].get("template") or {}
    else:
        template = spec.get("template") or {}
    return str(((template.get("metadata") or {}).get("labels") or {}).get(HASH_LABEL, ""))


def _partition(workload: Manifest) -> Any:
    strategy = workload["spec"].get("updateStrategy") or {}
    found = (strategy.get("rollingUpdate") or strategy).get("partition", 0)
    return 0 if found in (0, "0", "0%", None) else found
