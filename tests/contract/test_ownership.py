"""What belongs to another service is not written: by no step, at no time, whatever name it has."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steps.errors import Blocked
from steps.kinds import LEASE, POD, V1ALPHA1, Kind, Manifest, Ref
from steps.objects import record, services, volume
from steps.objects.ownership import Owner, foreign_owner
from steps.reconcile.converge import Step
from steps.release import Release, writer_lease_name
from steps.report.run_end import RunEnd
from steps.roll_back import RollBack
from steps.rollout.intent import Intent
from steps.rollout.writer_lease import Guarded, Writer, WriterLease
from tests.support.fakes import RecordingReport
from tests.support.group_objects import group_of
from tests.support.live_cluster import LiveCluster, live_cluster
from tests.support.samples import release
from workflows.simulator.core.cluster.controllers.timing import FAST

OLD, NEW = (release("serving.prefill.replicas=1", digest="sha256:" + digit * 64) for digit in "12")
RECREATE = release("serving.prefill.replicas=1", "rollout.strategy=Recreate", digest=NEW.model_digest)
SERVICE = OLD.service
INTENT = Intent("nightly-7", None)
TRAFFIC = services.traffic_service_ref(SERVICE)
RECORD = record.record_ref(SERVICE)
GROUP_KIND = Kind(V1ALPHA1, "RoleBasedGroup")
LEASE_REF = Ref(LEASE, writer_lease_name(SERVICE), SERVICE.namespace)


def group(of: Release) -> Ref:
    return Ref(GROUP_KIND, of.group, "default")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveCluster]:
    with live_cluster(tmp_path, timing=replace(FAST, flap=0.0)) as found:
        yield found


def nothing(_live: LiveCluster) -> None:
    """No step went before."""


def served(live: LiveCluster) -> None:
    live.serve(OLD)


def candidate(live: LiveCluster) -> None:
    served(live)
    live.run(live.volume(NEW))
    live.run(live.rollout(NEW))


def gone(live: LiveCluster) -> None:
    """The recorded group is not there, and the traffic leads nowhere, so all of the release is to be put back."""
    served(live)
    found = live.port.get(group(OLD))
    assert found is not None
    live.port.delete(group(OLD), found["metadata"]["uid"])
    live.patch(TRAFFIC, {"spec": {"selector": {"slipway/release": "astray"}}})
    live.patch(services.release_service_ref(OLD), {"spec": {"selector": {"slipway/role": "decode"}}})


Make = Callable[[LiveCluster], Step[Any]]
Case = tuple[Callable[[LiveCluster], None], Make, Ref]
VOLUME: Make = lambda live: live.volume(NEW)  # noqa: E731  # the table names it three times
ROLL_OUT: Make = lambda live: live.rollout(NEW)  # noqa: E731
PROMOTE: Make = lambda live: live.promotion(NEW)  # noqa: E731
BACK: Make = lambda live: live.way_back("smoke-test", of=SERVICE)  # noqa: E731
CASES: dict[str, Case] = {
    "create-volume, Secret": (nothing, VOLUME, Ref(Kind("v1", "Secret"), NEW.volume_secret, "default")),
    "create-volume, volume": (nothing, VOLUME, volume.volume_ref(NEW)),
    "create-volume, claim": (nothing, VOLUME, volume.claim_ref(NEW)),
    "roll-out-service, group": (served, ROLL_OUT, group(NEW)),
    "roll-out-service, Service": (served, ROLL_OUT, services.release_service_ref(NEW)),
    "roll-out-service, traffic": (served, ROLL_OUT, TRAFFIC),
    "roll-out-service, record": (served, ROLL_OUT, RECORD),
    "roll-out-service, Recreate": (served, lambda live: live.rollout(RECREATE), TRAFFIC),
    "promote-release, traffic": (candidate, PROMOTE, TRAFFIC),
    "promote-release, record": (candidate, PROMOTE, RECORD),
    "roll-back, Service": (gone, BACK, services.release_service_ref(OLD)),
    "roll-back, traffic": (gone, BACK, TRAFFIC),
    "roll-back, record": (candidate, BACK, RECORD),
    "the Lease of a writer": (nothing, VOLUME, LEASE_REF),
}
WANTED: dict[str, Manifest] = {
    "Secret": {"data": {"theirs": "dA=="}},
    "PersistentVolume": {
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadOnlyMany"],
            "csi": {"driver": "theirs", "volumeHandle": "theirs"},
        }
    },
    "PersistentVolumeClaim": {"spec": {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}}},
    "Service": {"spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}},
    "Lease": {"spec": {}},
}


def hand_over(live: LiveCluster, ref: Ref, to: str | None) -> None:
    """`kubectl label` by a person; what is not there yet, somebody else has made."""
    found = live.port.get(ref)
    if found is None and ref.kind == GROUP_KIND:
        live.port.apply(group_of(NEW))
    elif found is None:
        metadata = {"name": ref.name, **({"namespace": ref.namespace} if ref.namespace else {})}
        live.port.apply(
            {"apiVersion": ref.kind.api_version, "kind": ref.kind.kind, "metadata": metadata, **WANTED[ref.kind.kind]}
        )
    live.patch(ref, {"metadata": {"labels": {"slipway/service": to}}})


def guarded(live: LiveCluster, step: Step[Any]) -> Step[Any]:
    locks: Any = live.port
    return Guarded(step, WriterLease(SERVICE, locks, Writer("nightly-7", 3600, stays=True), live.clock), INTENT)


@pytest.mark.parametrize("name", CASES)
def test_an_object_of_another_owner_stops_the_step_before_it_writes(live: LiveCluster, name: str) -> None:
    prepare, make, ref = CASES[name]
    prepare(live)
    for owner, words in (("chat", "it belongs to chat"), (None, "it was not made by Slipway")):
        hand_over(live, ref, owner)
        before = live.objects()
        with pytest.raises(Blocked, match=f"{ref} exists and {words}: .* Next: choose another name .* hand it over"):
            live.run(guarded(live, make(live)))
        assert live.objects() == before
        assert live.port.get(LEASE_REF) is None or ref == LEASE_REF  # not even the Lease was taken


def test_a_volume_of_a_namesake_in_another_namespace_is_not_ours() -> None:
    made = volume.persistent_volume(NEW, "1Ti")
    theirs = {**made, "spec": {**made["spec"], "claimRef": {"namespace": "staging", "name": "a"}}}
    free = {**made, "spec": {key: made["spec"][key] for key in made["spec"] if key != "claimRef"}}
    words = "belongs to qwen3-32b in namespace staging, expected default. Next: choose another name in the document"
    assert words in foreign_owner(Owner.of(made), theirs)
    assert foreign_owner(Owner.of(made), free) == ""  # its name holds the namespace


class HandedOver:
    """The port, behind which somebody hands an object over as soon as it was looked at."""

    def __init__(self, live: LiveCluster, ref: Ref) -> None:
        self._port = live.port
        self._live = live
        self._ref = ref
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def preview(self, wanted: Manifest) -> Manifest:
        found = self._port.preview(wanted)
        if Ref.of(wanted) == self._ref:
            hand_over(LiveCluster(self._live.embedded, self._port, self._live.bucket), self._ref, "chat")
        return found


def test_what_is_handed_over_between_look_and_write_is_not_written(live: LiveCluster) -> None:
    candidate(live)
    live.port = HandedOver(live, TRAFFIC)
    with pytest.raises(Blocked, match="Service/default/sglang-pd exists and it belongs to chat"):
        live.run(live.promotion(NEW))
    assert services.serving_release(live.port.get(TRAFFIC)) == OLD.id


# A service `demo` that was renamed to `chat`, with the Service that clients use handed over by the printed command.
DEMO, CHAT = (release(f"metadata.name={name}", "serving.prefill.replicas=1") for name in ("demo", "chat"))
DEMO_NEXT = release("metadata.name=demo", "serving.prefill.replicas=1", digest=NEW.model_digest)


def renamed(live: LiveCluster, *, demo_is_gone: bool) -> None:
    live.serve(DEMO)
    live.patch(TRAFFIC, {"metadata": {"labels": {"slipway/service": "chat"}}})
    live.serve(CHAT)
    if demo_is_gone:
        found = live.port.get(group(DEMO))
        assert found is not None
        live.port.delete(group(DEMO), found["metadata"]["uid"])
        live.settle(lambda: not live.port.select(POD, "default", {"slipway/service": "demo"}))


def lease_of_demo(live: LiveCluster, *, stays: bool) -> WriterLease:
    locks: Any = live.port
    return WriterLease(DEMO.service, locks, Writer("demo-1", 3600, stays), live.clock)


def end_of_demo(live: LiveCluster, after: str) -> Step[Any]:
    """As `steps.wiring` builds it."""
    lease = lease_of_demo(live, stays=False)
    step = replace(live.way_back(after, "demo-1", DEMO.service), wrote=lease.wrote, other_writer=lease.other_writer)
    return Guarded(step, lease, INTENT)


@pytest.mark.parametrize("demo_is_gone", [True, False])
def test_the_end_of_a_failed_check_of_the_old_document_touches_nothing_of_the_new_one(
    live: LiveCluster, demo_is_gone: bool
) -> None:
    """It made the group of the old document again, and moved the traffic to it while 0 of 2 were ready."""
    renamed(live, demo_is_gone=demo_is_gone)
    before = live.objects()
    report, outcome = live.run(end_of_demo(live, "preflight"))
    assert live.objects() == before
    assert services.serving_release(live.port.get(TRAFFIC)) == CHAT.id
    assert outcome.outputs.message == "run demo-1 wrote nothing, so no rollback"
    assert report.of("ok")[-1] == "run demo-1 wrote nothing, so no rollback"


@pytest.mark.parametrize("demo_is_gone", [True, False])
def test_the_end_of_a_failed_rollout_of_the_old_document_touches_nothing_of_the_new_one(
    live: LiveCluster, demo_is_gone: bool
) -> None:
    renamed(live, demo_is_gone=demo_is_gone)
    live.run(Guarded(live.volume(DEMO_NEXT), lease_of_demo(live, stays=True), INTENT))  # the run has written something
    before = live.objects()
    with pytest.raises(Blocked, match="Service/default/sglang-pd exists and it belongs to chat"):
        live.run(Guarded(live.rollout(DEMO_NEXT), lease_of_demo(live, stays=True), INTENT))
    with pytest.raises(Blocked, match="the recorded release is not restored: Service/default/sglang-pd exists and it"):
        live.run(end_of_demo(live, "roll-out-service"))
    after = live.objects()
    lease = "v1/Lease/demo-writer"
    assert {key: after[key] for key in after if key != lease} == {key: before[key] for key in before if key != lease}
    assert services.serving_release(live.port.get(TRAFFIC)) == CHAT.id
    assert not lease_of_demo(live, stays=False).wrote()  # given back, so that no run waits for it


def test_a_run_that_wrote_long_ago_is_rolled_back_unless_another_took_the_lease(live: LiveCluster) -> None:
    """The time of its Lease is over, since its pods took long; what it left behind is its own all the same."""
    live.serve(OLD)
    locks: Any = live.port

    def lease(run: str, *, stays: bool) -> WriterLease:
        return WriterLease(SERVICE, locks, Writer(run, 60, stays), live.clock)

    def end(run: str) -> tuple[RecordingReport, Any]:
        own = lease(run, stays=False)
        step = replace(live.way_back("smoke-test", run, SERVICE), wrote=own.wrote, other_writer=own.other_writer)
        report, outcome = live.run(Guarded(step, own, INTENT))
        return report, outcome.outputs

    live.run(live.volume(NEW))
    live.run(Guarded(live.rollout(NEW), lease("nightly-7", stays=True), INTENT))
    live.clock.seconds += 7_200
    assert "nightly-8 wrote nothing" in end("nightly-8")[1].message
    assert live.names("RoleBasedGroup") == sorted([OLD.group, NEW.group])
    _, outputs = end("nightly-7")
    assert outputs.verdict == "removed"
    assert live.names("RoleBasedGroup") == [OLD.group]
    assert "nightly-7 wrote nothing" in end("nightly-7")[1].message  # it was given back at the end


def test_by_hand_the_release_that_a_dead_run_left_behind_is_removed(live: LiveCluster) -> None:
    candidate(live)
    step = live.way_back()
    assert isinstance(step, RollBack)
    assert step.run == RunEnd("", "", by_hand=True)
    live.run(replace(step, service=SERVICE, wrote=lambda: False))
    assert live.names("RoleBasedGroup") == [OLD.group]
