"""How objects merge: which lists are sets or maps, which maps are atomic. In the words of OpenAPI extensions.

For custom resources the CRD declares it; for the built-in kinds this is an extract of
https://github.com/kubernetes/kubernetes/blob/master/api/openapi-spec/swagger.json (`x-kubernetes-list-type`,
`x-kubernetes-list-map-keys`, `x-kubernetes-map-type`). Elsewhere maps merge key by key, and lists are replaced.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """A place in the schema of a kind."""

    node: Node

    def field(self, name: str) -> "Shape":
        found = (self.node.get("properties") or {}).get(name)
        if found is None:
            found = self.node.get("additionalProperties")
        return Shape(found if isinstance(found, Mapping) else {})

    @property
    def items(self) -> "Shape":
        found = self.node.get("items")
        return Shape(found if isinstance(found, Mapping) else {})

    @property
    def list_type(self) -> str:
        return str(self.node.get("x-kubernetes-list-type", "atomic"))

    @property
    def merges_keys(self) -> bool:
        return self.node.get("x-kubernetes-map-type") != "atomic"

    def element(self, item: Any) -> str:
        """How fieldsV1 names an item of a list: by its keys, or by its value if the list is a set."""
        if self.list_type == "set" or not isinstance(item, Mapping):
            return f"v:{_compact(item)}"
        keys = {key: self._key(item, key) for key in sorted(self.node["x-kubernetes-list-map-keys"])}
        return f"k:{_compact(keys)}"

    def _key(self, item: Mapping[str, Any], key: str) -> Any:
        return item.get(key, self.items.field(key).node.get("default"))


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _struct(**properties: Node) -> Node:
    return {"properties": properties}


def _by(*keys: str, **properties: Node) -> Node:
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys), "items": _struct(**properties)}


_SET: Node = {"x-kubernetes-list-type": "set"}
_ATOMIC: Node = {"x-kubernetes-map-type": "atomic"}
_TCP: Node = {"default": "TCP"}

METADATA = _struct(finalizers=_SET, ownerReferences=_by("uid"))
_CONDITIONS = _struct(conditions=_by("type"))

_CONTAINERS = _by(
    "name",
    env=_by(
        "name",
        valueFrom=_struct(configMapKeyRef=_ATOMIC, fieldRef=_ATOMIC, resourceFieldRef=_ATOMIC, secretKeyRef=_ATOMIC),
    ),
    ports=_by("containerPort", "protocol", protocol=_TCP),
    volumeDevices=_by("devicePath"),
    volumeMounts=_by("mountPath"),
)
_POD_SPEC = _struct(
    containers=_CONTAINERS,
    ephemeralContainers=_CONTAINERS,
    hostAliases=_by("ip"),
    imagePullSecrets=_by("name"),
    initContainers=_CONTAINERS,
    nodeSelector=_ATOMIC,
    topologySpreadConstraints=_by("topologyKey", "whenUnsatisfiable"),
    volumes=_by("name"),
)
_WORKLOAD = _struct(
    spec=_struct(selector=_ATOMIC, template=_struct(metadata=METADATA, spec=_POD_SPEC)), status=_CONDITIONS
)
_BUILT_IN: Mapping[tuple[str, str], Node] = {
    ("", "pods"): _struct(spec=_POD_SPEC, status=_struct(conditions=_by("type"), podIPs=_by("ip"), hostIPs=_by("ip"))),
    ("", "services"): _struct(
        spec=_struct(ports=_by("port", "protocol", protocol=_TCP), selector=_ATOMIC), status=_CONDITIONS
    ),
    ("", "persistentvolumes"): _struct(
        spec=_struct(
            csi=_struct(
                controllerExpandSecretRef=_ATOMIC,
                controllerPublishSecretRef=_ATOMIC,
                nodePublishSecretRef=_ATOMIC,
                nodeStageSecretRef=_ATOMIC,
            )
        )
    ),
    ("", "persistentvolumeclaims"): _struct(spec=_struct(dataSource=_ATOMIC, selector=_ATOMIC), status=_CONDITIONS),
    ("", "nodes"): _struct(spec=_struct(podCIDRs=_SET), status=_struct(conditions=_by("type"), addresses=_by("type"))),
    ("", "namespaces"): _struct(status=_CONDITIONS),
    ("", "serviceaccounts"): _struct(secrets=_by("name")),
    ("apps", "statefulsets"): _WORKLOAD,
    ("apps", "deployments"): _WORKLOAD,
    ("apps", "replicasets"): _WORKLOAD,
    ("apps", "daemonsets"): _WORKLOAD,
    ("batch", "jobs"): _WORKLOAD,
}


def shape_of(key: tuple[str, str], schema: Node | None) -> Shape:
    """The shape of a kind; `schema` is the openAPIV3Schema of a custom resource."""
    node = _BUILT_IN.get(key, {}) if schema is None else schema
    return Shape({**node, "properties": {**(node.get("properties") or {}), "metadata": METADATA}})
