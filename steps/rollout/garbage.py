"""Garbage collection: objects of a service that belong to releases that are no longer needed."""

from collections.abc import Collection, Iterable

from steps.document.schema import ModelService
from steps.kinds import (
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    RELEASE_LABEL,
    SERVICE,
    SERVICE_LABEL,
    Kind,
    Manifest,
)
from steps.objects.converging import deletion
from steps.objects.metadata import being_deleted, labels_of
from steps.objects.ownership import is_ours, namespace_of
from steps.ports.kubernetes import Cluster
from steps.reconcile.plan import Change

# Argo's Retry starts at the failed task, so it does not create again the objects that the exit handler removed.
NO_RELEASE = "submit a new run; at the end of a failed one its release is removed, and Retry does not bring it back"


def owned(cluster: Cluster, kind: Kind, service: ModelService) -> tuple[Manifest, ...]:
    """All objects of one kind with the label of this service."""
    # Volumes have no namespace, and two namespaces may hold services of one name: `superseded_volumes` checks the rest.
    namespace = "" if kind == PERSISTENT_VOLUME else service.namespace
    return tuple(cluster.select(kind, namespace, {SERVICE_LABEL: service.name}))


def groups_and_services(cluster: Cluster, service: ModelService, group_kind: Kind | None) -> tuple[Manifest, ...]:
    """Groups and Services of all releases, groups first: they hold the GPUs."""
    groups = owned(cluster, group_kind, service) if group_kind else ()
    return (*groups, *owned(cluster, SERVICE, service))


def superseded(found: Iterable[Manifest], service: ModelService, keep: Collection[str]) -> list[Manifest]:
    """Objects of releases whose id is not in `keep`. An object without a release label serves all releases."""
    return [
        manifest
        for manifest in found
        if is_ours(manifest, service)
        and labels_of(manifest).get(RELEASE_LABEL)
        and labels_of(manifest)[RELEASE_LABEL] not in keep
        and not being_deleted(manifest)
    ]


def superseded_volumes(found: Iterable[Manifest], service: ModelService, keep: Collection[str]) -> list[Manifest]:
    """Claims and volumes of this service in this namespace whose name is not in `keep`; claims come first."""
    kinds = (PERSISTENT_VOLUME_CLAIM.kind, PERSISTENT_VOLUME.kind)
    chosen = [
        manifest
        for manifest in found
        if is_ours(manifest, service)
        and manifest["metadata"]["name"] not in keep
        and not being_deleted(manifest)
        and namespace_of(manifest) == service.namespace
    ]
    return sorted(chosen, key=lambda manifest: kinds.index(manifest["kind"]))


def deletions(manifests: Iterable[Manifest], why: str) -> tuple[Change, ...]:
    return tuple(deletion(manifest, why) for manifest in manifests)
