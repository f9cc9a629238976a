"""Pods with ordinals that are replaced from the highest down: the common part of StatefulSets and RoleInstanceSets.

https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/statefulset/stateful_set_control.go
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from workflows.simulator.core.cluster.controllers.view import ClusterView, is_going, is_true, owned, owner
from workflows.simulator.core.cluster.resources import CONTROLLER_REVISIONS, PODS
from workflows.simulator.core.cluster.store import Manifest, copied

REVISION_LABEL = "controller-revision-hash"


@dataclass(frozen=True)
class OrderedSet:
    """The specification of a set, independent of its kind."""

    manifest: Manifest
    replicas: int
    template: Manifest
    partition: int = 0  # ordinals below keep the revision that they have
    max_unavailable: int = 1
    subdomain: str = ""

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.manifest["metadata"]["namespace"])

    @property
    def revision(self) -> str:
        """Name of the revision that is wanted."""
        return f"{self.name}-{template_hash(self.template)}"

    @property
    def current_revision(self) -> str:
        """Name of the revision that all pods had last."""
        return str((self.manifest.get("status") or {}).get("currentRevision") or self.revision)

    def pods(self, view: ClusterView) -> list[Manifest]:
        """Its pods, highest ordinal last."""
        return sorted(owned(view.all(PODS, self.namespace), self.manifest), key=ordinal)


def template_hash(template: Mapping[str, Any]) -> str:
    canonical = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def ordinal(pod: Mapping[str, Any]) -> int:
    return int(pod["metadata"]["name"].rpartition("-")[2])


def revision_of(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["labels"].get(REVISION_LABEL, ""))


def is_running_and_ready(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and is_true(pod, "Ready")


def is_healthy(pod: Mapping[str, Any]) -> bool:
    return is_running_and_ready(pod) and not is_going(pod)


def victims(pods: Iterable[Manifest], wanted: OrderedSet) -> list[Manifest]:
    """The pods to replace now, at most `max_unavailable` beyond those that are down already."""
    chosen = []
    budget = wanted.max_unavailable
    for pod in sorted(pods, key=ordinal, reverse=True):
        if budget <= 0 or ordinal(pod) < wanted.partition:
            break
        if revision_of(pod) != wanted.revision and not is_going(pod):
            chosen.append(pod)
            budget -= 1
        elif not is_healthy(pod):
            budget -= 1
    return chosen


def remember_revision(view: ClusterView, wanted: OrderedSet) -> None:
    """Keep the template, so that a pod below the partition can be made again as it was."""
    if view.get(CONTROLLER_REVISIONS, wanted.revision, wanted.namespace):
        return
    known = [one["revision"] for one in owned(view.all(CONTROLLER_REVISIONS, wanted.namespace), wanted.manifest)]
    view.create(
        CONTROLLER_REVISIONS,
        {
            "metadata": {
                "name": wanted.revision,
                "namespace": wanted.namespace,
                "labels": wanted.template["metadata"].get("labels") or {},
                "ownerReferences": [owner(wanted.manifest)],
            },
            "revision": max(known, default=0) + 1,
            "data": {"spec": {"template": wanted.template}},
        },
    )


def scale(view: ClusterView, wanted: OrderedSet, pods: list[Manifest], labels: Mapping[str, str]) -> bool:
    """Make the pods that are missing and delete those too many; True if something was done.

    `labels` are the ones that the controller gives each pod; `{name}` and `{index}` in them are filled in.
    """
    present = {ordinal(pod) for pod in pods}
    missing = [index for index in range(wanted.replicas) if index not in present]
    for index in missing:
        view.create(PODS, new_pod(view, wanted, index, labels))
    surplus = [pod for pod in pods if ordinal(pod) >= wanted.replicas and not is_going(pod)]
    for pod in surplus:
        view.delete(PODS, pod)
    return bool(missing or surplus)


def new_pod(view: ClusterView, wanted: OrderedSet, index: int, labels: Mapping[str, str]) -> Manifest:
    revision, template = wanted.revision, wanted.template
    if index < wanted.partition and wanted.current_revision != wanted.revision:
        kept = view.get(CONTROLLER_REVISIONS, wanted.current_revision, wanted.namespace)
        if kept:
            revision, template = wanted.current_revision, kept["data"]["spec"]["template"]
    name = f"{wanted.name}-{index}"
    pod: Manifest = copied(template)
    metadata = pod.setdefault("metadata", {})
    given = {key: value.format(name=name, index=index) for key, value in labels.items()}
    metadata["labels"] = {**(metadata.get("labels") or {}), **given, REVISION_LABEL: revision}
    metadata |= {"name": name, "namespace": wanted.namespace, "ownerReferences": [owner(wanted.manifest)]}
    pod["spec"] |= {"hostname": name} | ({"subdomain": wanted.subdomain} if wanted.subdomain else {})
    pod["status"] = {"phase": "Pending"}
    return pod


def status(wanted: OrderedSet, pods: list[Manifest]) -> Manifest:
    """The counters of a set, as its controller saw them."""
    living = [pod for pod in pods if not is_going(pod)]
    ready = sum(is_running_and_ready(pod) for pod in pods)
    updated = sum(revision_of(pod) == wanted.revision for pod in living)
    current = sum(revision_of(pod) == wanted.current_revision for pod in living)
    complete = updated == ready == len(pods)
    return {
        "observedGeneration": wanted.manifest["metadata"]["generation"],
        "replicas": len(pods),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "currentReplicas": updated if complete else current,
        "updatedReplicas": updated,
        "currentRevision": wanted.revision if complete else wanted.current_revision,
        "updateRevision": wanted.revision,
        "collisionCount": 0,
    }
