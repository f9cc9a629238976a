"""How controllers see and change the objects."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from workflows.simulator.core.cluster.admission.defaults import default
from workflows.simulator.core.cluster.errors import ApiError
from workflows.simulator.core.cluster.resources import EVENTS, PODS, SERVICES, Resource
from workflows.simulator.core.cluster.store import ClusterStore, Manifest, copied, now

KEPT_EVENTS = 300  # a real API server forgets events after an hour
_EVENT_SECONDS = 1.0  # the same event again within this time is not recorded


class ClusterView:
    """The store, in the verbs of a controller. After a conflict the loop reads the objects again."""

    def __init__(self, store: ClusterStore) -> None:
        self.store = store
        self._recorded: dict[tuple[str, str, str], float] = {}

    def kind(self, api_version: str, kind: str) -> Resource | None:
        return self.store.registry.kind(api_version, kind)

    def get(self, resource: Resource, name: str, namespace: str = "") -> Manifest | None:
        return self.store.get(resource, name, namespace)

    def all(self, resource: Resource, namespace: str = "", labels: Mapping[str, str] | None = None) -> list[Manifest]:
        return self.store.select(resource, namespace, labels)

    def create(self, resource: Resource, manifest: Mapping[str, Any]) -> Manifest:
        content = copied(dict(manifest))
        if resource in (PODS, SERVICES):
            default(resource, content, None)
        return self.store.create(resource, content)

    def write(self, resource: Resource, manifest: Manifest) -> Manifest:
        return self.store.replace(resource, manifest)

    def write_status(self, resource: Resource, manifest: Manifest, status: Manifest) -> None:
        if manifest.get("status") != status:
            self.store.replace(resource, {**manifest, "status": status}, subresource="status")

    def delete(self, resource: Resource, manifest: Manifest, *, grace: int | None = None) -> None:
        """Delete this very object; one that is gone already is fine."""
        metadata = manifest["metadata"]
        try:
            self.store.delete(
                resource, metadata["name"], metadata.get("namespace", ""), uid=metadata["uid"], grace=grace
            )
        except ApiError as error:
            if error.reason not in ("NotFound", "Conflict"):
                raise

    def event(self, about: Manifest, reason: str, message: str, *, kind: str = "Warning", source: str) -> None:
        """Record an event about an object; the same one again only counts up."""
        metadata = about["metadata"]
        if not self._is_news((metadata["uid"], reason, message)):
            return
        namespace = metadata.get("namespace", "default")
        involved = {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": metadata["name"],
            "namespace": metadata.get("namespace", ""),
            "uid": metadata["uid"],
        }
        known = [
            event
            for event in self.all(EVENTS, namespace)
            if event["involvedObject"] == involved and (event["reason"], event["message"]) == (reason, message)
        ]
        moment = now()
        if known:
            self.write(EVENTS, {**known[0], "count": known[0]["count"] + 1, "lastTimestamp": moment})
            return
        self._forget_events()
        self.create(
            EVENTS,
            {
                "metadata": {"generateName": f"{metadata['name']}.", "namespace": namespace},
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "type": kind,
                "count": 1,
                "firstTimestamp": moment,
                "lastTimestamp": moment,
                "source": {"component": source},
                "reportingComponent": source,
                "reportingInstance": "",
            },
        )

    def _is_news(self, event: tuple[str, str, str]) -> bool:
        moment = time.monotonic()
        if moment - self._recorded.get(event, -_EVENT_SECONDS) < _EVENT_SECONDS:
            return False
        self._recorded[event] = moment
        return True

    def _forget_events(self) -> None:
        events = sorted(self.all(EVENTS), key=lambda event: int(event["metadata"]["resourceVersion"]))
        for event in events[: max(0, len(events) - KEPT_EVENTS)]:
            self.delete(EVENTS, event)


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as Kubernetes writes them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(
    status: Mapping[str, Any], name: str, value: bool, reason: str = "", message: str = "", **more: Any
) -> list[Manifest]:
    """The conditions of a status with one of them set; its lastTransitionTime moves only when it turns."""
    conditions = [copied(one) for one in status.get("conditions") or []]
    wanted: Manifest = {"type": name, "status": str(value), **more}
    wanted |= {"reason": reason} if reason else {}
    wanted |= {"message": message} if message else {}
    before = next((one for one in conditions if one["type"] == name), None)
    turned = before is None or before["status"] != wanted["status"]
    wanted["lastTransitionTime"] = now() if turned or before is None else before["lastTransitionTime"]
    if before is None:
        return [*conditions, wanted]
    return [wanted if one["type"] == name else one for one in conditions]


def is_true(manifest: Mapping[str, Any], name: str) -> bool:
    conditions = (manifest.get("status") or {}).get("conditions") or []
    return any(one["type"] == name and one["status"] == "True" for one in conditions)


def is_going(manifest: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in manifest["metadata"]


def owner(manifest: Mapping[str, Any], *, controller: bool = True) -> Manifest:
    """An ownerReference to an object."""
    reference = {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "name": manifest["metadata"]["name"],
        "uid": manifest["metadata"]["uid"],
        "blockOwnerDeletion": True,
    }
    return reference | ({"controller": True} if controller else {})


def owned(manifests: list[Manifest], by: Mapping[str, Any]) -> list[Manifest]:
    uid = by["metadata"]["uid"]
    return [
        one
        for one in manifests
        if any(reference["uid"] == uid and reference.get("controller") for reference in _owners(one))
    ]


def _owners(manifest: Mapping[str, Any]) -> list[Manifest]:
    return list(manifest["metadata"].get("ownerReferences") or [])
