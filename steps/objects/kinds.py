"""The kinds that steps read and write, and what all of our objects have in common."""

from collections.abc import Mapping
from typing import Any

from steps.ports import Kind, Manifest
from steps.release import SERVICE_LABEL
from steps.service import ModelService

CONFIG_MAP = Kind("v1", "ConfigMap")
EVENT = Kind("v1", "Event")
LEASE = Kind("coordination.k8s.io/v1", "Lease")
PERSISTENT_VOLUME = Kind("v1", "PersistentVolume")
PERSISTENT_VOLUME_CLAIM = Kind("v1", "PersistentVolumeClaim")
POD = Kind("v1", "Pod")
SECRET = Kind("v1", "Secret")
SERVICE = Kind("v1", "Service")
STATEFUL_SET = Kind("apps/v1", "StatefulSet")
INSTANCE = Kind("workloads.x-k8s.io/v1alpha1", "Instance")
ROLE_INSTANCE_SET = Kind("workloads.x-k8s.io/v1alpha2", "RoleInstanceSet")
ROLE_BASED_GROUP = "RoleBasedGroup"
V1ALPHA1 = "workloads.x-k8s.io/v1alpha1"
V1ALPHA2 = "workloads.x-k8s.io/v1alpha2"


def owned_metadata(
    service: ModelService, name: str, namespace: str = "", labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Metadata that says whose object it is; an empty namespace means a cluster-scoped kind."""
    found: dict[str, Any] = {
        "name": name,
        "labels": {**service.metadata.labels, SERVICE_LABEL: service.name, **(labels or {})},
    }
    if namespace:
        found["namespace"] = namespace
    if service.metadata.annotations:
        found["annotations"] = dict(service.metadata.annotations)
    return found


def labels_of(manifest: Manifest) -> dict[str, str]:
    found: dict[str, str] = manifest["metadata"].get("labels") or {}
    return found


def being_deleted(manifest: Manifest) -> bool:
    return bool(manifest["metadata"].get("deletionTimestamp"))
