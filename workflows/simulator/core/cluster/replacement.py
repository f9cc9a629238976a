"""The result of a write: which parts of an object are the writer's, and which are the server's.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from workflows.simulator.core.cluster.errors import conflict, stale
from workflows.simulator.core.cluster.manifests import Manifest
from workflows.simulator.core.cluster.resources import Resource

# Metadata of the server; writers send it back unchanged, and it stays as it is.
_SYSTEM_METADATA = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")


def merged(resource: Resource, live: Manifest, sent: Manifest, subresource: str) -> Manifest:
    separate = "status" in resource.subresources
    if subresource == "status":
        content = {**live, "status": sent.get("status", {})}
        content["metadata"] = dict(live["metadata"])
        content["metadata"]["managedFields"] = sent["metadata"].get("managedFields", [])
        return content
    content = dict(sent)
    if separate:
        content.pop("status", None)
        content |= {"status": live["status"]} if "status" in live else {}
    kept = {field: live["metadata"][field] for field in _SYSTEM_METADATA if field in live["metadata"]}
    metadata = {key: value for key, value in sent["metadata"].items() if key not in _SYSTEM_METADATA}
    content["metadata"] = {**metadata, **kept, "resourceVersion": live["metadata"]["resourceVersion"]}
    return {**content, "apiVersion": live["apiVersion"], "kind": live["kind"]}


def timeless(content: Manifest) -> Manifest:
    """An object that differs in times of managedFields only is the same object.

    https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/endpoints/handlers/fieldmanager/equality.go
    """
    entries = content["metadata"].get("managedFields") or []
    timeless = [{**entry, "time": ""} for entry in entries]
    return {**content, "metadata": {**content["metadata"], "managedFields": timeless}}


def declared(resource: Resource, content: Manifest) -> Manifest:
    """The part of an object that a generation counts."""
    aside = {"metadata", "apiVersion", "kind"} | ({"status"} if "status" in resource.subresources else set())
    return {key: value for key, value in content.items() if key not in aside}


def check_same(resource: Resource, live: Manifest, sent: Manifest) -> None:
    metadata = live["metadata"]
    if sent.get("uid", metadata["uid"]) != metadata["uid"]:
        raise conflict(resource, metadata["name"], other_uid(sent["uid"], metadata["uid"]))
    if sent.get("resourceVersion") and sent["resourceVersion"] != metadata["resourceVersion"]:
        raise stale(resource, metadata["name"])


def other_uid(expected: str, found: str) -> str:
    return f"Precondition failed: UID in precondition: {expected}, UID in object meta: {found}"
