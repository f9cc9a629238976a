"""The kinds of the embedded API: the built-in ones that the pipeline touches, and those of CRDs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from workflows.simulator.core.cluster.fields.shapes import Shape, shape_of

STATUS = ("status",)
STATUS_AND_SCALE = ("status", "scale")

# Kinds of these groups carry no metadata.generation.
# https://kubernetes.io/docs/reference/using-api/api-concepts/ calls it optional; real servers behave so.
_WITHOUT_GENERATION = frozenset(
    {
        "",
        "storage.k8s.io",
        "coordination.k8s.io",
        "rbac.authorization.k8s.io",
        "authorization.k8s.io",
        "scheduling.k8s.io",
    }
)


@dataclass(frozen=True)
class Resource:
    """One kind in one version. Versions of a kind share their objects: `key` names the key where they lie."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    subresources: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> tuple[str, str]:
        return self.group, self.plural

    @property
    def qualified(self) -> str:
        """`plural.group`, as messages of the API server name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def counts_generations(self) -> bool:
        return self.group not in _WITHOUT_GENERATION


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False, subresources=STATUS)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False, subresources=STATUS)
PODS = Resource("", "v1", "pods", "Pod", namespaced=True, subresources=STATUS)
SERVICES = Resource("", "v1", "services", "Service", namespaced=True, subresources=STATUS)
SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)
PERSISTENT_VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False, subresources=STATUS)
PERSISTENT_VOLUME_CLAIMS = Resource(
    "", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", namespaced=True, subresources=STATUS
)
EVENTS = Resource("", "v1", "events", "Event", namespaced=True)
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints", namespaced=True)
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet", namespaced=True, subresources=STATUS_AND_SCALE)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", namespaced=True, subresources=STATUS_AND_SCALE)
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet", namespaced=True, subresources=STATUS_AND_SCALE)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet", namespaced=True, subresources=STATUS)
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision", namespaced=True)
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
CSI_DRIVERS = Resource("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False)
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
    subresources=STATUS,
)
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)

_UNNAMED = (
    Resource("", "v1", "resourcequotas", "ResourceQuota", namespaced=True, subresources=STATUS),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True),
    Resource("batch", "v1", "jobs", "Job", namespaced=True, subresources=STATUS),
    Resource("storage.k8s.io", "v1", "csinodes", "CSINode", namespaced=False),
    Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True),
    Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role", namespaced=True),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", namespaced=True),
    Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
)
BUILT_IN = (*(one for one in list(globals().values()) if isinstance(one, Resource)), *_UNNAMED)
REVIEWS = (ACCESS_REVIEWS, SUBJECT_ACCESS_REVIEWS)


class KindRegistry:
    """The kinds served at this moment. Replaced as a whole on every change, so that readers need no lock."""

    def __init__(self) -> None:
        self._resources: tuple[Resource, ...] = BUILT_IN
        self._schemas: dict[Resource, Mapping[str, Any]] = {}
        self._shapes: dict[Resource, Shape] = {}

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return next(
            (one for one in self._resources if (one.group, one.version, one.plural) == (group, version, plural)), None
        )

    def kind(self, api_version: str, kind: str) -> Resource | None:
        return next((one for one in self._resources if (one.api_version, one.kind) == (api_version, kind)), None)

    def all(self) -> tuple[Resource, ...]:
        return self._resources

    def schema(self, resource: Resource) -> Mapping[str, Any] | None:
        """The openAPIV3Schema of a custom resource; None for a built-in one."""
        return self._schemas.get(resource)

    def shape(self, resource: Resource) -> Shape:
        """How objects of this kind merge."""
        return self._shapes.get(resource) or shape_of(resource.key, None)

    def define(self, definitions: Iterable[Mapping[str, Any]]) -> None:
        """Serve the built-in kinds and those of these CustomResourceDefinitions, and no others."""
        schemas = {resource: schema for one in definitions for resource, schema in served_by(one).items()}
        self._schemas = schemas
        self._shapes = {resource: shape_of(resource.key, schema) for resource, schema in schemas.items()}
        self._resources = (*BUILT_IN, *schemas)


def served_by(definition: Mapping[str, Any]) -> dict[Resource, Mapping[str, Any]]:
    """The resources of one CustomResourceDefinition, one for each served version, with their schemas."""
    spec = definition["spec"]
    return {
        Resource(
            group=spec["group"],
            version=version["name"],
            plural=spec["names"]["plural"],
            kind=spec["names"]["kind"],
            namespaced=spec["scope"] == "Namespaced",
            subresources=tuple(name for name in STATUS_AND_SCALE if name in (version.get("subresources") or {})),
        ): version["schema"]["openAPIV3Schema"]
        for version in spec["versions"]
        if version.get("served")
    }
