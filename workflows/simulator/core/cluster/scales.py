"""The scale subresource: replicas of anything that has them.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#scale-subresource
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workflows.simulator.core.cluster.errors import ApiError
from workflows.simulator.core.cluster.fields.patches import merge
from workflows.simulator.core.cluster.resources import CUSTOM_RESOURCE_DEFINITIONS, Resource
from workflows.simulator.core.cluster.store import ClusterStore, Manifest


@dataclass(frozen=True)
class Scaling:
    """Where a kind keeps its replicas."""

    wanted: tuple[str, ...] = ("spec", "replicas")
    found: tuple[str, ...] = ("status", "replicas")


def scaling(store: ClusterStore, resource: Resource) -> Scaling:
    definition = store.get(CUSTOM_RESOURCE_DEFINITIONS, f"{resource.plural}.{resource.group}")
    if definition is None:
        return Scaling()
    version = next(one for one in definition["spec"]["versions"] if one["name"] == resource.version)
    paths = version["subresources"]["scale"]
    return Scaling(_keys(paths["specReplicasPath"]), _keys(paths["statusReplicasPath"]))


def scale_of(live: Manifest, where: Scaling) -> Manifest:
    wanted = _at(live, where.wanted)
    if wanted is None:
        path = "." + ".".join(where.wanted)
        raise ApiError(
            500, "InternalError", f'Internal error occurred: the spec replicas field "{path}" does not exist'
        )
    names = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: live["metadata"][name] for name in names if name in live["metadata"]},
        "spec": {"replicas": wanted},
        "status": {"replicas": _at(live, where.found) or 0},
    }


def scaled(live: Manifest, where: Scaling, scale: Mapping[str, Any]) -> Manifest:
    """`live` with the replicas of `scale`."""
    change: Any = (scale.get("spec") or {}).get("replicas", 0)
    for key in reversed(where.wanted):
        change = {key: change}
    result: Manifest = merge(live, change)
    revision = (scale.get("metadata") or {}).get("resourceVersion")
    return merge(result, {"metadata": {"resourceVersion": revision}}) if revision else result


def _keys(path: str) -> tuple[str, ...]:
    return tuple(path.removeprefix(".").split("."))


def _at(content: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        content = (content or {}).get(key)
    return content
