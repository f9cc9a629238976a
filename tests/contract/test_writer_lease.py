"""One writer at a time: two runs on one service, through the real adapter, with time in the hands of the test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from steps.adapters.kubernetes.cluster import KubernetesCluster, connect
from steps.document.schema import ModelService
from steps.errors import Blocked, DeadlineExceeded
from steps.kinds import LEASE, Manifest, Ref
from steps.reconcile.converge import Outcome, Past, converge
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.release import GPU_LEASE
from steps.rollout.intent import Intent
from steps.rollout.writer_lease import GpuLease, Guarded, Writer, WriterLease
from tests.support.api_servers import Server
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.samples import service

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")  # of a test server

HOUR = 3600
NIGHTLY = Writer("nightly-7", HOUR, stays=True)
LAST = Writer("nightly-7", 120, stays=False)
LAPTOP = Writer("a step by hand on laptop, process 7", 120, stays=False)


@dataclass
class Step:
    """Wants some names to be written, each in a look of its own, and waits for what is said."""

    wanted: list[str]
    waits: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    during: Callable[[], None] = lambda: None  # what happens elsewhere while it writes
    written: list[str] = field(default_factory=list)
    deadline: float = 600.0

    def observe(self, _past: Past[tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(name for name in self.wanted if name not in self.written)

    def plan(self, missing: tuple[str, ...]) -> Plan:
        changes = tuple(Change("create", name) for name in missing[:1])
        return Plan(changes, waiting=() if missing else self.waits, failed=self.faults)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        for change in changes:
            self.during()
            self.written.append(change.target)
            report.changed(change)

    def outputs(self, missing: tuple[str, ...]) -> int:
        return len(missing)


@dataclass
class World:
    cluster: KubernetesCluster
    namespace: str
    clock: FakeClock = field(default_factory=FakeClock)
    report: RecordingReport = field(default_factory=RecordingReport)

    def lease(self, writer: Writer) -> WriterLease:
        return WriterLease(self.service, self.cluster, writer, self.clock)

    def gpus(self, writer: Writer) -> GpuLease:
        return GpuLease(self.service, self.cluster, writer, self.clock)

    @property
    def service(self) -> ModelService:
        return service(f"metadata.namespace={self.namespace}", f"workflow.namespace={self.namespace}")

    def run(self, step: Any, writer: Writer) -> Outcome:
        return converge(Guarded(step, self.lease(writer), Intent(writer.name, None)), self.report, self.clock)

    @property
    def live(self) -> Manifest | None:
        return self.cluster.get(Ref(LEASE, "qwen3-32b-writer", self.namespace))

    @property
    def holder(self) -> str:
        return str(((self.live or {}).get("spec") or {}).get("holderIdentity", ""))


@pytest.fixture
def world(server: Server, api: Any) -> Iterator[World]:
    yield World(connect(server.kubeconfig), server.namespace)
    for name in ("qwen3-32b-writer", GPU_LEASE):
        api("DELETE", f"/apis/coordination.k8s.io/v1/namespaces/{{namespace}}/leases/{name}")


def test_a_step_writes_only_as_the_holder_and_keeps_the_lease_for_the_steps_after_it(world: World) -> None:
    seen: list[str] = []
    step = Step(["volume", "claim"], during=lambda: seen.append(world.holder))
    world.run(step, NIGHTLY)
    assert (step.written, seen, world.holder) == (["volume", "claim"], ["nightly-7"] * 2, "nightly-7")
    assert world.report.of("changed") == ["create volume", "create claim"]  # a lock is no change of the service


def test_the_last_step_of_a_run_gives_the_lease_back_and_the_next_run_needs_not_wait(world: World) -> None:
    world.run(Step(["group"]), NIGHTLY)
    world.run(Step([]), LAST)
    assert world.holder == ""
    started = world.clock.now()
    world.run(Step(["other"]), LAPTOP)
    assert world.clock.now() == started
    assert world.live is not None
    assert world.live["spec"]["leaseTransitions"] == 2


def test_a_run_that_finds_everything_as_wanted_leaves_no_trace_and_waits_for_nobody(world: World) -> None:
    world.run(Step([]), NIGHTLY)
    world.run(Step([]), LAST)
    assert world.live is None
    world.run(Step(["group"]), Writer("other", HOUR, stays=True))
    world.run(Step([]), NIGHTLY)
    assert world.holder == "other"


def test_a_second_writer_waits_says_for_whom_and_gives_up_at_its_deadline(world: World) -> None:
    world.run(Step(["group"]), NIGHTLY)
    step = Step(["other"])
    with pytest.raises(
        DeadlineExceeded, match="gave up after 10 minutes, still waiting for: nightly-7 changes"
    ) as late:
        world.run(step, LAPTOP)
    assert step.written == []
    assert "since 2026-09-21T14:30:00 UTC (Lease" in str(late.value)
    assert f"kubectl delete lease qwen3-32b-writer -n {world.namespace}" in str(late.value)
    assert len(world.report.of("waiting")) == 1


def test_a_second_writer_goes_on_as_soon_as_the_first_is_done(world: World) -> None:
    world.run(Step(["group"]), NIGHTLY)

    def until_noon(seconds: float) -> None:
        if seconds > 1_100.0 and world.holder == "nightly-7":
            World(world.cluster, world.namespace, FakeClock()).run(Step([]), LAST)

    world.clock = FakeClock(until_noon)
    step = Step(["other"], during=lambda: seen.append(world.holder))
    seen: list[str] = []
    world.run(step, LAPTOP)
    assert seen == [LAPTOP.name]
    assert 100 < world.clock.now() - 1_000.0 < 120
    assert world.holder == ""  # a step by hand has nobody after it


def test_a_retry_of_the_same_run_goes_on_at_once(world: World) -> None:
    """The pod was killed in the middle; another one, of the same run, takes its place."""
    step = Step(["first", "second"])
    with pytest.raises(ZeroDivisionError):
        world.run(_killed_after(step, "first"), NIGHTLY)
    acquired = (world.live or {})["spec"]["acquireTime"]
    started = world.clock.now()
    world.run(step, NIGHTLY)
    assert (step.written, world.clock.now()) == (["first", "second"], started)
    assert (world.live or {})["spec"]["acquireTime"] == acquired


def test_the_lease_of_a_dead_writer_ends_with_its_time(world: World) -> None:
    world.run(Step(["group"]), Writer("crashed", 300, stays=True))
    started, step = world.clock.now(), Step(["other"])
    world.run(step, NIGHTLY)
    assert step.written == ["other"]
    assert 300 <= world.clock.now() - started < 310
    assert world.holder == "nightly-7"


def test_a_writer_that_waits_long_renews_in_time_and_nobody_takes_over(world: World) -> None:
    step = Step(["group"], waits=("pods",), deadline=1_000.0)
    rival = world.lease(LAPTOP)
    free: list[bool] = []
    world.clock = FakeClock(lambda _: free.append(not rival.observe().held_by_other(LAPTOP)))
    rival = world.lease(LAPTOP)
    with pytest.raises(DeadlineExceeded):
        world.run(step, Writer("nightly-7", 120, stays=True))
    assert len(free) > 100
    assert not any(free)


def test_who_lost_the_lease_meanwhile_waits_before_it_writes_again(world: World) -> None:
    def away(_: float = 0.0) -> None:
        """The process was held up for longer than its Lease lasts, and a laptop took over."""
        world.clock.seconds += 2 * HOUR
        world.cluster.swap(world.lease(rival).acquired(world.lease(rival).observe()))

    rival = Writer("laptop", 9 * HOUR, stays=True)
    step = Step(["first", "second"], deadline=3 * HOUR)
    step.during = lambda: away() if not step.written else None
    with pytest.raises(DeadlineExceeded, match="laptop changes this service"):
        world.run(step, NIGHTLY)
    assert step.written == ["first"]


def test_of_two_that_see_it_free_one_gets_it(world: World) -> None:
    """Absent, given back, and ended: each time both look before either writes."""
    rivals = [world.lease(NIGHTLY), world.lease(LAPTOP)]
    for _ in range(3):
        looks = [rival.observe() for rival in rivals]
        assert not any(look.held_by_other(rival.writer) for look, rival in zip(looks, rivals, strict=True))
        got = [world.cluster.swap(rival.acquired(look)) for rival, look in zip(rivals, looks, strict=True)]
        assert got == [True, False]
        assert world.holder == "nightly-7"
        world.clock.seconds += 2 * HOUR
    assert world.cluster.swap(rivals[0].released(rivals[0].observe()))
    assert world.holder == ""


def test_a_lease_that_somebody_deletes_is_taken_anew(world: World, api: Any) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/qwen3-32b-writer"
    look = world.lease(NIGHTLY).observe()
    world.run(Step(["group"]), NIGHTLY)
    stale = world.lease(NIGHTLY).observe()
    assert api("DELETE", path).status == 200
    assert not world.cluster.swap(world.lease(NIGHTLY).acquired(stale))
    assert world.cluster.swap(world.lease(NIGHTLY).acquired(look))


def test_a_fault_of_the_last_step_gives_the_lease_back_all_the_same(world: World) -> None:
    world.run(Step(["group"]), NIGHTLY)
    with pytest.raises(Blocked, match="no way back"):
        world.run(Step([], faults=("no way back",)), LAST)
    assert world.holder == ""


def test_gpus_are_held_while_pods_are_waited_for_also_by_another_attempt_of_the_step(world: World) -> None:
    """The pod of the step was killed after it had made the group: there is nothing to change, and much to wait for."""
    waiting = Step([], waits=("pods",))
    with pytest.raises(DeadlineExceeded, match="still waiting for: pods"):
        converge(Guarded(waiting, world.gpus(LAST), Intent("nightly-7", None)), world.report, world.clock)
    assert world.gpus(LAPTOP).other_writer().startswith("nightly-7 takes GPUs since ")
    late = Step(["group"])
    converge(
        Guarded(late, world.gpus(LAPTOP), Intent("nightly-7", None)), world.report, world.clock
    )  # a dead holder is waited for two minutes
    assert late.written == ["group"]
    assert not world.gpus(NIGHTLY).other_writer()


def test_gpus_are_not_taken_by_a_run_that_must_wait_for_another_writer(world: World) -> None:
    """Or two runs could wait for each other, each with one of the two."""
    world.run(Step(["group"]), Writer("other", HOUR, stays=True))
    with pytest.raises(DeadlineExceeded, match="other changes this service"):
        world.run(Guarded(Step(["group"]), world.gpus(LAST), Intent("nightly-7", None)), NIGHTLY)
    assert world.cluster.get(world.gpus(LAST).ref) is None


def test_the_last_step_of_the_line_keeps_it_after_a_fault_as_proof_that_the_run_wrote(world: World) -> None:
    """The exit handler of a run that failed rolls back what the last holder did; a run that succeeded has none."""
    promotes = Writer("nightly-7", HOUR, stays=False, stays_with_faults=True)
    world.run(Step(["group"]), NIGHTLY)
    with pytest.raises(Blocked, match="not ready"):
        world.run(Step([], faults=("not ready",)), promotes)
    assert world.lease(LAST).wrote()
    world.clock.seconds += 2 * HOUR
    assert world.lease(LAST).wrote()  # also once its time is over
    assert not world.lease(LAPTOP).wrote()
    step = Step(["traffic"], during=lambda: seen.append(world.holder))
    seen: list[str] = []
    world.run(step, promotes)
    assert (seen, world.holder) == (["nightly-7"], "")  # renewed before it wrote, given back after it
    assert not world.lease(LAST).wrote()


def test_a_lease_that_another_took_is_no_proof(world: World) -> None:
    world.run(Step(["group"]), NIGHTLY)
    world.clock.seconds += 2 * HOUR
    world.run(Step(["other"]), Writer("nightly-8", HOUR, stays=True))
    assert not world.lease(LAST).wrote()
    assert world.lease(LAST).other_writer().startswith("nightly-8 changes this service")


def _killed_after(step: Step, name: str) -> Any:
    @dataclass
    class Killed:
        deadline: float = 600.0

        def apply(self, changes: tuple[Change, ...], report: Report) -> None:
            step.apply(changes, report)
            if name in step.written:
                raise ZeroDivisionError

        observe, plan, outputs = step.observe, step.plan, step.outputs

    return Killed()


def test_the_lease_says_what_kubectl_shows(world: World) -> None:
    world.run(Step(["group"]), NIGHTLY)
    assert world.live is not None
    spec = world.live["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("nightly-7", HOUR, 1)
    assert spec["renewTime"].startswith("2026-09-21T14:30:00")
    assert world.live["metadata"]["labels"]["slipway/service"] == "qwen3-32b"
