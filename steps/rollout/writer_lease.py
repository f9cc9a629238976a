"""One writer of a service at a time, whoever started it: a Lease that the run that changes the service holds.

Argo's mutex knows the runs of one controller. A laptop and another controller know nothing of it, so steps take a Lease
beside the service before they change it. docs/decisions/0005-one-writer.md says why it is as it is.
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
from steps.reconcile.converge import Step
from steps.reconcile.plan import Action, Change, Plan
from steps.reconcile.report import Report
from steps.release import GPU_LEASE, writer_lease_name
from steps.rollout import lease_holder
from steps.rollout.intent import Intent

log = logging.getLogger(__name__)

Facts = TypeVar("Facts")


@dataclass(frozen=True)
class Writer:
    """Who wants to write."""

    name: str  # of the run; every step of it, and every retry, is the same writer
    seconds: int  # after so long without a renewal, somebody else may take over
    stays: bool  # other steps of the run come after this one, so the Lease is kept for them
    stays_with_faults: bool = False  # kept after a fault, too: it tells the exit handler that the run wrote


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
    _own: list[dict[str, str]] = field(default_factory=list, init=False, compare=False, repr=False)

    does: ClassVar[str] = "changes this service"  # what its holder does, in the words of a wait
    for_waits: ClassVar[bool] = False  # it is held too while the step has nothing to change and waits

    @property
    def ref(self) -> Ref:
        return Ref(LEASE, writer_lease_name(self.service), self.service.namespace)

    def observe(self) -> "LeaseObservation":
        found = LeaseObservation(self.locks.get(self.ref), self.clock.time(), self.does, self._own_workflow())
        if found.holder in ("", self.writer.name):
            return found
        return replace(found, over=lease_holder.over(self.locks, found.live, self.service.workflow.namespace))

    def other_writer(self) -> str:
        """Who else writes now, in words for people; empty if nobody does."""
        return self.observe().taken_from(self.writer)

    def wrote(self) -> bool:
        """Whether our writer was the last one to take the Lease and has not given it back, also if its time is over."""
        return self.observe().last_holder == self.writer.name

    def taken(self, observed: "LeaseObservation") -> Manifest:
        """The Lease in our hands, from now on."""
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

    def given_back(self, observed: "LeaseObservation") -> Manifest:
        return self._with(observed, {"leaseTransitions": observed.spec.get("leaseTransitions", 0)}, {})

    def foreign(self, observed: "LeaseObservation") -> str:
        """Why a Lease of this name may not be taken by a run of this service; empty if it may."""
        return foreign_owner(owner(self.service), observed.live)

    def metadata(self) -> dict[str, Any]:
        return owned_metadata(self.service, self.ref.name, self.ref.namespace)

    def _own_workflow(self) -> dict[str, str]:
        """Asked once: a run that has ended does not begin again while one of its steps is at work."""
        if not self._own:
            self._own.append(lease_holder.workflow_note(self.locks, self.writer.name, self.service.workflow.namespace))
        return self._own[0]

    def _with(self, observed: "LeaseObservation", spec: dict[str, Any], note: dict[str, str]) -> Manifest:
        metadata = self.metadata()
        metadata |= {"annotations": {**metadata.get("annotations", {}), **note}} if note else {}
        if observed.live is not None:
            # Replaces this very version and no later one. With the uid, a PUT of a deleted Lease does not make it anew.
            metadata |= {key: observed.live["metadata"][key] for key in ("uid", "resourceVersion")}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}


class GpuLease(WriterLease):
    """The Lease that all services of a workflow namespace share, for the one run that takes GPUs.

    Without it, services that start in the same minute count the same free GPUs, and each gets some of its pods.
    """

    does = "takes GPUs"
    for_waits = True  # until the pods are ready: a step that is tried again finds its group made, and waits

    @property
    def ref(self) -> Ref:
        return Ref(LEASE, GPU_LEASE, self.service.workflow.namespace)

    def foreign(self, observed: "LeaseObservation") -> str:  # noqa: ARG002  # it belongs to no service alone
        return ""

    def metadata(self) -> dict[str, Any]:
        return {"name": self.ref.name, "namespace": self.ref.namespace}


@dataclass(frozen=True)
class LeaseObservation:
    """The Lease as it was at a moment."""

    live: Manifest | None
    now: float  # seconds since 1970
    does: str
    own: dict[str, str] = field(default_factory=dict)  # annotations that name the Workflow of who looks
    over: str = ""  # why its holder is at work no more, although its time is not over

    @property
    def spec(self) -> dict[str, Any]:
        found: dict[str, Any] = (self.live or {}).get("spec") or {}
        return found

    @property
    def last_holder(self) -> str:
        """Who took it last, in time or not; empty once it was given back."""
        return str(self.spec.get("holderIdentity") or "")

    @property
    def holder(self) -> str:
        """Empty if no one holds it: its last holder did not renew it in time, or its Workflow has ended."""
        return self.last_holder if self.now < self._renewed + self._seconds and not self.over else ""

    @property
    def renewal_due(self) -> bool:
        """Half of its time is over. Renewed then, it never ends under its holder, although clocks differ by minutes."""
        return self.now >= self._renewed + self._seconds / 2

    def taken_from(self, writer: Writer) -> str:
        """Who else holds it, in words for people; empty if it can be had."""
        if self.holder in ("", writer.name):
            return ""
        name, namespace = self.live["metadata"]["name"], self.live["metadata"]["namespace"]  # type: ignore[index]  # a holder has a Lease
        since = str(self.spec.get("acquireTime", "an unknown time")).partition(".")[0]
        return (
            f"{self.holder} {self.does} since {since} UTC (Lease {namespace}/{name}), until it ends or shows "
            f"no sign of life for {self._seconds / 60:g} minutes. If it is dead: "
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
    overtaken: str  # which other run promoted a release after this one began; empty if none did
    inner: Facts


@dataclass(frozen=True)
class Guarded(Generic[Facts]):
    """A step that changes the service only while it is the one writer, and while no other run overtook its own.

    What it reads, it reads without the Lease.
    """

    step: Step[Facts]
    lease: WriterLease
    intent: Intent

    @property
    def deadline(self) -> float:
        return self.step.deadline

    def observe(self) -> GuardedFacts[Facts]:
        lease = self.lease.observe()  # first, so that what the step saw was seen while the Lease was held
        return GuardedFacts(lease, self._overtaken(), self.step.observe())

    def plan(self, facts: GuardedFacts[Facts]) -> Plan:
        inner = self.step.plan(facts.inner)
        if facts.overtaken and (inner.changes or inner.failed):
            return self._refused(facts, inner)
        foreign = self.lease.foreign(facts.lease)
        if foreign:
            return Plan(ok=inner.ok, failed=(foreign,)) if inner.changes else inner
        if facts.lease.last_holder == self.lease.writer.name:  # out of time, it is renewed before anything else
            return self._as_holder(facts.lease, inner)
        if not inner.changes and not (inner.waiting and self.lease.for_waits):
            return inner  # a run that finds everything as wanted leaves no trace, and waits for nobody
        other = facts.lease.taken_from(self.lease.writer)
        if not other:
            # The step looks and plans again before it acts: until now, somebody else may have written.
            return Plan((self._swap(facts.lease, self.lease.taken(facts.lease)),))
        return Plan(ok=inner.ok, waiting=(other,))

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        if not isinstance(changes[0].payload, Swap):
            self.step.apply(changes, report)
            return
        manifest = changes[0].payload.manifest
        done = self.lease.locks.swap(manifest)
        # Who was too late sees at the next look who was quicker.
        log.debug("%s: %s", changes[0], "done" if done else "somebody else was quicker")

    def outputs(self, facts: GuardedFacts[Facts]) -> Any:
        return self.step.outputs(facts.inner)

    def _overtaken(self) -> str:
        """Read after the Lease: while that is held, the answer stays."""
        if self.intent.counter is None:
            return ""
        return self.intent.overtaken(record.read(self.lease.locks.get(record.record_ref(self.lease.service))))

    def _refused(self, facts: GuardedFacts[Facts], inner: Plan) -> Plan:
        if facts.lease.holder == self.lease.writer.name:
            return Plan((self._swap(facts.lease, self.lease.given_back(facts.lease)),))
        return Plan(ok=inner.ok, failed=(facts.overtaken, *inner.failed))

    def _as_holder(self, lease: LeaseObservation, inner: Plan) -> Plan:
        over = not inner.changes and not inner.waiting
        stays = self.lease.writer.stays or (inner.failed and self.lease.writer.stays_with_faults)
        if over and not stays:
            return Plan((self._swap(lease, self.lease.given_back(lease)),))
        if not over and lease.renewal_due:
            return Plan((self._swap(lease, self.lease.taken(lease)),))
        return inner

    def _swap(self, lease: LeaseObservation, manifest: Manifest) -> Change:
        reason = f"held by {manifest['spec'].get('holderIdentity', 'nobody')}"
        reason += f", taken over from {lease.last_holder}: {lease.over}" if lease.over else ""
        action: Action = "create" if lease.live is None else "update"
        return Change(action, str(self.lease.ref), reason, Swap(manifest))


def _moment(seconds: float) -> str:
    """MicroTime of Kubernetes."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
