"""A cluster that was killed is found again as after a reboot of its nodes."""

import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_cluster import PATIENCE, ToyCluster, group, image_of, is_ready, toy_cluster
from workflows.simulator.core.cluster.controllers.timing import FAST
from workflows.simulator.core.cluster.resources import DEPLOYMENTS, NODES, PODS, Resource
from workflows.simulator.core.cluster.seed import Seed, plant


def serve(cluster: ToyCluster) -> None:
    cluster.volume()
    cluster.create(group())
    cluster.until(lambda: is_ready(cluster.pods().get("sglang-pd-router-0")), "group is served")


def killed(cluster: ToyCluster, folder: Path) -> Path:
    """The files on disk at this very moment, as `kill -9` would leave it.

    The cluster is at work while its files are copied, but for its journal: that is several files, which would not fit
    together. A file that is gone by the time of its turn was gone when the cluster died.
    """
    try:
        with cluster.store.exclusive():
            shutil.copytree(cluster.folder, folder)
    except shutil.Error as error:
        if any(Path(source).exists() for source, _, _ in error.args[0]):
            raise
    return folder


def test_served_pods_serve_again_before_the_start_comes_back(tmp_path: Path) -> None:
    with toy_cluster(tmp_path / "first") as first:
        serve(first)
        left = killed(first, tmp_path / "second")
        before = first.pods()
    started = time.monotonic()
    with toy_cluster(left, timing=replace(FAST, reboot=PATIENCE)) as second:
        assert time.monotonic() - started < PATIENCE
        after = second.pods()
        assert {name: pod["metadata"]["uid"] for name, pod in after.items()} == {
            name: pod["metadata"]["uid"] for name, pod in before.items()
        }
        assert all(is_ready(pod) for pod in after.values())
        assert {pod["status"]["podIP"] for pod in after.values()} == {pod["status"]["podIP"] for pod in before.values()}
        assert {pod["status"]["containerStatuses"][0]["restartCount"] for pod in after.values()} == {1}
        dial = second.control_plane.network.dial("default")
        assert dial("sglang-pd-prefill-1.s-sglang-pd-prefill", 8000)


def test_the_start_does_not_come_back_before_the_objects_say_that_pods_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with toy_cluster(tmp_path) as first:
        serve(first)
    second = ToyCluster(tmp_path, timing=replace(FAST, reboot=PATIENCE))
    came_back = threading.Event()
    came_back_early = []
    replace_at_once = second.store.replace

    def replace_late(resource: Resource, manifest: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        if resource == PODS and "sglang" in manifest["metadata"]["name"] and is_ready(manifest):
            came_back_early.append(came_back.wait(0.2))
        return replace_at_once(resource, manifest, **options)

    monkeypatch.setattr(second.store, "replace", replace_late)
    with second:
        came_back.set()
        assert all(is_ready(pod) for pod in second.pods().values())
    assert came_back_early
    assert not any(came_back_early)


def test_a_rollout_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    with toy_cluster(tmp_path / "first") as first:
        serve(first)
        resource = first.kind("workloads.x-k8s.io/v1alpha1", "RoleBasedGroup")
        with first.ends_held():
            with first.store.exclusive():
                changed = first.store.get(resource, "sglang-pd", "default")
                assert changed is not None
                changed["spec"]["roles"][0]["template"]["spec"]["containers"][0]["image"] = "registry.example.com/toy:2"
                first.store.replace(resource, changed)
            first.until(lambda: "deletionTimestamp" in first.pods()["sglang-pd-prefill-1"]["metadata"])
            left = killed(first, tmp_path / "second")
    with toy_cluster(left) as second:
        second.until(
            lambda: (
                {image_of(pod) for name, pod in second.pods().items() if "prefill" in name and is_ready(pod)}
                == {"registry.example.com/toy:2"}
            )
        )


def test_a_pod_that_was_ending_is_gone_after_the_reboot(tmp_path: Path) -> None:
    with toy_cluster(tmp_path / "first") as first:
        serve(first)
    cluster = ToyCluster(tmp_path / "first")
    uid = cluster.pods()["sglang-pd-decode-0"]["metadata"]["uid"]
    cluster.store.delete(PODS, "sglang-pd-decode-0", "default")
    with cluster:
        cluster.until(
            lambda: cluster.pods().get("sglang-pd-decode-0", {"metadata": {"uid": uid}})["metadata"]["uid"] != uid
        )


def test_a_pod_that_can_not_come_back_does_not_hold_up_the_start_for_long(tmp_path: Path) -> None:
    with toy_cluster(tmp_path) as first:
        serve(first)
        folder = first.buckets
    shutil.rmtree(folder)
    started = time.monotonic()
    with toy_cluster(tmp_path, timing=replace(FAST, reboot=0.3)) as second:
        assert time.monotonic() - started < PATIENCE
        second.until(lambda: second.events("FailedMount"))
        second.until(lambda: not is_ready(second.pods()["sglang-pd-decode-0"]))


def test_what_a_person_breaks_stays_broken(tmp_path: Path) -> None:
    with toy_cluster(tmp_path) as first:
        name = first.store.select(NODES)[0]["metadata"]["name"]
        first.store.delete(NODES, name)
        first.store.delete(DEPLOYMENTS, "rbgs-controller-manager", "rbgs-system")
        first.until(lambda: not first.store.select(PODS, "rbgs-system"))
    with toy_cluster(tmp_path) as second:
        assert second.store.get(NODES, name) is None
        assert second.store.get(DEPLOYMENTS, "rbgs-controller-manager", "rbgs-system") is None
        # Another document may ask for more, and gets it.
        plant(second.store, Seed(namespaces=("slipway", "serving")))
        assert second.store.get(second.kind("v1", "Namespace"), "serving") is not None
