"""The objects of the embedded cluster, with the rules that every writer meets: API server and controllers alike.

Revisions rise with every change in the whole cluster; a write without a change makes none. `status` is written
through its subresource only, and `metadata.generation` counts changes outside metadata and status.
https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import random
import threading
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from workflows.simulator.core.cluster.definitions import establish
from workflows.simulator.core.cluster.errors import ApiError, already_exists, conflict, forbidden, not_found
from workflows.simulator.core.cluster.event_log import Event, EventLog, EventType, WakeUp
from workflows.simulator.core.cluster.fields.ownership import Owner, recorded
from workflows.simulator.core.cluster.journal import Journal
from workflows.simulator.core.cluster.labels import Selector
from workflows.simulator.core.cluster.manifests import Manifest, copied, now, rendered
from workflows.simulator.core.cluster.replacement import check_same, declared, merged, other_uid, timeless
from workflows.simulator.core.cluster.resources import (
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    PODS,
    KindRegistry,
    Resource,
)

FIRST_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
# Suffixes of generateName cannot spell words. https://github.com/kubernetes/apimachinery/blob/master/pkg/util/rand/rand.go
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
__all__ = ["CONTROLLERS", "ClusterStore", "Manifest", "copied", "now"]

CONTROLLERS = "kube-controller-manager"  # field manager of writes that name none


class ClusterStore:
    """Thread-safe. Arguments and results are copied, so callers may edit them."""

    def __init__(self, path: Path | None = None) -> None:
        """Open the journal at `path`, or keep all objects in memory. Raises JournalError for a file of another kind."""
        self._lock = threading.RLock()
        self._journal = Journal(path)
        self._revision = self._journal.revision()
        self._by_kind: dict[tuple[str, str], dict[tuple[str, str], Manifest]] = {}
        for key, content in self._journal.objects():
            metadata = content["metadata"]
            self._by_kind.setdefault(key, {})[metadata.get("namespace", ""), metadata["name"]] = content
        self._wake_ups: list[WakeUp] = []
        self.log = EventLog(self._revision)
        self.registry = KindRegistry()
        self._define()
        for name in FIRST_NAMESPACES:
            if self.get(NAMESPACES, name) is None:
                self.create(NAMESPACES, {"metadata": {"name": name}, "status": {"phase": "Active"}})

    @property
    def revision(self) -> int:
        """Revision of the latest change."""
        return self._revision

    def exclusive(self) -> AbstractContextManager[Any]:
        """No other thread reads or writes inside this context; for read-modify-write."""
        return self._lock

    def close(self) -> None:
        """Close the journal. Not needed for safety: an open one survives kill -9."""
        with self._lock:
            self._journal.close()

    def subscribe(self) -> WakeUp:
        wake_up = WakeUp()
        with self._lock:
            self._wake_ups.append(wake_up)
        return wake_up

    def get(self, resource: Resource, name: str, namespace: str = "") -> Manifest | None:
        with self._lock:
            content = self._of_kind(resource).get((namespace, name))
            return None if content is None else rendered(resource, content)

    def select(
        self, resource: Resource, namespace: str = "", labels: Mapping[str, str] | Selector | None = None
    ) -> list[Manifest]:
        """Objects of one namespace, or of all; sorted by namespace and name."""
        selector = labels if isinstance(labels, Selector) else Selector.equal(labels or {})
        with self._lock:
            return [
                rendered(resource, content)
                for (place, _), content in sorted(self._of_kind(resource).items(), key=lambda item: item[0])
                if namespace in ("", place) and selector.matches(content["metadata"].get("labels"))
            ]

    def create(
        self, resource: Resource, obj: Mapping[str, Any], *, manager: str = CONTROLLERS, dry_run: bool = False
    ) -> Manifest:
        """Create an object; keeps `status` as given. Without `manager`, managedFields are taken from `obj`.

        Raises ApiError: 404 for a missing namespace, 409 for an object that exists.
        """
        content = copied(dict(obj))
        metadata = content.setdefault("metadata", {})
        if resource.namespaced:
            metadata.setdefault("namespace", "default")
        else:
            metadata.pop("namespace", None)
        with self._lock:
            self._check_namespace(resource, metadata)
            name = metadata.setdefault("name", "") or self._new_name(resource, metadata)
            metadata["name"] = name
            if (metadata.get("namespace", ""), name) in self._of_kind(resource):
                raise already_exists(resource, name)
            metadata |= {"uid": metadata.get("uid") or str(uuid.uuid4()), "creationTimestamp": now()}
            for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
                metadata.pop(field, None)
            if resource.counts_generations:
                metadata["generation"] = 1
            if resource.key == CUSTOM_RESOURCE_DEFINITIONS.key:
                content = establish(content, now())
            content = {**content, "apiVersion": resource.api_version, "kind": resource.kind}
            if manager:
                self._record(resource, None, content, manager, "")
            if dry_run:
                return rendered(resource, content)
            return self._write(resource, "ADDED", content, None)

    def replace(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        *,
        subresource: str = "",
        manager: str = CONTROLLERS,
        dry_run: bool = False,
    ) -> Manifest:
        """Write the whole object, or with `subresource="status"` its status alone.

        Without `manager`, managedFields are taken from `obj`.

        Raises ApiError: 404 if absent, 409 if the resourceVersion or uid in `obj` is not that of the live object.
        """
        sent = obj["metadata"]
        with self._lock:
            live = self._live(resource, sent["name"], sent.get("namespace", ""))
            check_same(resource, live, sent)
            content = merged(resource, live, copied(dict(obj)), subresource)
            if manager:
                self._record(resource, live, content, manager, subresource)
            if timeless(content) == timeless(live):
                return rendered(resource, live)
            if resource.counts_generations and declared(resource, content) != declared(resource, live):
                content["metadata"]["generation"] = live["metadata"].get("generation", 0) + 1
            if resource.key == CUSTOM_RESOURCE_DEFINITIONS.key:
                content = establish(content, now())
            if dry_run:
                return rendered(resource, content)
            ends = "deletionTimestamp" in content["metadata"] and not content["metadata"]["deletionGracePeriodSeconds"]
            if ends and not _finalizers(content):
                return self._write(resource, "DELETED", content, live)
            return self._write(resource, "MODIFIED", content, live)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        grace: int | None = None,
        dry_run: bool = False,
    ) -> Manifest:
        """Remove an object, or mark it with a deletionTimestamp while something holds it. Returns it as it was last.

        Finalizers hold it, and a pod on a node is held until its kubelet deletes it with `grace=0`; `grace` is in
        seconds, and None means the pod's own. Raises ApiError: 404 if absent, 409 if `uid` is given and another object
        has the name now.
        """
        with self._lock:
            live = self._live(resource, name, namespace)
            metadata = live["metadata"]
            if uid and uid != metadata["uid"]:
                raise conflict(resource, name, other_uid(uid, metadata["uid"]))
            if dry_run:
                return rendered(resource, live)
            seconds = _grace(resource, live, grace)
            if not seconds and not _finalizers(live):
                return self._write(resource, "DELETED", copied(live), live)
            if "deletionTimestamp" in metadata and seconds >= metadata["deletionGracePeriodSeconds"]:
                return rendered(resource, live)
            content = copied(live)
            content["metadata"] |= {
                "deletionTimestamp": metadata.get("deletionTimestamp") or now(),
                "deletionGracePeriodSeconds": seconds,
            }
            if resource.counts_generations:
                content["metadata"]["generation"] = metadata.get("generation", 0) + 1
            if resource.key == NAMESPACES.key:
                content["status"] = {"phase": "Terminating"}
            return self._write(resource, "MODIFIED", content, live)

    def _of_kind(self, resource: Resource) -> dict[tuple[str, str], Manifest]:
        return self._by_kind.get(resource.key, {})

    def _live(self, resource: Resource, name: str, namespace: str) -> Manifest:
        live = self._of_kind(resource).get((namespace, name))
        if live is None:
            raise not_found(resource, name)
        return live

    def _write(self, resource: Resource, kind: EventType, content: Manifest, before: Manifest | None) -> Manifest:
        self._revision += 1
        metadata = content["metadata"]
        metadata["resourceVersion"] = str(self._revision)
        place = (metadata.get("namespace", ""), metadata["name"])
        gone = kind == "DELETED"
        self._journal.write(resource.key, place, None if gone else content, self._revision)
        key = self._by_kind.setdefault(resource.key, {})
        if gone:
            del key[place]
        else:
            key[place] = content
        if resource.key == CUSTOM_RESOURCE_DEFINITIONS.key:
            self._define()
        self.log.append(Event(self._revision, kind, resource.key, content, before))
        for wake_up in self._wake_ups:
            wake_up.trigger()
        return rendered(resource, content)

    def _record(
        self, resource: Resource, live: Manifest | None, content: Manifest, manager: str, subresource: str
    ) -> None:
        writer = Owner(manager, "Update", resource.api_version, subresource, now(), frozenset())
        content["metadata"] = {
            **content["metadata"],
            "managedFields": recorded(live, content, self.registry.shape(resource), writer),
        }

    def _define(self) -> None:
        self.registry.define(self._of_kind(CUSTOM_RESOURCE_DEFINITIONS).values())

    def _check_namespace(self, resource: Resource, metadata: Manifest) -> None:
        if not resource.namespaced:
            return
        name = metadata["namespace"]
        namespace = self._live(NAMESPACES, name, "")
        if "deletionTimestamp" in namespace["metadata"]:
            raise forbidden(
                resource,
                metadata.get("name", ""),
                f"unable to create new content in namespace {name} because it is being terminated",
            )

    def _new_name(self, resource: Resource, metadata: Manifest) -> str:
        prefix = metadata.get("generateName")
        if not prefix:
            raise ApiError(
                422,
                "Invalid",
                f'{resource.kind} "" is invalid: metadata.name: Required value: name or generateName is required',
            )
        return str(prefix) + "".join(random.choices(_SUFFIX, k=5))  # noqa: S311  # a name, not a secret


def _grace(resource: Resource, live: Manifest, asked: int | None) -> int:
    """Seconds that a pod may take to end. Only a pod that a kubelet knows ends gracefully.

    https://github.com/kubernetes/kubernetes/blob/master/pkg/registry/core/pod/strategy.go
    """
    spec = live.get("spec") or {}
    if resource.key != PODS.key or not spec.get("nodeName"):
        return 0
    if (live.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    return int(spec.get("terminationGracePeriodSeconds", 30) if asked is None else asked)


def _finalizers(content: Manifest) -> list[str]:
    """The finalizers of an object; a Namespace also waits for its content."""
    of_spec = (content.get("spec") or {}).get("finalizers", []) if content.get("kind") == "Namespace" else []
    return [*content["metadata"].get("finalizers", []), *of_spec]
