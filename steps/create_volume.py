"""create-volume: Secret, PersistentVolume and claim over the files of one model revision, bound to each other.

A claim is Bound with any folder, also an empty one, so the manifest of the revision is read first.
"""

from collections.abc import Callable
from dataclasses import dataclass

from steps.kinds import Manifest
from steps.objects import volume
from steps.objects.converging import (
    ObjectObservation,
    apply_changes,
    deletion,
    foreign_objects,
    observe_object,
    plan_objects,
)
from steps.ports.kubernetes import Cluster
from steps.ports.oss import AccessKey
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.release import Release
from steps.transfer import plans
from steps.transfer.manifest import ModelManifest


@dataclass(frozen=True)
class Facts:
    volume: Manifest | None
    claim: Manifest | None
    looks: tuple[
        ObjectObservation, ...
    ]  # empty if the objects contradict the document; the server would refuse a preview
    stored: bool = True  # the bucket holds the revision; if not, no other object was read
    foreign: tuple[str, ...] = ()  # objects of these names that belong to another owner


@dataclass(frozen=True)
class Outputs:
    claim: str
    volume: str


@dataclass(frozen=True)
class CreateVolume:
    release: Release
    cluster: Cluster
    access_key: AccessKey | None  # None with RRSA: the driver has a role of its own
    manifest: Callable[[], ModelManifest | None]  # reads the one of the release in the bucket

    @property
    def deadline(self) -> float:
        return self.release.service.volume.deadline_minutes * 60.0

    def observe(self, _past: Past[Facts]) -> Facts:
        if self.manifest() is None:
            return Facts(None, None, (), stored=False)
        live_volume = self.cluster.get(volume.volume_ref(self.release))
        live_claim = self.cluster.get(volume.claim_ref(self.release))
        foreign = foreign_objects(self.cluster, self._wanted(live_claim))
        if foreign or volume.conflicts(self.release, live_claim) or volume.stale(self.release, live_volume):
            return Facts(live_volume, live_claim, (), foreign=foreign)
        return Facts(
            live_volume, live_claim, tuple(observe_object(self.cluster, wanted) for wanted in self._wanted(live_claim))
        )

    def plan(self, facts: Facts) -> Plan:
        return plan(self.release, facts)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        apply_changes(self.cluster, changes, report)

    def outputs(self, facts: Facts) -> Outputs:
        claim = facts.claim or {}
        return Outputs(
            claim=f"{claim['metadata']['namespace']}/{claim['metadata']['name']}", volume=claim["spec"]["volumeName"]
        )

    def _wanted(self, live_claim: Manifest | None) -> list[Manifest]:
        size = volume.capacity(self.release, live_claim)
        secrets = [volume.secret(self.release, self.access_key)] if self.access_key else []
        return [*secrets, volume.persistent_volume(self.release, size), volume.claim(self.release, size)]


def plan(release: Release, facts: Facts) -> Plan:
    if not facts.stored:
        return plans.not_stored(release)
    faults = facts.foreign or tuple(volume.conflicts(release, facts.claim))
    if faults:
        return Plan(failed=faults)
    stale = volume.stale(release, facts.volume)
    if stale and facts.volume is not None:
        return Plan((deletion(facts.volume, stale),), waiting=("then volume and claim are made anew",))
    return plan_objects(facts.looks) + volume.binding(release, facts.volume, facts.claim)
