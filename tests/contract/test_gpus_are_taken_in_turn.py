"""Two services that start in the same minute, on GPUs for one: each takes its GPUs whole, one after the other."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steps.adapters.kubernetes.cluster import connect
from steps.kinds import LEASE, POD, RELEASE_LABEL, V1ALPHA1, Kind, Ref
from steps.reconcile.converge import converge
from steps.release import GPU_LEASE, Release
from steps.rollout.intent import Intent
from steps.rollout.writer_lease import GpuLease, Guarded, Writer, WriterLease
from tests.support.fakes import RecordingReport
from tests.support.live_cluster import LiveCluster, live_cluster
from tests.support.samples import release
from workflows.simulator.core.cluster.seed import Seed

PATIENT = "rollout.deadlineMinutes=10000"  # of virtual time, which passes while the cluster is at rest
ONE = release("metadata.name=one", "endpoint.service=one", PATIENT)
TWO = release("metadata.name=two", "endpoint.service=two", PATIENT)
GPU = "nvidia.com/gpu"
WORKERS = 3  # of two GPUs each; the node has eight


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveCluster]:
    with live_cluster(tmp_path, seed=Seed(gpu_nodes=1)) as found:
        yield found


class Run(threading.Thread):
    """roll-out-service of one run, wrapped as `steps.wiring` wraps it."""

    def __init__(self, live: LiveCluster, made: Release, name: str) -> None:
        super().__init__(daemon=True)
        self.report = RecordingReport()
        writer, taker = Writer(name, 3600, stays=True), Writer(name, 120, stays=False)
        intent = Intent(name, None)
        locks = connect(live.embedded.kubeconfig)
        queued = Guarded(live.rollout(made), GpuLease(made.service, locks, taker, live.clock), intent)
        self.step = Guarded(queued, WriterLease(made.service, locks, writer, live.clock), intent)
        self.clock = live.clock
        self.start()

    def run(self) -> None:
        converge(self.step, self.report, self.clock)


def groups(live: LiveCluster) -> list[str]:
    return live.names("RoleBasedGroup")


def placed(live: LiveCluster, made: Release) -> int:
    pods = live.port.select(POD, "default", {RELEASE_LABEL: made.id})
    return sum(bool(pod["spec"].get("nodeName")) for pod in pods if "router" not in pod["metadata"]["name"])


def holder(live: LiveCluster) -> Any:
    return ((live.port.get(Ref(LEASE, GPU_LEASE, "slipway")) or {}).get("spec") or {}).get("holderIdentity", "")


def occupant(live: LiveCluster) -> Ref:
    """A pod of another owner that has all GPUs of the node."""
    (node,) = [
        node for node in live.port.select(Kind("v1", "Node")) if "nvidia.com/gpu" in node["status"]["allocatable"]
    ]
    gpus = {"nvidia.com/gpu": node["status"]["allocatable"]["nvidia.com/gpu"]}
    container = {"name": "train", "image": "train", "resources": {"requests": gpus, "limits": gpus}}
    spec = {"nodeName": node["metadata"]["name"], "containers": [container]}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "train", "namespace": "default"}, "spec": spec}
    live.port.apply(made)
    return Ref.of(made)


def remove(live: LiveCluster, ref: Ref) -> None:
    live.port.delete(ref, (live.port.get(ref) or {})["metadata"]["uid"])


def test_the_second_service_waits_for_the_run_that_takes_gpus_and_then_takes_its_own(live: LiveCluster) -> None:
    live.run(live.volume(ONE))
    live.run(live.volume(TWO))
    others = occupant(live)
    first = Run(live, ONE, "one-1790000000")  # no pod of it finds a GPU yet
    live.settle(lambda: groups(live) == [ONE.group])
    second = Run(live, TWO, "two-1790000000")
    live.settle(lambda: bool(second.report.of("waiting")))
    assert second.report.of("waiting")[0].startswith("one-1790000000 takes GPUs since ")
    assert f"kubectl delete lease {GPU_LEASE} -n slipway" in second.report.of("waiting")[0]
    assert (groups(live), placed(live, TWO)) == ([ONE.group], 0)
    remove(live, others)
    first.join(60)
    assert not first.is_alive()
    assert placed(live, ONE) == WORKERS
    live.settle(lambda: groups(live) == sorted([ONE.group, TWO.group]) and holder(live) == "two-1790000000")
    remove(live, Ref(Kind(V1ALPHA1, "RoleBasedGroup"), ONE.group, "default"))
    second.join(60)
    assert (second.is_alive(), placed(live, TWO), holder(live)) == (False, WORKERS, "")
