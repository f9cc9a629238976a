"""A Lease whose holder's Workflow has ended or is gone is free, so after Terminate and delete the next run goes on.

It removes the candidate. What Argo does not say is judged by time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from steps.adapters.kubernetes import cluster as kubernetes_cluster
from steps.adapters.kubernetes.cluster import KubernetesCluster, connect
from steps.check_release import STALE, CheckRelease, Part
from steps.kinds import LEASE, WORKFLOW, Manifest, Ref
from steps.objects.read_only import ReadOnlyCluster
from steps.reconcile.converge import converge
from steps.reconcile.retry_policy import RetryPolicy
from steps.release import Release
from steps.rollout.intent import Intent
from steps.rollout.lease_holder import WORKFLOW_NAMESPACE, WORKFLOW_UID
from steps.rollout.writer_lease import GpuLease, Guarded, Writer, WriterLease
from tests.support.argo_cluster import argo_cluster, definition
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.live_cluster import LiveCluster, live_cluster
from tests.support.samples import release, service
from workflows.simulator.core.cluster.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES
from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.faults import request_faults
from workflows.simulator.faults.request_faults import RequestFaults

IMPATIENT = "rollout.deadlineMinutes=1"
SERVING = release(IMPATIENT)
CANDIDATE = release(IMPATIENT, "serving.image=registry.example.com/llm/sglang-erdma:0.5.25")
HOLDER, NEXT = "qwen3-32b-1790000000", "qwen3-32b-1790086400"
SLIPWAY = "slipway"  # namespace of the runs
KINDS = (WriterLease, GpuLease)


@dataclass
class World:
    """Leases, and Argo as a test moves it."""

    store: ClusterStore
    kubeconfig: Path
    clock: FakeClock
    faults: RequestFaults

    @property
    def locks(self) -> KubernetesCluster:
        return connect(self.kubeconfig)

    def lease(self, run: str, kind: type[WriterLease] = WriterLease, *overrides: str) -> WriterLease:
        return kind(service(*overrides), self.locks, Writer(run, 3600, stays=True), self.clock)

    def tell(self, run: str, phase: str, namespace: str = SLIPWAY, **spec: Any) -> None:
        """Argo writes how a run is."""
        resource = self.store.registry.kind(WORKFLOW.api_version, WORKFLOW.kind)
        assert resource
        known = self.store.get(resource, run, namespace)
        wanted = {"metadata": {"name": run, "namespace": namespace}, "spec": spec, "status": {"phase": phase}}
        if known is None:
            self.store.create(resource, wanted)
        else:
            self.store.replace(resource, {**wanted, "metadata": known["metadata"]})

    def delete(self, run: str) -> None:
        self.locks.delete(Ref(WORKFLOW, run, SLIPWAY), self.workflow(run)["metadata"]["uid"])

    def workflow(self, run: str) -> Manifest:
        return self.locks.get(Ref(WORKFLOW, run, SLIPWAY)) or {}

    def acquired(self, kind: type[WriterLease] = WriterLease) -> None:
        self.tell(HOLDER, "Running")
        take(self.lease(HOLDER, kind))


def take(one: WriterLease) -> None:
    assert one.locks.swap(one.acquired(one.observe()))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with argo_cluster(tmp_path) as argo:
        argo.store.create(NAMESPACES, {"metadata": {"name": "elsewhere"}})
        yield World(argo.store, argo.kubeconfig, FakeClock(), argo.faults)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveCluster]:
    with live_cluster(tmp_path, faults=RequestFaults()) as found:
        found.embedded.store.create(CUSTOM_RESOURCE_DEFINITIONS, definition("Workflow"))
        yield found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Error"])
def test_the_lease_of_a_run_that_has_ended_is_free_at_the_first_look(
    world: World, kind: type[WriterLease], phase: str
) -> None:
    world.acquired(kind)
    world.tell(HOLDER, phase, shutdown="Terminate")
    assert world.lease(NEXT, kind).other_writer() == ""


@pytest.mark.parametrize("kind", KINDS)
def test_the_lease_of_a_run_that_was_deleted_is_free_also_if_its_name_is_used_again(
    world: World, kind: type[WriterLease]
) -> None:
    world.acquired(kind)
    world.delete(HOLDER)
    assert world.lease(NEXT, kind).other_writer() == ""
    world.tell(HOLDER, "Pending")  # asked for again by the same --run-id
    assert world.lease(NEXT, kind).other_writer() == ""


@pytest.mark.parametrize("spec", [{}, {"suspend": True}, {"shutdown": "Stop"}, {"shutdown": "Terminate"}])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_argo_has_not_ended_is_waited_for_by_name(
    world: World, kind: type[WriterLease], spec: dict[str, Any]
) -> None:
    """Its exit handler may be at work, or its pods: Argo writes the phase of the end last of all."""
    world.acquired(kind)
    world.tell(HOLDER, "Running", **spec)
    assert world.lease(NEXT, kind).other_writer().startswith(f"{HOLDER} {kind.does} since ")


@pytest.mark.parametrize("answer", [request_faults.FORBIDDEN, request_faults.UNAVAILABLE])
def test_without_an_answer_of_argo_the_holder_is_judged_by_time(
    world: World, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_cluster, "RETRIES", RetryPolicy(attempts=1))
    world.acquired()
    world.tell(HOLDER, "Failed")
    world.faults.plan(f"/workflows/{HOLDER}", answer, 100)
    assert world.lease(NEXT).other_writer().startswith(HOLDER)
    world.clock.seconds += 3601
    assert world.lease(NEXT).other_writer() == ""


def test_a_run_of_another_namespace_is_judged_by_time(world: World) -> None:
    """The document names another workflow.namespace by now: a run of that name which is not here may well be there."""
    world.tell(HOLDER, "Running", "elsewhere")
    take(world.lease(HOLDER, WriterLease, "workflow.namespace=elsewhere"))
    assert world.lease(NEXT).other_writer().startswith(HOLDER)


@pytest.mark.parametrize("name", ["a step by hand on laptop, process 7", "local-20260921-143000", HOLDER])
def test_a_holder_that_is_no_workflow_is_judged_by_time(world: World, name: str) -> None:
    """A step by hand, also in the name of a run that has ended, and a local run."""
    world.tell(HOLDER, "Failed")
    take(world.lease(name))
    assert world.lease(NEXT).other_writer().startswith(name)


def test_a_lease_of_an_earlier_version_is_judged_by_time(world: World) -> None:
    world.acquired()
    found = noted(world)
    for note in (WORKFLOW_NAMESPACE, WORKFLOW_UID):
        del found["metadata"]["annotations"][note]
    assert world.locks.swap(found)
    world.delete(HOLDER)
    assert world.lease(NEXT).other_writer().startswith(HOLDER)


def test_the_workflow_is_noted_beside_the_annotations_of_the_document_and_goes_with_its_holder(
    world: World,
) -> None:
    world.tell(HOLDER, "Running")
    one = world.lease(HOLDER, WriterLease, "metadata.annotations={team: search}")
    take(one)
    uid = world.workflow(HOLDER)["metadata"]["uid"]
    notes = {"team": "search", WORKFLOW_NAMESPACE: SLIPWAY, WORKFLOW_UID: uid}
    assert noted(world)["metadata"]["annotations"] == notes
    assert one.locks.swap(one.released(one.observe()))
    assert noted(world)["metadata"]["annotations"] == {"team": "search"}


def noted(world: World) -> Manifest:
    found = world.locks.get(Ref(LEASE, "qwen3-32b-writer", "default"))
    assert found
    return found


def test_of_two_that_see_the_holder_gone_one_gets_the_lease(world: World) -> None:
    world.acquired()
    world.delete(HOLDER)
    rivals = [world.lease(run) for run in (NEXT, "qwen3-32b-ci")]
    looks = [rival.observe() for rival in rivals]
    assert [one.locks.swap(one.acquired(look)) for one, look in zip(rivals, looks, strict=True)] == [True, False]


def guarded(live: LiveCluster, made: Release, run: str) -> Any:
    """roll-out-service of a run, as `steps.wiring` wraps it."""
    intent = Intent(run, None)
    gpus = GpuLease(made.service, connect(live.embedded.kubeconfig), Writer(run, 120, stays=False), live.clock)
    inner = Guarded(live.rollout(made), gpus, intent)
    return Guarded(
        inner,
        WriterLease(made.service, connect(live.embedded.kubeconfig), Writer(run, 3600, stays=True), live.clock),
        intent,
    )


@pytest.mark.parametrize("end", ["terminated", "deleted"])
def test_the_next_run_removes_the_candidate_of_a_run_whose_exit_handler_never_ran(live: LiveCluster, end: str) -> None:
    """Also if it has nothing else to do: what is left behind is a reason to walk the line."""
    argo = World(live.embedded.store, live.embedded.kubeconfig, live.clock, RequestFaults())
    live.serve(SERVING)
    live.run(live.volume(CANDIDATE))
    argo.tell(HOLDER, "Running")
    late = guarded(live, CANDIDATE, HOLDER)
    live.clock.runs_once = lambda: CANDIDATE.group in live.names("RoleBasedGroup")
    converge(late, RecordingReport(), live.clock)
    if end == "deleted":
        argo.delete(HOLDER)
    else:
        argo.tell(HOLDER, "Failed", shutdown="Terminate")
    view = ReadOnlyCluster(connect(live.embedded.kubeconfig))
    parts = (Part("roll-out-service", lambda: type(live.rollout(SERVING))(SERVING, view)),)
    found = converge(CheckRelease(SERVING, parts), RecordingReport(), live.clock).outputs
    assert found.state == STALE
    assert f"would delete RoleBasedGroup/default/{CANDIDATE.group}" in found.reason
    argo.tell(NEXT, "Running")
    before, report = live.clock.now(), RecordingReport()
    converge(guarded(live, SERVING, NEXT), report, live.clock)
    assert report.of("waiting") == []
    assert live.clock.now() - before < 60
    assert live.names("RoleBasedGroup") == [SERVING.group]
