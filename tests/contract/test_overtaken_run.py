"""An older run that acts after a newer one promoted changes nothing, whichever door it comes through."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from steps.adapters.kubernetes.cluster import connect
from steps.errors import Blocked, DeadlineExceeded, TransientError
from steps.kinds import LEASE, Manifest, Ref
from steps.model import Listing, ModelFile
from steps.objects import record, services
from steps.ports.kubernetes import Locks
from steps.promote_release import PromoteRelease
from steps.reconcile.converge import Outcome, Past, Step
from steps.release import Release, writer_lease_name
from steps.resolve_model import ResolveModel
from steps.rollout.intent import Intent
from steps.rollout.writer_lease import Guarded, Writer, WriterLease
from tests.support.fakes import ListedSource, RecordingReport
from tests.support.live_cluster import KilledAfter, LiveCluster, live_cluster
from tests.support.samples import release, wanted

FIRST, NEW, OLDER = (release(digest="sha256:" + digit * 64) for digit in "123")
RECREATING = release("rollout.strategy=Recreate", digest=OLDER.model_digest)
WHOLE = Listing.of(ModelFile(path, 1, "a" * 64) for path in ("config.json", "model.safetensors"))
HAND = "a step by hand on laptop, process 7"
SPOILT = {"current": '{"release": "abc'}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveCluster]:
    with live_cluster(tmp_path) as found:
        yield found


def locks(live: LiveCluster) -> Locks:
    return connect(live.embedded.kubeconfig)


def guarded(live: LiveCluster, step: Step[Any], run: str, counter: int | None) -> tuple[RecordingReport, Outcome]:
    stays = run != HAND
    lease = WriterLease(FIRST.service, locks(live), Writer(run, 3600, stays), live.clock)
    return live.run(Guarded(step, lease, Intent(run, counter)))


def promotion(live: LiveCluster, of: Release, run: str) -> PromoteRelease:
    return PromoteRelease(of, live.port, live.clock, of.id, run)


def promote(live: LiveCluster, of: Release, run: str, counter: int | None) -> None:
    for step in (live.volume(of), live.rollout(of), promotion(live, of, run)):
        guarded(live, step, run, counter)


def counter(live: LiveCluster) -> int:
    """What the first task of a run that begins now hands to the others."""
    outcome = live.run(ResolveModel(wanted(), lambda _: ListedSource(WHOLE), live.port))[1]
    return int(outcome.outputs.record_counter)


def found(live: LiveCluster) -> record.Record:
    return record.read(live.port.get(record.record_ref(FIRST.service)))


def holder(live: LiveCluster) -> str:
    lease = live.port.get(Ref(LEASE, writer_lease_name(FIRST.service), "default"))
    return str(((lease or {}).get("spec") or {}).get("holderIdentity", ""))


def give_back(live: LiveCluster, run: str) -> None:
    lease = WriterLease(FIRST.service, locks(live), Writer(run, 3600, stays=False), live.clock)
    assert lease.locks.swap(lease.released(lease.observe()))


def two_runs(live: LiveCluster) -> LiveCluster:
    """Two runs began when the first release served, and the newer of them has promoted."""
    assert counter(live) == 0
    promote(live, FIRST, "first", 0)
    give_back(live, "first")
    assert counter(live) == 1
    promote(live, NEW, "newer", 1)
    give_back(live, "newer")
    assert counter(live) == 2
    return live


@pytest.fixture(scope="module")
def overtaken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """For tests that leave it as it is, which is what they are about."""
    with live_cluster(tmp_path_factory.mktemp("overtaken")) as found:
        yield two_runs(found)


STEPS: dict[str, Callable[[LiveCluster], Step[Any]]] = {
    "create-volume": lambda live: live.volume(OLDER),
    "roll-out-service, BlueGreen": lambda live: live.rollout(OLDER),
    "roll-out-service, Recreate": lambda live: live.rollout(RECREATING),
    "promote-release": lambda live: promotion(live, OLDER, "older"),
}


@pytest.mark.parametrize("step", STEPS)
def test_an_older_run_changes_nothing_and_names_the_run_that_won(overtaken: LiveCluster, step: str) -> None:
    before = overtaken.objects()
    with pytest.raises(Blocked) as refused:
        guarded(overtaken, STEPS[step](overtaken), "older", 1)
    winner = f"newer promoted release {NEW.id} at {found(overtaken).promoted_at} after this run read the release record"
    assert winner in str(refused.value)
    assert "Next: submit a new run" in str(refused.value)
    assert overtaken.objects() == before
    assert holder(overtaken) == ""


def test_an_older_run_that_still_holds_the_lease_gives_it_back(overtaken: LiveCluster) -> None:
    """The record was written without the Lease; the run that lost must not keep others from working."""
    lease = WriterLease(FIRST.service, locks(overtaken), Writer("older", 3600, stays=True), overtaken.clock)
    assert lease.locks.swap(lease.acquired(lease.observe()))
    before = {name: one for name, one in overtaken.objects().items() if "/Lease/" not in name}
    with pytest.raises(Blocked, match="newer promoted"):
        guarded(overtaken, overtaken.rollout(OLDER), "older", 1)
    assert holder(overtaken) == ""
    assert {name: one for name, one in overtaken.objects().items() if "/Lease/" not in name} == before


def test_an_older_run_that_wants_what_serves_already_has_nothing_to_lose(overtaken: LiveCluster) -> None:
    before = overtaken.objects()
    for step in (overtaken.volume(NEW), overtaken.rollout(NEW), promotion(overtaken, NEW, "older")):
        _, outcome = guarded(overtaken, step, "older", 1)
        assert outcome.changes == ()
    assert overtaken.objects() == before


def test_an_older_run_whose_release_is_ready_moves_no_traffic_while_a_person_and_a_new_run_may(
    live: LiveCluster,
) -> None:
    for step in (two_runs(live).volume(OLDER), live.rollout(OLDER)):
        live.run(step)
    before = live.objects()
    for of in (OLDER, RECREATING):
        with pytest.raises(Blocked, match="1 failed: newer promoted"):
            guarded(live, promotion(live, of, "older"), "older", 1)
    assert live.objects() == before
    promote(live, OLDER, HAND, None)  # a decision about what is there now
    assert (found(live).counter, found(live).run, holder(live)) == (3, HAND, "")
    promote(live, FIRST, "revert", counter(live))  # an ordinary new run
    assert (found(live).counter, found(live).run) == (4, "revert")
    assert services.serving_release(live.port.get(services.traffic_service_ref(FIRST.service))) == FIRST.id


@pytest.mark.parametrize("writes", [1, 2], ids=["before the record", "after the record"])
def test_a_run_that_promoted_itself_and_is_tried_again_goes_on(live: LiveCluster, writes: int) -> None:
    promote(live, FIRST, "first", 0)
    give_back(live, "first")
    for step in (live.volume(NEW), live.rollout(NEW)):
        guarded(live, step, "newer", 1)
    honest, live.port = live.port, KilledAfter(live, writes)
    with pytest.raises(TransientError):
        guarded(live, promotion(live, NEW, "newer"), "newer", 1)
    live.port = honest
    guarded(live, promotion(live, NEW, "newer"), "newer", 1)
    assert (found(live).counter, found(live).run) == (2, "newer")
    assert live.names("RoleBasedGroup") == [NEW.group]


class OvertakenWithin:
    """Another run promotes at the very moment in which this one moves the traffic, without the Lease."""

    def __init__(self, live: LiveCluster, between: Callable[[], None]) -> None:
        self._port, self._between = live.port, between

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def apply(self, wanted: Manifest) -> None:
        self._port.apply(wanted)
        if wanted["kind"] == "Service":
            self._between()


def test_a_record_that_another_run_wrote_in_the_meantime_is_not_written_over(live: LiveCluster) -> None:
    promote(live, FIRST, "first", 0)
    for step in (live.volume(NEW), live.rollout(NEW)):
        live.run(step)
    ref = record.record_ref(FIRST.service)
    live.port = OvertakenWithin(live, lambda: live.patch(ref, {"data": {"counter": "2", "run": "rival"}}))
    with pytest.raises(TransientError, match="was written by another client since it was read"):
        live.run(promotion(live, NEW, "newer"))
    assert (found(live).counter, found(live).run) == (2, "rival")


class Beside:
    """The port of a run beside which another one looks after each write, and acts on what it sees."""

    def __init__(self, live: LiveCluster, look: Callable[[], None]) -> None:
        self._port, self._look = live.port, look

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def apply(self, wanted: Manifest) -> None:
        self._port.apply(wanted)
        self._look()

    def delete(self, ref: Ref, uid: str) -> None:
        self._port.delete(ref, uid)
        self._look()


@dataclass
class Rival:
    """A run that began with the other one, past the same mutex, and would delete what serves."""

    live: LiveCluster
    report: RecordingReport = field(default_factory=RecordingReport)
    waited: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        lease = WriterLease(FIRST.service, locks(self.live), Writer("rival", 3600, stays=True), self.live.clock)
        wanted = (self.live.volume(OLDER), self.live.rollout(RECREATING), promotion(self.live, OLDER, "rival"))
        self.steps = [Guarded(step, lease, Intent("rival", 1)) for step in wanted]

    def look(self) -> None:
        for step in self.steps:
            plan = step.plan(step.observe(Past()))
            if plan.changes:
                step.apply(plan.changes, self.report)
            self.waited += plan.waiting
            self.refused += plan.failed


def test_of_two_runs_past_the_mutex_one_writes_and_the_other_one_is_told_which(live: LiveCluster) -> None:
    """A controller of Argo 3.5 that starts again lets the queue in; an event carries no lock that would hold there."""
    promote(live, FIRST, "first", 0)
    give_back(live, "first")
    rival, honest = Rival(live), live.port
    live.port = Beside(live, rival.look)
    guarded(live, live.volume(NEW), "winner", 1)
    live.port, before = honest, live.objects()
    with pytest.raises(DeadlineExceeded, match="still waiting for: winner changes this service since"):
        guarded(live, live.volume(OLDER), "rival", 1)
    assert live.objects() == before
    live.port = Beside(live, rival.look)
    guarded(live, live.rollout(NEW), "winner", 1)
    guarded(live, promotion(live, NEW, "winner"), "winner", 1)
    live.port = honest
    assert rival.report.of("changed") == []
    assert {said for said in rival.waited if "winner changes this service since" not in said} == set()
    assert any("winner promoted release" in said for said in rival.refused)
    with pytest.raises(Blocked, match="winner promoted release") as refused:
        guarded(live, live.rollout(RECREATING), "rival", 1)
    assert "Next: submit a new run" in str(refused.value)
    assert (found(live).run, found(live).counter, live.names("RoleBasedGroup")) == ("winner", 2, [NEW.group])
    assert not any(OLDER.id in name for name in live.objects())


@pytest.mark.parametrize("strategy", ["BlueGreen", "Recreate"])
def test_with_a_broken_record_a_release_rolls_out_beside_what_serves_and_its_promotion_writes_the_record_anew(
    live: LiveCluster, strategy: str
) -> None:
    promote(live, FIRST, "first", 0)
    give_back(live, "first")
    live.patch(record.record_ref(FIRST.service), {"data": SPOILT})
    new = release(f"rollout.strategy={strategy}", digest=NEW.model_digest)
    began = counter(live)
    guarded(live, live.volume(new), "newer", began)
    report, _ = guarded(live, live.rollout(new), "newer", began)
    assert any(
        "qwen3-32b-release cannot be read: data.current: Unterminated string" in line for line in report.of("ok")
    )
    assert live.names("RoleBasedGroup") == sorted([FIRST.group, new.group])
    assert services.serving_release(live.port.get(services.traffic_service_ref(FIRST.service))) == FIRST.id
    report, _ = guarded(live, promotion(live, new, "newer"), "newer", began)
    assert any("ConfigMap" in line and "cannot be read: data.current" in line for line in report.of("changed"))
    assert (found(live).broken, found(live).counter, found(live).run) == ("", began + 1, "newer")
    assert live.names("RoleBasedGroup") == [new.group]


def test_without_a_namespace_to_serve_in_the_first_task_counts_from_zero(live: LiveCluster) -> None:
    absent = wanted(sets=("metadata.namespace=absent",))
    assert live.run(ResolveModel(absent, lambda _: ListedSource(WHOLE), live.port))[1].outputs.record_counter == 0


def test_a_first_task_that_may_not_read_the_record_names_the_right(tmp_path: Path) -> None:
    with live_cluster(tmp_path, denied=lambda _verb, resource, *_: resource == "configmaps") as live:
        with pytest.raises(Blocked, match="not allowed to get configmaps qwen3-32b-release in namespace") as refused:
            live.run(ResolveModel(wanted(), lambda _: ListedSource(WHOLE), live.port))
        assert "grant `get` on `configmaps`" in str(refused.value)
