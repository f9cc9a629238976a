"""RoleInstanceSets of RBG 0.7 and later, as far as they are sets of single pods.

On a real cluster a RoleInstance stands between the set and each pod.
https://github.com/sgl-project/rbg/tree/v0.8.0-alpha.5/pkg/reconciler/roleinstanceset
"""

from collections.abc import Mapping
from typing import Any

from workflows.simulator.core.cluster.controllers.ordered import (
    REVISION_LABEL,
    OrderedSet,
    is_running_and_ready,
    remember_revision,
    revision_of,
    scale,
    status,
    victims,
)
from workflows.simulator.core.cluster.controllers.view import ClusterView, is_going
from workflows.simulator.core.cluster.resources import CONTROLLER_REVISIONS, PODS
from workflows.simulator.core.cluster.store import Manifest, copied

_LABELS = {
    "rbg.workloads.x-k8s.io/role-instance-name": "{name}",
    "rbg.workloads.x-k8s.io/role-instance-index": "{index}",
    "rbg.workloads.x-k8s.io/component-id": "0",
    "rbg.workloads.x-k8s.io/component-index": "0",
}


class RoleInstanceSetController:
    def reconcile(self, view: ClusterView) -> float | None:
        resource = view.kind("workloads.x-k8s.io/v1alpha2", "RoleInstanceSet")
        for manifest in view.all(resource) if resource else []:
            if resource and not is_going(manifest):
                wanted = read(manifest)
                pods = wanted.pods(view)
                remember_revision(view, wanted)
                view.write_status(resource, manifest, _status(wanted, pods))
                if not scale(view, wanted, pods, _LABELS):
                    _update(view, wanted, pods)
        return None


def read(manifest: Manifest) -> OrderedSet:
    spec = manifest["spec"]
    component = spec["roleInstanceTemplate"]["components"][0]
    strategy = spec.get("updateStrategy") or {}
    replicas = int(spec.get("replicas", 1))
    return OrderedSet(
        manifest,
        replicas,
        component["template"],
        scaled(strategy.get("partition", 0), replicas, up=True),
        max(1, scaled(strategy.get("maxUnavailable", 1), replicas)),
        component.get("serviceName") or "",
    )


def scaled(value: int | str, total: int, *, up: bool = False) -> int:
    """An IntOrString: a number, or a percentage of `total`."""
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total
        return -(-share // 100) if up else share // 100
    return int(value)


def _status(wanted: OrderedSet, pods: list[Manifest]) -> Manifest:
    counted = status(wanted, pods)
    ready = sum(is_running_and_ready(pod) and revision_of(pod) == wanted.revision for pod in pods)
    labels = wanted.manifest["spec"].get("selector", {}).get("matchLabels") or {}
    return counted | {
        "updatedReadyReplicas": ready,
        "expectedUpdatedReplicas": wanted.replicas - wanted.partition,
        "labelSelector": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
    }


def _update(view: ClusterView, wanted: OrderedSet, pods: list[Manifest]) -> None:
    strategy = wanted.manifest["spec"].get("updateStrategy") or {}
    for pod in victims(pods, wanted):
        before = view.get(CONTROLLER_REVISIONS, revision_of(pod), wanted.namespace)
        known = before["data"]["spec"]["template"] if before else {}
        if strategy.get("type") != "RecreatePod" and differs_in_place(known, wanted.template):
            view.write(PODS, _in_place(pod, wanted))
        else:
            view.delete(PODS, pod)


def differs_in_place(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Between two pod templates: only images, labels and annotations can change under a running pod."""
    return _without_images(before.get("spec") or {}) == _without_images(after["spec"])


def _without_images(spec: Mapping[str, Any]) -> Manifest:
    plain: Manifest = copied(dict(spec))
    for container in plain.get("containers", []):
        container.pop("image", None)
    return plain


def _in_place(pod: Manifest, wanted: OrderedSet) -> Manifest:
    changed: Manifest = copied(pod)
    for before, after in zip(changed["spec"]["containers"], wanted.template["spec"]["containers"], strict=True):
        before["image"] = after["image"]
    metadata = wanted.template.get("metadata") or {}
    changed["metadata"]["labels"] |= {**(metadata.get("labels") or {}), REVISION_LABEL: wanted.revision}
    changed["metadata"].setdefault("annotations", {}).update(metadata.get("annotations") or {})
    return changed
