"""The RBG operator: makes workloads of the roles of a RoleBasedGroup.

Its status is as wrong as that of the real one: it is written before the workloads are brought up to date, and
`Ready` ignores revisions, so a group is Ready at its new generation while only old pods exist.
https://github.com/sgl-project/rbg/blob/v0.6.0/internal/controller/workloads/rolebasedgroup_controller.go
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from workflows.simulator.core.cluster.controllers.operator_style import OperatorStyle
from workflows.simulator.core.cluster.controllers.partitions import partition
from workflows.simulator.core.cluster.controllers.roles import GroupRole, workload_name
from workflows.simulator.core.cluster.controllers.timing import ClusterTiming
from workflows.simulator.core.cluster.controllers.view import ClusterView, condition, is_going, is_true, owned
from workflows.simulator.core.cluster.resources import CONFIG_MAPS, DEPLOYMENTS, SERVICES, STATEFUL_SETS, Resource
from workflows.simulator.core.cluster.store import Manifest, copied

OPERATOR = "rbgs-controller-manager"
OPERATOR_NAMESPACE = "rbgs-system"
_SOURCE = "rbgs-controller"


class RefusedError(Exception):
    """The operator cannot go on with a group; reason and message of its event."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class _Flap:
    """Ready for a while, not ready for a while, then ready for good."""

    since: float
    is_down: bool = False
    is_over: bool = False


class RoleBasedGroupOperator:
    """Reconciles a group at most once in `timing.operator` seconds, while its own Deployment has a ready pod."""

    def __init__(self, style: OperatorStyle, timing: ClusterTiming) -> None:
        self._style = style
        self._timing = timing
        self._due: dict[str, float] = {}
        self._flaps: dict[str, _Flap] = {}

    def reconcile(self, view: ClusterView) -> float | None:
        deployment = view.get(DEPLOYMENTS, OPERATOR, OPERATOR_NAMESPACE) or {}
        if not (deployment.get("status") or {}).get("readyReplicas"):
            return None
        waits = [self._reconcile_in_turn(view, *found) for found in self._groups(view)]
        return min((wait for wait in waits if wait is not None), default=None)

    def _groups(self, view: ClusterView) -> list[tuple[Resource, Manifest]]:
        for version in ("v1alpha2", "v1alpha1"):
            resource = view.kind(f"workloads.x-k8s.io/{version}", "RoleBasedGroup")
            if resource:
                return [(resource, group) for group in view.all(resource) if not is_going(group)]
        return []

    def _reconcile_in_turn(self, view: ClusterView, resource: Resource, group: Manifest) -> float | None:
        uid, moment = group["metadata"]["uid"], time.monotonic()
        if moment < self._due.get(uid, 0.0):
            return self._due[uid] - moment
        self._due[uid] = moment + self._timing.operator
        try:
            self._reconcile_group(view, resource, group)
        except RefusedError as refused:
            view.event(group, refused.reason, str(refused), source=_SOURCE)
        return self._timing.flap if self._is_flapping(uid) else None

    def _reconcile_group(self, view: ClusterView, resource: Resource, group: Manifest) -> None:
        roles = {spec["name"]: GroupRole(group, spec, self._style) for spec in group["spec"]["roles"]}
        found = {name: _workload(view, role) for name, role in roles.items()}
        self._write_status(view, resource, group, found)
        for name in in_order(group):
            _check_dependencies(view, group, roles[name])
            _reconcile_role(view, roles[name])
        _remove_orphans(view, group)

    def _write_status(
        self, view: ClusterView, resource: Resource, group: Manifest, workloads: Mapping[str, Manifest | None]
    ) -> None:
        status = group.get("status") or {}
        before = {one["name"]: one for one in status.get("roleStatuses") or []}
        seen = [_role_status(name, workload) for name, workload in workloads.items()]
        exists = [one for one in seen if workloads[one["name"]] is not None]
        uid = group["metadata"]["uid"]
        if is_true(group, "Ready"):
            # It was ready for an earlier process already.
            self._flaps.setdefault(uid, _Flap(0.0, is_over=True))
        news = any(before.get(one["name"]) != one for one in exists)
        if not (news or self._is_flapping(uid) or self._style.always_writes_status):
            return
        counts_ready = all(
            one["replicas"] == one["readyReplicas"] == int(spec.get("replicas", 1))
            for one, spec in zip(seen, group["spec"]["roles"], strict=True)
        )
        ready = counts_ready and self._admits(uid)
        reason, message = ("AllRolesReady", "All roles are ready") if ready else ("RoleNotReady", "Not all role ready")
        generation = group["metadata"]["generation"]
        more = {"observedGeneration": generation} if self._style.always_writes_status else {}
        written = {
            **status,
            "observedGeneration": generation,
            "conditions": condition(status, "Ready", ready, reason, message, **more),
            "roleStatuses": [_refreshed(before.get(one["name"]), one) for one in seen],
        }
        view.write_status(resource, group, written)

    def _is_flapping(self, uid: str) -> bool:
        return uid in self._flaps and not self._flaps[uid].is_over

    def _admits(self, uid: str) -> bool:
        """False for a moment soon after a group was first ready: Ready was seen to go back once."""
        moment = time.monotonic()
        flap = self._flaps.setdefault(uid, _Flap(moment))
        if not flap.is_over and moment - flap.since >= self._timing.flap:
            flap.is_over = flap.is_down
            flap.is_down = not flap.is_down
            flap.since = moment
        return not flap.is_down


def in_order(group: Mapping[str, Any]) -> list[str]:
    """Names of the roles, each after those it depends on. Raises RefusedError."""
    needs = {spec["name"]: spec.get("dependencies") or [] for spec in group["spec"]["roles"]}
    for role, dependencies in needs.items():
        for dependency in dependencies:
            if dependency not in needs:
                raise RefusedError(
                    "InvalidRoleDependency", f"role [{role}] with dependency role [{dependency}] not found in rbg"
                )
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise RefusedError(
            "InvalidRoleDependency", f"failed to sort roles by dependency order: cycle {error.args[1]}"
        ) from error


def _resource(view: ClusterView, role: GroupRole) -> Resource:
    resource = view.kind(*role.workload_kind)
    if resource is None or role.workload_kind[1] not in ("StatefulSet", "Deployment", "RoleInstanceSet"):
        raise RefusedError(
            "FailedReconcileWorkload", f"Failed to validate role {role.name}, err: unsupported {role.workload_kind}"
        )
    return resource


def _workload(view: ClusterView, role: GroupRole) -> Manifest | None:
    return view.get(_resource(view, role), role.workload_name, role.namespace)


def _role_status(name: str, workload: Manifest | None) -> Manifest:
    if workload is None:
        return {"name": name, "replicas": 0, "readyReplicas": 0, "updatedReplicas": 0}
    status = workload.get("status") or {}
    # A StatefulSet counts as wide as it should be, the other kinds as they are.
    source = workload["spec"] if workload["kind"] == "StatefulSet" else status
    return {
        "name": name,
        "replicas": source.get("replicas", 0),
        "readyReplicas": status.get("readyReplicas", 0),
        "updatedReplicas": status.get("updatedReplicas", 0),
    }


def _refreshed(before: Manifest | None, seen: Manifest) -> Manifest:
    """An entry is replaced only for another number of (ready) replicas, so `updatedReplicas` may be stale."""
    if before and all(before[key] == seen[key] for key in ("replicas", "readyReplicas")):
        return before
    return seen


def _check_dependencies(view: ClusterView, group: Manifest, role: GroupRole) -> None:
    for dependency in role.spec.get("dependencies") or []:
        spec = next(spec for spec in group["spec"]["roles"] if spec["name"] == dependency)
        workload = _workload(view, GroupRole(group, spec, role.style))
        ready = (workload or {}).get("status", {}).get("readyReplicas", 0)
        if workload is None or ready != workload["spec"]["replicas"]:
            raise RefusedError("DependencyNotMet", f"dependencies not met for role '{role.name}'")


def _reconcile_role(view: ClusterView, role: GroupRole) -> None:
    resource = _resource(view, role)
    _reconcile_config(view, role)
    live = view.get(resource, role.workload_name, role.namespace)
    try:
        if live is None:
            live = view.create(resource, role.manifest(view, replicas=role.replicas, partition=0))
        else:
            _update(view, resource, role, live)
    except LookupError as error:
        raise RefusedError("InvalidTemplateRef", str(error)) from error
    service = role.service_name(view)
    if resource != DEPLOYMENTS and view.get(SERVICES, service, role.namespace) is None:
        view.create(SERVICES, role.service(service, live))


def _update(view: ClusterView, resource: Resource, role: GroupRole, live: Manifest) -> None:
    wanted = role.manifest(view, replicas=role.replicas, partition=0)
    if resource == STATEFUL_SETS:
        wanted["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = partition(view, role, live, wanted)
    spec = {**live["spec"], **wanted["spec"], "selector": live["spec"]["selector"]}
    metadata = copied(live["metadata"])
    metadata["labels"] = {**(metadata.get("labels") or {}), **wanted["metadata"]["labels"]}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **wanted["metadata"]["annotations"]}
    if spec == live["spec"] and metadata == live["metadata"]:
        return
    written = view.write(resource, {**live, "metadata": metadata, "spec": spec})
    if resource == STATEFUL_SETS and written["metadata"]["generation"] != live["metadata"]["generation"]:
        # The operator is woken by its own change and is often faster than the StatefulSet controller; it then
        # complains without a cause.
        view.event(
            role.group,
            "FailedReconcileWorkload",
            f"Failed to construct role {role.name} status: sts generation not equal to observed generation",
            source=_SOURCE,
        )


def _reconcile_config(view: ClusterView, role: GroupRole) -> None:
    services = {
        spec["name"]: GroupRole(role.group, spec, role.style).service_name(view) for spec in role.group["spec"]["roles"]
    }
    wanted = role.config(services)
    live = view.get(CONFIG_MAPS, role.config_name, role.namespace)
    if live is None:
        view.create(CONFIG_MAPS, wanted)
    elif live.get("data") != wanted["data"]:
        view.write(CONFIG_MAPS, {**live, "data": wanted["data"]})


def _remove_orphans(view: ClusterView, group: Manifest) -> None:
    names = {workload_name(group, spec["name"]) for spec in group["spec"]["roles"]}
    instances = view.kind("workloads.x-k8s.io/v1alpha2", "RoleInstanceSet")
    for resource in (STATEFUL_SETS, DEPLOYMENTS, *([instances] if instances else [])):
        for workload in owned(view.all(resource, group["metadata"]["namespace"]), group):
            if workload["metadata"]["name"] not in names and not is_going(workload):
                view.delete(resource, workload)
