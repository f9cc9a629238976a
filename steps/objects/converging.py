"""Objects converge to their manifests: observed with a dry run of the server, and changed only if they differ."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from steps.kinds import Manifest, Ref
from steps.objects.difference import differences, presentable, reason
from steps.objects.field_managers import last_writer
from steps.objects.metadata import being_deleted
from steps.objects.ownership import Owner, foreign_owner, refuse_foreign
from steps.ports.kubernetes import Cluster
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report

REREADS = 3  # of an object that other clients write all the time; then the last observation counts


@dataclass(frozen=True)
class ObjectObservation:
    """One wanted object: its live state, and the state that an apply would leave."""

    wanted: Manifest
    live: Manifest | None
    preview: Manifest | None  # None while the live object is being deleted, and for one of another owner

    @property
    def ref(self) -> Ref:
        return Ref.of(self.wanted)


@dataclass(frozen=True)
class Apply:
    """Payload of a change that writes."""

    manifest: Manifest = field(repr=False)  # a Secret may be in it

    @property
    def ref(self) -> Ref:
        return Ref.of(self.manifest)

    @property
    def owner(self) -> Owner:
        return Owner.of(self.manifest)


@dataclass(frozen=True)
class Delete:
    """Payload of a change that deletes. The uid is not compared: a new object of this name undoes the deletion."""

    ref: Ref
    uid: str = field(compare=False)
    owner: Owner


def observe_object(cluster: Cluster, wanted: Manifest) -> ObjectObservation:
    """Read one object and preview it. An object that is being deleted, or of another owner, is not previewed, since the
    server may refuse that.

    A controller may write between the two (a binder fills claimRef.uid), and its write would appear as a difference.
    A dry run names the revision that it started from, so a pair of two revisions is read again.
    """
    found = _observe_once(cluster, wanted)
    for _ in range(REREADS):
        if found.preview is None or _revision(found.live) == _revision(found.preview):
            break
        found = _observe_once(cluster, wanted)
    return found


def plan_objects(observed: Iterable[ObjectObservation]) -> Plan:
    """Create absent objects, update different ones, wait for those that are being deleted; in the given order.

    An object of another owner is a failure, so the plan is not applied.
    """
    plan = Plan()
    for item in observed:
        plan += _plan_one(item)
    return plan


def foreign_objects(cluster: Cluster, wanted: Iterable[Manifest]) -> tuple[str, ...]:
    """Wanted objects that belong to another owner; for a step that writes before it has observed all of them."""
    found = (foreign_owner(Owner.of(one), cluster.get(Ref.of(one))) for one in wanted)
    return tuple(filter(None, found))


def deletion(live: Manifest, why: str) -> Change:
    """The change that deletes this live object."""
    ref = Ref.of(live)
    return Change(
        "delete",
        str(ref),
        why,
        Delete(ref, live["metadata"]["uid"], Owner.of(live)),
        before=presentable(live),
        last_writer=last_writer(live),
    )


def apply_changes(cluster: Cluster, changes: Iterable[Change], report: Report) -> None:
    """Apply the changes in their order, and report each.

    Raises Blocked for an object that got another owner after the plan.
    """
    for change in changes:
        refuse_foreign(change.payload.owner, cluster.get(change.payload.ref))
        if isinstance(change.payload, Delete):
            cluster.delete(change.payload.ref, change.payload.uid)
        else:
            cluster.apply(change.payload.manifest)
        report.changed(change)


def _observe_once(cluster: Cluster, wanted: Manifest) -> ObjectObservation:
    live = cluster.get(Ref.of(wanted))
    untouchable = live is not None and (being_deleted(live) or not Owner.of(wanted).owns(live))
    return ObjectObservation(wanted, live, None if untouchable else cluster.preview(wanted))


def _revision(manifest: Manifest | None) -> str:
    return str((manifest or {}).get("metadata", {}).get("resourceVersion", ""))


def _plan_one(item: ObjectObservation) -> Plan:
    target = str(item.ref)
    if item.live is not None and being_deleted(item.live):
        return Plan(waiting=(f"{target} to be gone: {_held_by(item.live)}",))
    foreign = foreign_owner(Owner.of(item.wanted), item.live)
    if foreign or item.preview is None:
        return Plan(failed=(foreign,))
    if item.live is None:
        after = presentable(item.preview)
        return Plan((Change("create", target, "absent", Apply(item.wanted), after=after),))
    found = differences(item.live, item.preview)
    if not found:
        return Plan(ok=(target,))
    change = Change(
        "update",
        target,
        reason(found),
        Apply(item.wanted),
        before=presentable(item.live),
        after=presentable(item.preview, than=item.live),
        last_writer=last_writer(item.live, [difference.steps for difference in found]),
    )
    return Plan((change,))


def _held_by(live: Manifest | None) -> str:
    finalizers = (live or {}).get("metadata", {}).get("finalizers") or []
    return f"it is being deleted, held by {', '.join(finalizers)}" if finalizers else "it is being deleted"
