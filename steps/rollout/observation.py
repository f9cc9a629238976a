"""Observation of a RoleBasedGroup: the group, the workloads of its roles, its pods, their events and logs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steps.errors import Blocked
from steps.kinds import (
    EVENT,
    HASH_LABEL,
    OWN_LABELS,
    POD,
    RELEASE_LABEL,
    ROLE_INSTANCE_SET,
    SERVICE,
    SERVICE_LABEL,
    STATEFUL_SET,
    Kind,
    Manifest,
    Ref,
)
from steps.objects.group import WORKERS, adopted_services, role_based_group
from steps.objects.group_operator import GroupOperator
from steps.objects.metadata import labels_of
from steps.objects.pod_status import is_ready, name_of
from steps.ports.kubernetes import Cluster
from steps.release import Release
from steps.rollout.causes import crashed_containers

# Set on roles that an older operator created as StatefulSets, after the conversion of their group to v1alpha2.
WORKLOAD_TYPE = "rbg.workloads.x-k8s.io/role-workload-type"


@dataclass(frozen=True)
class ExpectedRole:
    """One role of a manifest."""

    name: str
    replicas: int
    spec_hash: str
    workload: Ref


@dataclass(frozen=True)
class GroupObservation:
    group: Manifest | None
    workloads: Mapping[str, Manifest | None] = field(default_factory=dict)  # by role
    pods: tuple[Manifest, ...] = ()
    events: tuple[Manifest, ...] = ()  # warnings about the group and its pods; read only while a pod is not ready
    logs: Mapping[str, str] = field(default_factory=dict)  # end of the log of a crashed container, by pod


def expected_roles(wanted: Manifest, live: Manifest | None = None) -> tuple[ExpectedRole, ...]:
    """The roles of a group manifest. The live group determines the kind of workload of each role."""
    kept = {role["name"]: role.get("annotations") or {} for role in ((live or {}).get("spec") or {}).get("roles") or []}
    return tuple(_expected(wanted, role, kept.get(role["name"], {})) for role in wanted["spec"]["roles"])


def pod_labels(service_name: str, release_id: str) -> dict[str, str]:
    """Labels of all pods of a release: our own, since the label domain of the operator changed between its releases."""
    return {SERVICE_LABEL: service_name, RELEASE_LABEL: release_id}


def wanted_group(cluster: Cluster, release: Release, operator: GroupOperator) -> Manifest:
    """The manifest of a release's group, for the operator and the headless Services that this cluster has.

    Another label in a template would restart its pods, so the pods of a live group keep their labels.
    """
    namespace = release.service.namespace
    names = [f"{release.group}-{role}" for role in WORKERS] if operator.service_prefix else []
    found = [name for name in names if cluster.get(Ref(SERVICE, name, namespace))]
    live = cluster.get(Ref(operator.kind, release.group, namespace))
    return role_based_group(release, operator, adopted_services(release.group, found), labels_of_pods(live))


def observe_group(cluster: Cluster, wanted: Manifest) -> GroupObservation:
    """Read the group of this manifest, its workloads and pods; events and logs only if pods are not ready."""
    live = cluster.get(Ref.of(wanted))
    roles = expected_roles(wanted, live)
    workloads = {role.name: cluster.get(role.workload) for role in roles} if live else {}
    namespace, labels = wanted["metadata"]["namespace"], labels_of(wanted)
    selector = pod_labels(labels[SERVICE_LABEL], labels[RELEASE_LABEL])
    pods = tuple(cluster.select(POD, namespace, selector))
    amiss = [pod for pod in pods if not is_ready(pod)]
    if live is not None and not amiss and len(pods) == sum(role.replicas for role in roles):
        return GroupObservation(live, workloads, pods)
    return GroupObservation(
        live, workloads, pods, _warnings(cluster, live, pods, namespace), _logs(cluster, amiss, namespace)
    )


def labels_of_pods(live: Manifest | None) -> dict[str, dict[str, str]]:
    """Labels in the templates of a live group, by role, without Slipway's own; empty if there is no group."""
    return {
        role["name"]: {
            key: value
            for key, value in template_of(role)["metadata"].get("labels", {}).items()
            if not key.startswith(OWN_LABELS)
        }
        for role in ((live or {}).get("spec") or {}).get("roles") or []
    }


def template_of(role: Mapping[str, Any]) -> dict[str, Any]:
    """The pod template of a role, in either version of the API."""
    template: dict[str, Any] = role["template"] if "template" in role else role["standalonePattern"]["template"]
    return template


def _expected(wanted: Manifest, role: Mapping[str, Any], kept: Mapping[str, str]) -> ExpectedRole:
    metadata = wanted["metadata"]
    kind = _workload_kind(role, kept.get(WORKLOAD_TYPE, ""))
    return ExpectedRole(
        name=role["name"],
        replicas=role["replicas"],
        spec_hash=template_of(role)["metadata"]["labels"][HASH_LABEL],
        workload=Ref(kind, f"{metadata['name']}-{role['name']}", metadata["namespace"]),
    )


def _workload_kind(role: Mapping[str, Any], kept: str) -> Kind:
    if kept:
        return Kind(kept.rpartition("/")[0], kept.rpartition("/")[2])
    return STATEFUL_SET if "template" in role else ROLE_INSTANCE_SET


def _warnings(
    cluster: Cluster, live: Manifest | None, pods: tuple[Manifest, ...], namespace: str
) -> tuple[Manifest, ...]:
    """Events only explain, so an account without the permission to read them continues without."""
    about = {found["metadata"].get("uid") for found in (*pods, *([live] if live else []))}
    try:
        events = cluster.select(EVENT, namespace) if about else []
    except Blocked:
        return ()
    return tuple(
        event
        for event in events
        if event.get("type") == "Warning" and (event.get("involvedObject") or {}).get("uid") in about
    )


def _logs(cluster: Cluster, pods: list[Manifest], namespace: str) -> dict[str, str]:
    """Logs only explain as well."""
    found = {}
    for pod in pods:
        for container in crashed_containers(pod):
            try:
                found[name_of(pod)] = cluster.pod_log(namespace, name_of(pod), container, previous=True)
            except Blocked:
                continue
    return found
