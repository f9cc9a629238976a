"""promote-release: the traffic to the proved release, the record of it, and the old release retired; in this order.

Traffic and record change only for the release that the smoke test of this run proved, while it is ready.

A crash between any two leaves a state that the next observation repairs: traffic on a release that is not recorded
yet, or a recorded release beside an old one. The old release is never gone while the traffic could still go to it.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from steps.document.overrides import InForce
from steps.document.schema import ModelService
from steps.kinds import CONFIG_MAP, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, Manifest, Ref
from steps.objects import group_operator, record, services
from steps.objects.converging import Apply, ObjectObservation, apply_changes, observe_object, plan_objects
from steps.objects.group_operator import GroupOperator
from steps.objects.record import Entry, Record
from steps.ports.kubernetes import Cluster
from steps.reconcile.clock import Clock, SystemClock
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.release import Release
from steps.rollout.garbage import NO_RELEASE, deletions, groups_and_services, owned, superseded, superseded_volumes
from steps.rollout.observation import GroupObservation, observe_group, wanted_group
from steps.rollout.readiness import gate

DEADLINE = 600.0  # seconds; the release was proved a moment ago, so there is little to wait for


@dataclass(frozen=True)
class Facts:
    operator: GroupOperator | None
    wanted: Manifest = field(default_factory=dict)  # the group that is promoted
    group: GroupObservation = field(default_factory=lambda: GroupObservation(None))
    record: Record = field(default_factory=Record)
    looks: tuple[ObjectObservation, ...] = ()  # traffic Service and record as wanted
    groups_and_services: tuple[Manifest, ...] = ()
    volumes: tuple[Manifest, ...] = ()
    proved: str = ""  # id of the release that smoke-test proved in this run


@dataclass(frozen=True)
class Recording(Apply):
    """Payload of the change of the record. Two of one step are the same change, although their counters differ."""

    manifest: Manifest = field(repr=False, compare=False)


@dataclass(frozen=True)
class Outputs:
    endpoint: str
    release: str
    previous: str


@dataclass(frozen=True)
class PromoteRelease:
    release: Release
    cluster: Cluster
    clock: Clock = field(default_factory=SystemClock, compare=False, repr=False)
    proved: str = ""  # id of the release that smoke-test proved in this run
    run: str = ""  # that promotes, by the name under which it holds the Lease of the writer
    overrides: tuple[InForce, ...] = ()  # of this release, for later runs to inherit
    document: str = ""  # fingerprint of the document without them

    @property
    def deadline(self) -> float:
        return DEADLINE

    def observe(self, _past: Past[Facts]) -> Facts:
        operator = group_operator.ask(self.cluster)
        if operator is None:
            return Facts(None)
        service = self.release.service
        wanted = wanted_group(self.cluster, self.release, operator)
        found = record.read(self.cluster.get(record.record_ref(service)))
        return Facts(
            operator,
            wanted,
            observe_group(self.cluster, wanted),
            found,
            self._looks(wanted, found),
            groups_and_services(self.cluster, service, operator.kind),
            tuple(
                volume
                for kind in (PERSISTENT_VOLUME_CLAIM, PERSISTENT_VOLUME)
                for volume in owned(self.cluster, kind, service)
            ),
            self.proved,
        )

    def plan(self, facts: Facts) -> Plan:
        return plan(self.release, facts)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        moment = datetime.fromtimestamp(self.clock.time(), UTC).isoformat(timespec="seconds")
        live = self.cluster.get(record.record_ref(self.release.service))
        apply_changes(self.cluster, [_stamped(change, moment, live) for change in changes], report)

    def outputs(self, facts: Facts) -> Outputs:
        previous = facts.record.previous
        return Outputs(
            endpoint=endpoint(self.release.service),
            release=self.release.id,
            previous=previous.release if previous else "",
        )

    def _looks(self, wanted: Manifest, found: Record) -> tuple[ObjectObservation, ...]:
        traffic = services.traffic_service(self.release)
        entry = Entry.of(self.release, [wanted, services.release_service(self.release), traffic])
        after = record.promoted(found, entry, self.run, self.overrides, self.document)
        content = record.record(self.release.service, after)
        return tuple(observe_object(self.cluster, manifest) for manifest in (traffic, content))


def plan(release: Release, facts: Facts) -> Plan:
    if facts.operator is None:
        return Plan(failed=(group_operator.ABSENT,))
    objects = plan_objects(facts.looks)
    if objects.failed:
        return Plan(failed=objects.failed)
    if facts.group.group is None:
        fault = f"{Ref.of(facts.wanted)} does not exist, so it cannot be promoted; roll-out-service makes it"
        return Plan(failed=(f"{fault}. Next: {NO_RELEASE}",))
    objects = plan_objects(facts.looks)
    if objects.changes and facts.proved != release.id:
        return Plan(failed=(_unproved(release, facts.proved),))
    ready = gate(facts.wanted, facts.group)
    if not ready.converged:
        return ready
    changes = tuple(_recording(change, facts.record) for change in objects.changes)
    return ready + replace(objects, changes=changes) + Plan(retired(release, facts))


def _unproved(release: Release, proved: str) -> str:
    return (
        f"release {release.id} was not proved in this run: --proved-release is {proved or 'absent'}, expected "
        f"{release.id}, and neither traffic nor record move to another one. Next: run smoke-test, and hand its output "
        "proved-release to this step"
    )


def retired(release: Release, facts: Facts) -> tuple[Change, ...]:
    """Groups and Services of every other release, and volumes that no recorded release needs.

    The volume of the release before this one stays: going back to it then moves no byte.
    """
    service = release.service
    keep = {release.volume_name, *_next_record(release, facts).volumes}
    return deletions(
        superseded(facts.groups_and_services, service, {release.id}), f"superseded by {release.group}"
    ) + deletions(
        superseded_volumes(facts.volumes, service, keep), "neither the current nor the previous release needs it"
    )


def endpoint(service: ModelService) -> str:
    """Where clients inside the cluster reach the model, as an OpenAI client's base URL."""
    return f"http://{service.endpoint.service}.{service.namespace}.svc:{service.endpoint.port}/v1"


def _recording(change: Change, found: Record) -> Change:
    if change.payload.manifest["kind"] != CONFIG_MAP.kind:
        return change
    return replace(change, reason=found.broken or change.reason, payload=Recording(change.payload.manifest))


def _stamped(change: Change, moment: str, live: Manifest | None) -> Change:
    if not isinstance(change.payload, Recording):
        return change
    return replace(change, payload=Recording(record.stamped(change.payload.manifest, moment, live)))


def _next_record(release: Release, facts: Facts) -> Record:
    entry = Entry.of(release, [])
    if facts.record.current and facts.record.current.release == entry.release:
        return facts.record
    return record.promoted(facts.record, entry)
