"""Differences between releases of the RBG operator, as the embedded one simulates them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_cluster import ToyCluster, group, image_of, is_ready, toy_cluster
from workflows.simulator.core.cluster.controllers.operator_style import V04, V08
from workflows.simulator.core.cluster.resources import SERVICES, STATEFUL_SETS
from workflows.simulator.core.cluster.store import Manifest

NEW_IMAGE = "registry.example.com/toy:2"


def newer_group(update: str) -> dict[str, Any]:
    """The same group in the v1alpha2 form."""
    older = group()
    roles = [
        {
            "name": role["name"],
            "replicas": role["replicas"],
            "rolloutStrategy": {"type": "RollingUpdate", "rollingUpdate": {"type": update, "maxUnavailable": 1}},
            "standalonePattern": {"template": role["template"]},
            **({"dependencies": role["dependencies"]} if "dependencies" in role else {}),
        }
        for role in older["spec"]["roles"]
    ]
    return {**older, "apiVersion": "workloads.x-k8s.io/v1alpha2", "spec": {"roles": roles}}


def change_image(cluster: ToyCluster) -> None:
    resource = cluster.kind("workloads.x-k8s.io/v1alpha2", "RoleBasedGroup")
    with cluster.store.exclusive():
        found = read_group(cluster)
        found["spec"]["roles"][0]["standalonePattern"]["template"]["spec"]["containers"][0]["image"] = NEW_IMAGE
        cluster.store.replace(resource, found)


def read_group(cluster: ToyCluster) -> Manifest:
    found = cluster.store.get(cluster.kind("workloads.x-k8s.io/v1alpha2", "RoleBasedGroup"), "sglang-pd", "default")
    assert found is not None
    return found


def prefill(cluster: ToyCluster) -> list[Manifest]:
    return [pod for name, pod in cluster.pods(app="sglang-pd").items() if "prefill" in name]


def is_rolled(cluster: ToyCluster) -> bool:
    pods = prefill(cluster)
    sets = cluster.kind("workloads.x-k8s.io/v1alpha2", "RoleInstanceSet")
    status = (cluster.store.get(sets, "sglang-pd-prefill", "default") or {}).get("status") or {}
    return (
        len(pods) == 2
        and all(is_ready(pod) and image_of(pod) == NEW_IMAGE for pod in pods)
        and status.get("updatedReadyReplicas") == status.get("readyReplicas") == 2
        and status.get("currentRevision") == status.get("updateRevision")
    )


@pytest.fixture
def newer(tmp_path: Path) -> Iterator[ToyCluster]:
    with toy_cluster(tmp_path, operator=V08) as cluster:
        cluster.volume()
        yield cluster


def test_the_oldest_release_names_its_services_like_its_workloads(tmp_path: Path) -> None:
    with toy_cluster(tmp_path, operator=V04) as cluster:
        cluster.volume()
        cluster.create(group())
        cluster.until(lambda: is_ready(cluster.pods().get("sglang-pd-router-0")))
        assert cluster.store.get(SERVICES, "sglang-pd-prefill", "default")
        assert cluster.control_plane.network.dial("default")("sglang-pd-prefill-0.sglang-pd-prefill", 8000)


def test_a_service_of_the_workloads_name_is_taken_for_the_governing_one(tmp_path: Path) -> None:
    with toy_cluster(tmp_path) as cluster:
        cluster.volume()
        cluster.create(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "sglang-pd-prefill", "namespace": "default"},
                "spec": {"clusterIP": "None", "selector": {"pd-role": "prefill"}},
            }
        )
        cluster.create(group())
        cluster.until(lambda: is_ready(cluster.pods().get("sglang-pd-prefill-0")))
        assert cluster.pods()["sglang-pd-prefill-0"]["spec"]["subdomain"] == "sglang-pd-prefill"
        assert cluster.store.get(SERVICES, "s-sglang-pd-prefill", "default") is None


def test_a_newer_release_makes_role_instance_sets_with_labels_and_variables_of_its_own(newer: ToyCluster) -> None:
    newer.create(newer_group("RecreatePod"))
    newer.until(lambda: is_ready(newer.pods().get("sglang-pd-router-0")))
    assert newer.store.select(STATEFUL_SETS) == []
    labels = prefill(newer)[1]["metadata"]["labels"]
    assert labels["rbg.workloads.x-k8s.io/group-name"] == "sglang-pd"
    assert labels["rbg.workloads.x-k8s.io/role-name"] == "prefill"
    assert labels["rbg.workloads.x-k8s.io/role-instance-index"] == "1"
    env = newer.runtime.of("sglang-pd-prefill-1")[0].container.env
    assert (env["RBG_GROUP_NAME"], env["RBG_ROLE_NAME"], env["RBG_ROLE_INDEX"]) == ("sglang-pd", "prefill", "1")
    assert newer.control_plane.network.dial("default")("sglang-pd-prefill-1.s-sglang-pd-prefill", 8000)


def test_pods_are_made_anew_when_the_group_says_so(newer: ToyCluster) -> None:
    newer.create(newer_group("RecreatePod"))
    newer.until(lambda: is_ready(newer.pods().get("sglang-pd-router-0")))
    before = {pod["metadata"]["uid"] for pod in prefill(newer)}
    change_image(newer)
    newer.until(lambda: is_rolled(newer))
    assert before.isdisjoint({pod["metadata"]["uid"] for pod in prefill(newer)})


def test_another_image_alone_is_otherwise_changed_in_place(newer: ToyCluster) -> None:
    newer.create(newer_group("InPlaceIfPossible"))
    newer.until(lambda: is_ready(newer.pods().get("sglang-pd-router-0")))
    before = {pod["metadata"]["uid"] for pod in prefill(newer)}
    change_image(newer)
    newer.until(lambda: is_rolled(newer))
    assert before == {pod["metadata"]["uid"] for pod in prefill(newer)}
    assert newer.runtime.of("sglang-pd-prefill-0")[-1].container.image == NEW_IMAGE


def test_the_newer_release_tells_the_same_untruth(newer: ToyCluster) -> None:
    newer.create(newer_group("RecreatePod"))
    newer.until(lambda: is_ready(newer.pods().get("sglang-pd-router-0")) and is_ready(read_group(newer)))
    with newer.ends_held():
        change_image(newer)
        newer.until(lambda: is_ready(group := read_group(newer)) and group["status"]["observedGeneration"] == 2)
        assert all(image_of(pod) != NEW_IMAGE for pod in prefill(newer))
    newer.until(lambda: is_rolled(newer))
