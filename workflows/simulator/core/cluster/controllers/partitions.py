"""How the RBG operator leads a StatefulSet through an update: by its partition, from the highest ordinal down.

https://github.com/sgl-project/rbg/blob/v0.6.0/pkg/reconciler/sts_reconciler.go
"""

from workflows.simulator.core.cluster.controllers.ordered import is_healthy, ordinal, revision_of
from workflows.simulator.core.cluster.controllers.role_instance_sets import scaled
from workflows.simulator.core.cluster.controllers.roles import GroupRole
from workflows.simulator.core.cluster.controllers.view import ClusterView, owned
from workflows.simulator.core.cluster.resources import PODS
from workflows.simulator.core.cluster.store import Manifest


def partition(view: ClusterView, role: GroupRole, live: Manifest, wanted: Manifest) -> int:
    """How far down a StatefulSet may replace pods now."""
    revision = role.style.revision_label.format(role=role.name)
    changed = (
        wanted["spec"]["template"] != live["spec"]["template"]
        or live["metadata"]["labels"].get(revision) != role.revision
    )
    width = live["spec"]["replicas"]
    if changed:
        return min(role.replicas, int(width))
    current = int(live["spec"]["updateStrategy"]["rollingUpdate"]["partition"])
    if current == 0 or width != role.replicas:
        return min(current, role.replicas)
    rolling = (role.spec.get("rolloutStrategy") or {}).get("rollingUpdate") or {}
    step = max(1, scaled(rolling.get("maxUnavailable", 1), role.replicas))
    newest = (live.get("status") or {}).get("updateRevision")
    states = [(False, False)] * role.replicas
    for pod in owned(view.all(PODS, role.namespace), live):
        if ordinal(pod) < role.replicas:
            states[ordinal(pod)] = (is_healthy(pod), revision_of(pod) == newest)
    return next_partition(states, step, current)


def next_partition(states: list[tuple[bool, bool]], step: int, current: int) -> int:
    """The partition after `current`, for pods as (ready, updated) in order of their ordinals; it only ever falls."""
    done = 0
    for ready, updated in reversed(states):
        if not (ready and updated):
            break
        done += 1
    lowest = max(0, len(states) - done - step)
    found = lowest + sum(not ready for ready, _ in states[:lowest])
    for index in range(min(found, len(states) - 1), lowest - 1, -1):
        ready, updated = states[index]
        if ready and not updated:
            break
        found = index
    return min(found, current)
