"""Metadata of all objects of Slipway."""

from collections.abc import Mapping
from typing import Any

from steps.document.schema import ModelService
from steps.kinds import SERVICE_LABEL, Manifest


def owned_metadata(
    service: ModelService, name: str, namespace: str = "", labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Metadata with the owner of the object; an empty namespace means a cluster-scoped kind."""
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
