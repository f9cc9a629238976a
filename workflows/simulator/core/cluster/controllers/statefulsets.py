"""StatefulSets: rolling updates from the highest ordinal down to the partition, pods created in parallel."""

from workflows.simulator.core.cluster.controllers.ordered import OrderedSet, remember_revision, scale, status, victims
from workflows.simulator.core.cluster.controllers.view import ClusterView, is_going
from workflows.simulator.core.cluster.resources import PODS, STATEFUL_SETS
from workflows.simulator.core.cluster.store import Manifest

_LABELS = {"statefulset.kubernetes.io/pod-name": "{name}", "apps.kubernetes.io/pod-index": "{index}"}


class StatefulSetController:
    def reconcile(self, view: ClusterView) -> float | None:
        for manifest in view.all(STATEFUL_SETS):
            if not is_going(manifest):
                _reconcile(view, manifest)
        return None


def read(manifest: Manifest) -> OrderedSet:
    spec = manifest["spec"]
    strategy = spec.get("updateStrategy") or {}
    partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
    replicas = int(spec.get("replicas", 1))
    if strategy.get("type") == "OnDelete":
        partition = replicas
    # maxUnavailable is behind a feature gate that ACK leaves off, so it is always one pod at a time.
    return OrderedSet(manifest, replicas, spec["template"], partition, 1, spec.get("serviceName") or "")


def _reconcile(view: ClusterView, manifest: Manifest) -> None:
    wanted = read(manifest)
    remember_revision(view, wanted)
    pods = wanted.pods(view)
    view.write_status(STATEFUL_SETS, manifest, status(wanted, pods))
    if scale(view, wanted, pods, _LABELS):
        return
    for pod in victims(pods, wanted):
        view.delete(PODS, pod)
