"""roll-out-service: the group of a release and a Service of its own, until exactly its own pods serve.

Releases never share a group, so a prefill never feeds a decode of another release. `BlueGreen` starts the group beside
the running one; `Recreate` removes the running one first, once the server has accepted the new one and its volume is
there. Another replica count is no other release: the same group is
scaled, and the router follows.
"""

from dataclasses import dataclass, field, replace

from steps.kinds import POD, RELEASE_LABEL, SERVICE_LABEL, Manifest, Ref
from steps.objects import group_operator, record, services, volume
from steps.objects.converging import ObjectObservation, apply_changes, observe_object, plan_objects
from steps.objects.group_operator import GroupOperator
from steps.objects.metadata import labels_of
from steps.objects.ownership import foreign_owner, owner
from steps.objects.pod_status import is_ready, name_of
from steps.ports.kubernetes import Cluster
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.release import Release
from steps.rollout.garbage import deletions, owned, superseded
from steps.rollout.observation import GroupObservation, observe_group, wanted_group
from steps.rollout.readiness import Fingerprint, fingerprint, stable


@dataclass(frozen=True)
class Facts:
    operator: GroupOperator | None
    traffic: Manifest | None = None  # the Service that clients use
    same_name: tuple[
        Manifest, ...
    ] = ()  # objects with the names of this release's group and Service, and of the record
    groups: tuple[Manifest, ...] = ()  # groups of all releases of this service
    older_pods: tuple[Manifest, ...] = ()  # pods of its other releases
    recorded: str = ""  # id of the release that the record calls current
    unread: str = ""  # why that is not known, as a sentence for people; empty if it is
    claim: Manifest | None = None  # through which the pods read the model
    looks: tuple[
        ObjectObservation, ...
    ] = ()  # group and Service as wanted, accepted by the server; empty if there is a fault
    group: GroupObservation = field(default_factory=lambda: GroupObservation(None))
    before: Fingerprint | None = None  # of the observation before this one


@dataclass(frozen=True)
class Outputs:
    group: str
    ready_pods: int
    nodes: str


@dataclass(frozen=True)
class RollOutService:
    release: Release
    cluster: Cluster

    @property
    def deadline(self) -> float:
        return self.release.service.rollout.deadline_minutes * 60.0

    def observe(self, past: Past[Facts]) -> Facts:
        operator = group_operator.ask(self.cluster)
        if operator is None:
            return Facts(None)
        service = self.release.service
        names = (Ref(operator.kind, self.release.group, service.namespace), services.release_service_ref(self.release))
        live_record = self.cluster.get(record.record_ref(service))
        recorded = record.read(live_record)
        facts = Facts(
            operator,
            traffic=self.cluster.get(services.traffic_service_ref(service)),
            same_name=tuple(found for found in (*map(self.cluster.get, names), live_record) if found),
            groups=owned(self.cluster, operator.kind, service),
            older_pods=self._older_pods(),
            recorded=recorded.current.release if recorded.current else "",
            unread="" if recorded.current else record.mending(service, recorded),
            claim=self.cluster.get(volume.claim_ref(self.release)),
        )
        return facts if obstacles(self.release, facts) else self._look_closer(facts, operator, past)

    def plan(self, facts: Facts) -> Plan:
        return plan(self.release, facts)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        apply_changes(self.cluster, changes, report)

    def outputs(self, facts: Facts) -> Outputs:
        ready = [pod for pod in facts.group.pods if is_ready(pod)]
        nodes = sorted({pod["spec"].get("nodeName", "") for pod in ready} - {""})
        return Outputs(group=self.release.group, ready_pods=len(ready), nodes=",".join(nodes))

    def _look_closer(self, facts: Facts, operator: GroupOperator, past: Past[Facts]) -> Facts:
        wanted = wanted_group(self.cluster, self.release, operator)
        looks = (
            observe_object(self.cluster, wanted),
            observe_object(self.cluster, services.release_service(self.release)),
        )
        if in_the_way(self.release, facts):
            return replace(facts, looks=looks)
        group = observe_group(self.cluster, wanted)
        before = fingerprint(past.facts.group) if past.facts else None
        return replace(facts, looks=looks, group=group, before=before)

    def _older_pods(self) -> tuple[Manifest, ...]:
        service = self.release.service
        pods = self.cluster.select(POD, service.namespace, {SERVICE_LABEL: service.name})
        return tuple(pod for pod in pods if labels_of(pod).get(RELEASE_LABEL) != self.release.id)


def plan(release: Release, facts: Facts) -> Plan:
    if facts.operator is None:
        return Plan(failed=(group_operator.ABSENT,))
    faults = obstacles(release, facts)
    if faults:
        return Plan(failed=tuple(faults))
    removals = deletions(to_remove(release, facts), _why_removed(release))
    waits = in_the_way(release, facts)
    if waits:
        return Plan(removals, waiting=tuple(waits))
    objects = Plan(removals, ok=(facts.unread,) if facts.unread else ()) + plan_objects(facts.looks)
    if objects.changes or objects.waiting:
        return objects
    found = objects + stable(facts.looks[0].wanted, facts.group, facts.before)
    return replace(found, waiting=(*found.waiting, *_no_room(release, facts))) if found.waiting else found


def foreign_objects(release: Release, facts: Facts) -> list[str]:
    """Objects of other owners with names that this service needs."""
    found = (facts.traffic, *facts.same_name)
    return [fault for manifest in found if (fault := foreign_owner(owner(release.service), manifest))]


def obstacles(release: Release, facts: Facts) -> list[str]:
    """The reasons why the release could not start: then no object is created or removed for it."""
    unready = volume.unready(release, facts.claim)
    return [*foreign_objects(release, facts), *([unready] if unready else ())]


def to_remove(release: Release, facts: Facts) -> list[Manifest]:
    """Groups that hold GPUs without use.

    With `Recreate` that is every other group. With `BlueGreen` it is the leftover of a run that was killed before its
    cleanup: neither recorded nor serving. While the record cannot be read, every group may be the recorded one.
    """
    if facts.unread:
        return []
    keep = {release.id}
    if release.service.rollout.strategy == "BlueGreen":
        keep |= {facts.recorded, services.serving_release(facts.traffic)}
    return superseded(facts.groups, release.service, keep)


def in_the_way(release: Release, facts: Facts) -> list[str]:
    """What `Recreate` must see gone before the new group starts: its pods would not find GPUs."""
    if release.service.rollout.strategy == "BlueGreen" or facts.unread:
        return []
    others = [group for group in facts.groups if labels_of(group).get(RELEASE_LABEL) != release.id]
    names = [str(Ref.of(group)) for group in others] or [f"pod {name_of(pod)}" for pod in facts.older_pods]
    if not names:
        return []
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [f"{names[0]}{more} to be gone; then {release.group} is created in its place"]


def _no_room(release: Release, facts: Facts) -> tuple[str, ...]:
    if release.service.rollout.strategy == "BlueGreen" or not facts.unread:
        return ()
    return (f"Recreate stops no running release, because none could be restored: {facts.unread}",)


def _why_removed(release: Release) -> str:
    if release.service.rollout.strategy == "Recreate":
        return "Recreate: the running release stops before the new one starts"
    return "left behind by an earlier run: neither recorded nor serving"
