"""A fresh embedded cluster passes the platform checks, and fails exactly the one that is broken."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from steps.adapters.kubernetes.cluster import connect
from steps.adapters.modelscope.source import ModelScopeSource
from steps.adapters.oss.store import OssStore
from steps.check_platform import CheckPlatform
from steps.reconcile.converge import Past
from tests.support import buckets
from tests.support.samples import release
from tests.support.toy_cluster import ToyRuntime
from workflows.simulator.core.cluster.controllers.timing import FAST
from workflows.simulator.core.cluster.resources import (
    CSI_DRIVERS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    NODES,
    SECRETS,
)
from workflows.simulator.core.cluster.seed import ERDMA_NAMESPACE, Secret, Seed
from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.core.hub.sample_model import write_model
from workflows.simulator.http.cluster import EmbeddedCluster
from workflows.simulator.http.hub import Hub

DEMO = release(f"store.bucket={buckets.NAME}", name="demo")
KEY = Secret("slipway", "oss-credentials", {"akId": buckets.KEY_ID, "akSecret": buckets.KEY_SECRET})


@dataclass(frozen=True)
class Outside:
    """The hub and the bucket, which the checks read, too."""

    source: ModelScopeSource
    store: OssStore


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    model = DEMO.service.model
    write_model(folder / "hub" / model.id, 1_000_000, 3)
    hub = Hub(folder / "hub")
    hub.start()
    with buckets.running(folder / "bucket") as bucket:
        source = ModelScopeSource(
            endpoint=hub.url, model_id=model.id, revision=model.revision, token="", region=buckets.REGION
        )
        yield Outside(source, buckets.store(bucket))
    hub.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    cluster = EmbeddedCluster(
        tmp_path / "cluster", ToyRuntime(), tmp_path / "bucket", seed=Seed(secrets=(KEY,)), timing=FAST
    )
    cluster.start()
    yield cluster
    cluster.stop()


def codes(cluster: EmbeddedCluster, outside: Outside) -> list[str]:
    """Codes of the checks that are not content, waits included."""
    step = CheckPlatform(DEMO, connect(cluster.kubeconfig), outside.store, outside.source)
    plan = step.plan(step.observe(Past()))
    return sorted({text.split()[0] for text in (*plan.failed, *plan.waiting)})


def without_devices(store: ClusterStore) -> None:
    devices = store.registry.kind("network.alibabacloud.com/v1", "ERdmaDevice")
    assert devices is not None
    for device in store.select(devices):
        store.replace(devices, {**device, "status": {"devices": []}}, subresource="status")


def without_gpus(store: ClusterStore) -> None:
    for node in store.select(NODES, labels={"aliyun.accelerator/nvidia_count": "8"}):
        node["status"]["allocatable"]["nvidia.com/gpu"] = "1"
        store.replace(NODES, node, subresource="status")


def without_secret_key(store: ClusterStore) -> None:
    secret = store.get(SECRETS, "oss-credentials", "slipway")
    assert secret is not None
    store.replace(SECRETS, {**secret, "data": {"akId": secret["data"]["akId"]}})


def test_a_fresh_cluster_is_healthy(cluster: EmbeddedCluster, outside: Outside) -> None:
    assert codes(cluster, outside) == []


@pytest.mark.parametrize(
    ("sabotage", "found"),
    [
        (lambda store: store.delete(DEPLOYMENTS, "rbgs-controller-manager", "rbgs-system"), ["RBG02"]),
        (lambda store: store.delete(CUSTOM_RESOURCE_DEFINITIONS, "rolebasedgroups.workloads.x-k8s.io"), ["RBG01"]),
        (lambda store: store.delete(DEPLOYMENTS, "alibabacloud-erdma-controller", ERDMA_NAMESPACE), ["FAB01"]),
        (lambda store: store.delete(CSI_DRIVERS, "ossplugin.csi.alibabacloud.com"), ["CSI01"]),
        (lambda store: store.delete(DAEMON_SETS, "csi-plugin", "kube-system"), ["CSI02"]),
        (lambda store: store.delete(SECRETS, "oss-credentials", "slipway"), ["KEY01"]),
        (without_secret_key, ["KEY01"]),
        (without_gpus, ["GPU01"]),
    ],
)
def test_one_broken_thing_fails_one_check(
    cluster: EmbeddedCluster, outside: Outside, sabotage: Callable[[ClusterStore], object], found: list[str]
) -> None:
    sabotage(cluster.store)
    assert codes(cluster, outside) == found


def test_devices_that_are_not_ready_leave_no_node_for_a_worker(cluster: EmbeddedCluster, outside: Outside) -> None:
    without_devices(cluster.store)
    assert "FAB02" in codes(cluster, outside)
