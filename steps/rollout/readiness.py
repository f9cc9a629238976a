"""The readiness gate of a group. Its own `Ready` is no evidence.

The operator writes the status of a group before it touches the workloads, and `Ready` ignores whether pods are
updated: right after a change a group is Ready at its new generation while only the old pods exist.
(sgl-project/rbg, internal/controller/workloads/rolebasedgroup_controller.go, v0.3 to v0.8.) So four
observations must agree: the group, the workload of each role, exactly the pods with the hash of the wanted template,
and a second observation for a group that has just become ready.
"""

from collections.abc import Iterable

from steps.kinds import Manifest, Ref
from steps.objects.metadata import being_deleted
from steps.objects.pod_status import condition, hash_of, is_ready, name_of, restarts, role_of, state
from steps.reconcile.plan import Plan
from steps.rollout.causes import mount_trouble, pod_faults
from steps.rollout.observation import ExpectedRole, GroupObservation, expected_roles
from steps.rollout.workload_status import workload_remarks

Fingerprint = frozenset[tuple[str, int, bool]]


def fingerprint(observed: GroupObservation) -> Fingerprint:
    """Pods of the group with the number of their restarts and their readiness.

    No pod flapped between two ready observations with the same fingerprint.
    """
    return frozenset((pod["metadata"]["uid"], restarts(pod), is_ready(pod)) for pod in observed.pods)


def stable(wanted: Manifest, observed: GroupObservation, before: Fingerprint | None) -> Plan:
    """The gate, and the same pods ready in the observation before. `before` is None in the first observation of a step.

    A group that is ready in the first observation was not seen to change, so it cannot have flapped.
    """
    plan = gate(wanted, observed)
    if not plan.converged or before is None or before == fingerprint(observed):
        return plan
    return Plan(waiting=(f"{Ref.of(wanted)} to stay ready: a group that has just started may become unready once",))


def gate(wanted: Manifest, observed: GroupObservation) -> Plan:
    """Failures that end the wait, else the missing parts, else one line on the group that serves."""
    roles = expected_roles(wanted, observed.group)
    faults = faults_of(roles, observed)
    if faults:
        return Plan(failed=tuple(faults))
    missing = _missing(wanted, roles, observed)
    if missing:
        return Plan(waiting=tuple(missing))
    counts = ", ".join(f"{role.name} {role.replicas}/{role.replicas}" for role in roles)
    return Plan(ok=(f"{Ref.of(wanted)} serves: {counts} ready, all of the wanted template",))


def faults_of(roles: Iterable[ExpectedRole], observed: GroupObservation) -> list[str]:
    """Failures of pods of the wanted template. Older pods are going away in any case."""
    wanted = {(role.name, role.spec_hash) for role in roles}
    pods = [pod for pod in observed.pods if (role_of(pod), hash_of(pod)) in wanted and not being_deleted(pod)]
    return pod_faults(pods, observed.events, observed.logs)


def _missing(wanted: Manifest, roles: tuple[ExpectedRole, ...], observed: GroupObservation) -> list[str]:
    """The missing parts, pods first, since people check those first."""
    if observed.group is None:
        return [f"{Ref.of(wanted)} to exist"]
    if being_deleted(observed.group):
        return [f"{Ref.of(wanted)} to be gone: it is being deleted"]
    lines = [_role_line(role, observed) for role in roles]
    if any(remark for _, remark in lines):
        return [", ".join(count + (f": {remark}" if remark else "") for count, remark in lines)]
    remarks = [remark for role in roles for remark in workload_remarks(role, observed.workloads.get(role.name))]
    return remarks or _group_remarks(roles, observed.group)


def _role_line(role: ExpectedRole, observed: GroupObservation) -> tuple[str, str]:
    """`prefill 1/2 ready` and the reason; the reason is empty if exactly the right pods are ready."""
    pods = [pod for pod in observed.pods if role_of(pod) == role.name]
    new = [pod for pod in pods if hash_of(pod) == role.spec_hash]
    old = [pod for pod in pods if hash_of(pod) != role.spec_hash]
    ready = sum(is_ready(pod) for pod in new)
    return f"{role.name} {ready}/{role.replicas} ready", _why_not(role, new, old, observed)


def _why_not(role: ExpectedRole, new: list[Manifest], old: list[Manifest], observed: GroupObservation) -> str:
    unready = [pod for pod in new if not is_ready(pod)]
    if unready:
        return f"{name_of(unready[0])} is {_explained(unready[0], observed)}"
    if old:
        return f"{name_of(old[0])} of an older template is still there"
    if len(new) < role.replicas:
        return _why_no_pod(role, observed)
    if len(new) > role.replicas:
        return f"{len(new) - role.replicas} too many"
    return ""


def _why_no_pod(role: ExpectedRole, observed: GroupObservation) -> str:
    group_uid = (observed.group or {}).get("metadata", {}).get("uid")
    about_group = [event for event in observed.events if (event.get("involvedObject") or {}).get("uid") == group_uid]
    if observed.workloads.get(role.name) is not None or not about_group:
        return "not all pods are created"
    newest = max(about_group, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return f"not created yet, the operator reports {newest.get('reason')}: {newest.get('message', '')}".rstrip(": ")


def _explained(pod: Manifest, observed: GroupObservation) -> str:
    trouble = mount_trouble(pod, observed.events)
    return f"{state(pod)} ({trouble[0]})" if trouble else state(pod)


def _group_remarks(roles: tuple[ExpectedRole, ...], group: Manifest) -> list[str]:
    """Status of the group itself, as a cross-check: necessary, never sufficient."""
    target, status = Ref.of(group), group.get("status") or {}
    generation, observed = group["metadata"].get("generation", 0), status.get("observedGeneration", 0)
    # Operators up to v0.6 write the status only when a count changes, so observedGeneration stays behind for ever after
    # a change that moves no count. Then the counts of the status are correct already.
    if observed < generation and not _counts_agree(roles, status):
        return [f"the operator to observe {target}: generation {generation}, observed {observed}"]
    ready = condition(group, "Ready")
    if ready.get("status") != "True":
        return [f"{target} to report Ready: {ready.get('reason', 'no such condition')}"]
    return []


def _counts_agree(roles: tuple[ExpectedRole, ...], status: dict[str, object]) -> bool:
    entries = status.get("roleStatuses")
    found = {entry["name"]: entry for entry in entries} if isinstance(entries, list) else {}
    return all(
        found.get(role.name, {}).get("replicas") == found.get(role.name, {}).get("readyReplicas") == role.replicas
        for role in roles
    )
