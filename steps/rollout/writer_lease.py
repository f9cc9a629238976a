"""One writer of a service at a time: a run acquires a Lease before it changes the service.

Argo's mutex covers the runs of one controller, but neither a laptop nor another controller. So the Lease lies beside
the service (docs/decisions/0005-one-writer.md).
https://kubernetes.io/docs/concepts/architecture/leases/
"""

import logging
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar

from steps.document.schema import ModelService
from steps.kinds import LEASE, Manifest, Ref
from steps.objects import record
from steps.objects.metadata import owned_metadata
from steps.objects.ownership import foreign_owner, owner
from steps.ports.kubernetes import Locks
from steps.reconcile.clock import Clock
from steps.reconcile.converge import Past, Step
from steps.reconcile.plan import Action, Change, Plan
from steps.reconcile.report import Report
from steps.release import GPU_LEASE, writer_lease_name
from steps.rollout import lease_holder
from steps.rollout.intent import Intent

log = logging.getLogger(__name__)

Facts = TypeVar("Facts")


@dataclass(frozen=True)
class Writer:
    """A run as the holder of the Lease."""

    name: str  # of the run; every step of it, and every retry, is the same writer
    seconds: int  # without a renewal, after which another writer may take over
    stays: bool  # kept at the end of the step, for later steps of the run
    stays_with_faults: bool = False  # kept after a fault as well: it shows the exit handler that the run wrote


@dataclass(frozen=True)
class Swap:
    """Payload of a change of the Lease."""

    manifest: Manifest


@dataclass(frozen=True)
class WriterLease:
    """The Lease of one service, for one writer."""

    service: ModelService
    locks: Locks
    writer: Writer
    clock: Clock

    does: ClassVar[str] = "changes this service"  # activity of its holder, for the message of a wait
    for_waits: ClassVar[bool] = False  # also held while the step waits without changes

    @property
    def ref(self) -> Ref:
        return Ref(LEASE, writer_lease_name(self.service), self.service.namespace)

    def observe(self, past: "LeaseObservation | None" = None) -> "LeaseObservation":
        """`past` spares the query of our own Workflow: a run that has ended does not begin again during its steps."""
        own = past.own if past else self._own_workflow()
        found = LeaseObservation(self.locks.get(self.ref), self.clock.time(), self.does, own)
        if found.holder in ("", self.writer.name):
            return found
        return replace(found, ended=lease_holder.ended(self.locks, found.live, self.service.workflow.namespace))

    def other_writer(self) -> str:
        """The other current writer, as a sentence for people; empty without one."""
        return self.observe().held_by_other(self.writer)

    def wrote(self) -> bool:
        """Whether this writer acquired the Lease last and has not released it, expired or not."""
        return self.observe().last_holder == self.writer.name

    def acquired(self, observed: "LeaseObservation") -> Manifest:
        """The Lease as held by this writer from now on."""
        spec, now = observed.spec, _moment(observed.now)
        again = observed.last_holder == self.writer.name
        return self._with(
            observed,
            {
                "holderIdentity": self.writer.name,
                "leaseDurationSeconds": self.writer.seconds,
                "acquireTime": spec.get("acquireTime", now) if again else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (not again),
            },
            observed.own,
        )

    def released(self, observed: "LeaseObservation") -> Manifest:
        return self._with(observed, {"leaseTransitions": observed.spec.get("leaseTransitions", 0)}, {})

    def foreign(self, observed: "LeaseObservation") -> str:
        """Why a run of this service may not acquire the Lease of this name; empty if it may."""
        return foreign_owner(owner(self.service), observed.live)

    def metadata(self) -> dict[str, Any]:
        return owned_metadata(self.service, self.ref.name, self.ref.namespace)

    def _own_workflow(self) -> dict[str, str]:
        return lease_holder.workflow_note(self.locks, self.writer.name, self.service.workflow.namespace)

    def _with(self, observed: "LeaseObservation", spec: dict[str, Any], note: dict[str, str]) -> Manifest:
        metadata = self.metadata()
        metadata |= {"annotations": {**metadata.get("annotations", {}), **note}} if note else {}
        if observed.live is not None:
            # Replaces this version and no later one. With the uid, a PUT of a deleted Lease does not create it again.
            metadata |= {key: observed.live["metadata"][key] for key in ("uid", "resourceVersion")}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}


class GpuLease(WriterLease):
    """The Lease that all services of a workflow namespace share, for the one run that takes GPUs.

    Without it, services that start in the same minute count the same free GPUs, and each gets some of its pods.
    """

    does = "takes GPUs"
    for_waits = True  # until the pods are ready: a retried step finds its group created, and waits

    @property
    def ref(self) -> Ref:
        return Ref(LEASE, GPU_LEASE, self.service.workflow.namespace)

    def foreign(self, observed: "LeaseObservation") -> str:  # noqa: ARG002  # it belongs to no service alone
        return ""

    def metadata(self) -> dict[str, Any]:
        return {"name": self.ref.name, "namespace": self.ref.namespace}


@dataclass(frozen=True)
class LeaseObservation:
    """The Lease at one moment."""

    live: Manifest | None
    now: float  # seconds since 1970
    does: str
    own: dict[str, str] = field(default_factory=dict)  # annotations that name the Workflow of the observer
    ended: str = ""  # the end of its holder, before the Lease expires

    @property
    def spec(self) -> dict[str, Any]:
        found: dict[str, Any] = (self.live or {}).get("spec") or {}
        return found

    @property
    def last_holder(self) -> str:
        """The last holder, expired or not; empty once the Lease was released."""
        return str(self.spec.get("holderIdentity") or "")

    @property
    def holder(self) -> str:
        """The current holder; empty if the last one did not renew the Lease in time, or if its Workflow has ended."""
        return self.last_holder if self.now < self._renewed + self._seconds and not self.ended else ""

    @property
    def renewal_due(self) -> bool:
        """Half of the time has passed. Renewed then, it never expires in use, although clocks differ by minutes."""
        return self.now >= self._renewed + self._seconds / 2

    def held_by_other(self, writer: Writer) -> str:
        """The other holder, as a sentence for people; empty if `writer` may acquire the Lease."""
        if self.holder in ("", writer.name):
            return ""
        name, namespace = self.live["metadata"]["name"], self.live["metadata"]["namespace"]  # type: ignore[index]  # a holder has a Lease
        since = str(self.spec.get("acquireTime", "an unknown time")).partition(".")[0]
        return (
            f"{self.holder} {self.does} since {since} UTC (Lease {namespace}/{name}), until it ends or does not "
            f"renew the Lease for {self._seconds / 60:g} minutes. Next: if it is dead, "
            f"kubectl delete lease {name} -n {namespace}"
        )

    @property
    def _renewed(self) -> float:
        found = self.spec.get("renewTime")
        return datetime.fromisoformat(found).timestamp() if found else 0.0

    @property
    def _seconds(self) -> int:
        return int(self.spec.get("leaseDurationSeconds") or 0)


@dataclass(frozen=True)
class GuardedFacts(Generic[Facts]):
    lease: LeaseObservation
    overtaken: str  # the other run that has promoted a release since this one started; empty without one
    inner: Facts


@dataclass(frozen=True)
class Guarded(Generic[Facts]):
    """A step that changes the service only while it is the one writer and no newer run has promoted a release.

    It observes without the Lease.
    """

    step: Step[Facts]
    lease: WriterLease
    intent: Intent

    @property
    def deadline(self) -> float:
        return self.step.deadline

    def observe(self, past: Past[GuardedFacts[Facts]]) -> GuardedFacts[Facts]:
        before = past.facts
        lease = self.lease.observe(before.lease if before else None)  # first: the step observes while the Lease is held
        inner = Past(before.inner if before else None, past.done)
        return GuardedFacts(lease, self._overtaken(), self.step.observe(inner))

    def plan(self, facts: GuardedFacts[Facts]) -> Plan:
        inner = self.step.plan(facts.inner)
        if facts.overtaken and (inner.changes or inner.failed):
            return self._refused(facts, inner)
        foreign = self.lease.foreign(facts.lease)
        if foreign:
            return Plan(ok=inner.ok, failed=(foreign,)) if inner.changes else inner
        if facts.lease.last_holder == self.lease.writer.name:  # expired, it is renewed first
            return self._as_holder(facts.lease, inner)
        if not inner.changes and not (inner.waiting and self.lease.for_waits):
            return inner  # a run without changes leaves no trace, and waits for no other run
        other = facts.lease.held_by_other(self.lease.writer)
        if not other:
            # The step observes and plans again before it acts: until now, another run may have written.
            return Plan((self._swap(facts.lease, self.lease.acquired(facts.lease)),))
        return Plan(ok=inner.ok, waiting=(other,))

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        if not isinstance(changes[0].payload, Swap):
            self.step.apply(changes, report)
            return
        manifest = changes[0].payload.manifest
        done = self.lease.locks.swap(manifest)
        log.debug(
            "%s: %s", changes[0], "done" if done else "another writer was faster"
        )  # the next observation shows it

    def outputs(self, facts: GuardedFacts[Facts]) -> Any:
        return self.step.outputs(facts.inner)

    def _overtaken(self) -> str:
        """Read after the Lease: the record does not change while this run holds it."""
        if self.intent.counter is None:
            return ""
        return self.intent.overtaken(record.read(self.lease.locks.get(record.record_ref(self.lease.service))))

    def _refused(self, facts: GuardedFacts[Facts], inner: Plan) -> Plan:
        if facts.lease.holder == self.lease.writer.name:
            return Plan((self._swap(facts.lease, self.lease.released(facts.lease)),))
        return Plan(ok=inner.ok, failed=(facts.overtaken, *inner.failed))

    def _as_holder(self, lease: LeaseObservation, inner: Plan) -> Plan:
        done = not inner.changes and not inner.waiting
        stays = self.lease.writer.stays or (inner.failed and self.lease.writer.stays_with_faults)
        if done and not stays:
            return Plan((self._swap(lease, self.lease.released(lease)),))
        if not done and lease.renewal_due:
            return Plan((self._swap(lease, self.lease.acquired(lease)),))
        return inner

    def _swap(self, lease: LeaseObservation, manifest: Manifest) -> Change:
        reason = f"held by {manifest['spec'].get('holderIdentity', 'no run')}"
        reason += f", taken over from {lease.last_holder}: {lease.ended}" if lease.ended else ""
        action: Action = "create" if lease.live is None else "update"
        return Change(action, str(self.lease.ref), reason, Swap(manifest))


def _moment(seconds: float) -> str:
    """Seconds since 1970 as a MicroTime of Kubernetes."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
