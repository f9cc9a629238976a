"""A group as its operator and kubelet leave it, to be spoiled field by field."""

import copy
from typing import Any

from steps.kinds import V1ALPHA1, Kind, Manifest
from steps.objects.converging import ObjectObservation
from steps.objects.group import role_based_group
from steps.objects.group_operator import GroupOperator
from steps.release import Release
from steps.rollout.observation import GroupObservation, expected_roles, template_of

OPERATOR = GroupOperator(V1ALPHA1, "s-")


def group_of(release: Release, operator: GroupOperator = OPERATOR) -> Manifest:
    return role_based_group(release, operator)


def live(manifest: Manifest, *, uid: str = "", generation: int = 1, **status: Any) -> Manifest:
    """An object as the server returns it."""
    found = copy.deepcopy(manifest)
    found["metadata"] |= {
        "uid": uid or f"uid-{manifest['kind']}-{manifest['metadata']['name']}",
        "resourceVersion": "7",
        "generation": generation,
        "creationTimestamp": "2026-11-20T08:00:00Z",
    }
    return {**found, "status": status} if status else found


def as_wanted(manifest: Manifest) -> ObjectObservation:
    """An observation of an object as it should be."""
    return ObjectObservation(manifest, live(manifest), live(manifest))


def absent(manifest: Manifest) -> ObjectObservation:
    return ObjectObservation(manifest, None, manifest)


def deleted(manifest: Manifest) -> Manifest:
    found = copy.deepcopy(manifest)
    found["metadata"]["deletionTimestamp"] = "2026-11-20T09:00:00Z"
    return found


def ready_pod(role: dict[str, Any], group: Manifest, index: int) -> Manifest:
    template = copy.deepcopy(template_of(role))
    name = f"{group['metadata']['name']}-{role['name']}-{index}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": group["metadata"]["namespace"],
            "uid": f"uid-{name}",
            "labels": template["metadata"]["labels"],
        },
        "spec": {**template["spec"], "nodeName": f"gpu-{index}"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {"name": template["spec"]["containers"][0]["name"], "ready": True, "restartCount": 0, "state": {}}
            ],
        },
    }


def workload(role: dict[str, Any], group: Manifest, kind: Kind) -> Manifest:
    """The StatefulSet or RoleInstanceSet of a role, at rest."""
    replicas, template = role["replicas"], template_of(role)
    counts = {"replicas": replicas, "readyReplicas": replicas, "updatedReplicas": replicas}
    if kind.kind == "StatefulSet":
        spec = {"template": template, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}
    else:
        component = {"name": role["name"], "size": 1, "template": template}
        spec = {"roleInstanceTemplate": {"components": [component]}, "updateStrategy": {"type": "RecreatePod"}}
        counts["updatedReadyReplicas"] = replicas
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": f"{group['metadata']['name']}-{role['name']}",
            "namespace": group["metadata"]["namespace"],
            "uid": f"uid-{role['name']}",
            "generation": 2,
        },
        "spec": {"replicas": replicas, **copy.deepcopy(spec)},
        "status": {**counts, "observedGeneration": 2, "currentRevision": "r1", "updateRevision": "r1"},
    }


def ready_group(manifest: Manifest) -> GroupObservation:
    """The observation of a group that serves."""
    roles = manifest["spec"]["roles"]
    counts = [{"name": role["name"], "replicas": role["replicas"], "readyReplicas": role["replicas"]} for role in roles]
    group = live(
        manifest,
        observedGeneration=1,
        conditions=[{"type": "Ready", "status": "True", "reason": "AllRolesReady"}],
        roleStatuses=counts,
    )
    kinds = {role.name: role.workload.kind for role in expected_roles(manifest)}
    return GroupObservation(
        group,
        {role["name"]: workload(role, manifest, kinds[role["name"]]) for role in roles},
        tuple(ready_pod(role, manifest, index) for role in roles for index in range(role["replicas"])),
    )


def event(about: Manifest, reason: str, message: str, count: int = 1) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about['metadata']['name']}.1", "namespace": "default"},
        "involvedObject": {"uid": about["metadata"]["uid"]},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "count": count,
        "lastTimestamp": "2026-11-20T08:05:00Z",
    }
