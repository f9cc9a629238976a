"""Why a pod of the embedded cluster does not come up, in the words of a real one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_cluster import (
    ABSENT_IMAGE,
    CRASHING_IMAGE,
    NEVER_READY_IMAGE,
    ToyCluster,
    is_ready,
    toy_cluster,
    waiting_reason,
    worker_template,
)
from workflows.simulator.core.cluster.controllers.timing import FAST
from workflows.simulator.core.cluster.kubelet.environment import expand
from workflows.simulator.core.cluster.resources import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
)
from workflows.simulator.core.cluster.store import Manifest


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ToyCluster]:
    with toy_cluster(tmp_path) as cluster:
        yield cluster


def pod(image: str = "registry.example.com/toy:1", name: str = "solo", **spec: Any) -> Manifest:
    template = worker_template(image)
    metadata = {**template["metadata"], "name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] | spec}


def read(cluster: ToyCluster, name: str = "solo") -> Manifest:
    found = cluster.store.get(PODS, name, "default")
    assert found is not None
    found.setdefault("status", {})
    return found


def container_status(cluster: ToyCluster) -> Manifest:
    return dict(read(cluster)["status"].get("containerStatuses", [{}])[0])


def scheduled(cluster: ToyCluster, name: str = "solo") -> Manifest:
    conditions = read(cluster, name)["status"].get("conditions", [])
    return next((dict(one) for one in conditions if one["type"] == "PodScheduled"), {})


def test_a_ready_pod_shows_what_its_container_is(cluster: ToyCluster) -> None:
    cluster.volume()
    cluster.create(pod())
    cluster.until(lambda: is_ready(read(cluster)))
    status = read(cluster)["status"]
    assert status["phase"] == "Running"
    shown = container_status(cluster)
    assert (shown["ready"], shown["started"], shown["restartCount"]) == (True, True, 0)
    assert "running" in shown["state"]
    assert "@sha256:" in shown["imageID"]
    container = cluster.runtime.started[0].container
    assert container.args == ("--host", status["podIP"], "--unknown", "$(NOPE)")
    assert container.mounts["/models/toy"] / "config.json" == cluster.buckets / "objects/toys/models/toy/config.json"


def test_a_pod_that_fits_nowhere_says_why(cluster: ToyCluster) -> None:
    cluster.volume()
    wide = pod()
    wide["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "16"}}
    cluster.create(wide)
    expected = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu. preemption:"
    cluster.until(lambda: scheduled(cluster).get("message", "").startswith(expected))
    assert (scheduled(cluster)["status"], scheduled(cluster)["reason"]) == ("False", "Unschedulable")
    cluster.until(lambda: scheduled(cluster)["message"] in cluster.events("FailedScheduling"))


def test_a_node_selector_that_matches_nothing_says_so(cluster: ToyCluster) -> None:
    cluster.volume()
    cluster.create(pod(nodeSelector={"disk": "fast"}))
    cluster.until(lambda: "didn't match Pod's node affinity/selector" in scheduled(cluster).get("message", ""))


def test_gpus_are_counted_node_by_node(cluster: ToyCluster) -> None:
    cluster.volume()
    names = [f"pod-{index:02}" for index in range(13)]  # 3 nodes with 8 GPUs have room for 12 pods with 2
    for name in names:
        cluster.create(pod(name=name))
    cluster.until(lambda: sum(is_ready(one) for one in cluster.pods().values()) == 12)
    left = [name for name in names if not is_ready(read(cluster, name))]
    cluster.until(lambda: "4 Insufficient nvidia.com/gpu" in scheduled(cluster, left[0]).get("message", ""))
    cluster.store.delete(PODS, next(name for name in names if name not in left), "default")
    cluster.until(lambda: is_ready(read(cluster, left[0])))


def test_a_node_with_new_room_takes_the_pod_that_waits(cluster: ToyCluster) -> None:
    cluster.volume()
    wide = pod()
    wide["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "16"}}
    cluster.create(wide)
    cluster.until(lambda: scheduled(cluster).get("reason") == "Unschedulable")
    node = cluster.store.select(NODES, labels={"aliyun.accelerator/nvidia_count": "8"})[0]
    node["status"]["allocatable"]["nvidia.com/gpu"] = "16"
    cluster.store.replace(NODES, node, subresource="status")
    cluster.until(lambda: is_ready(read(cluster)))


def test_a_missing_claim_keeps_a_pod_from_being_scheduled(cluster: ToyCluster) -> None:
    cluster.create(pod())
    cluster.until(lambda: scheduled(cluster).get("message") == 'persistentvolumeclaim "llm-model" not found')
    cluster.volume()
    cluster.until(lambda: is_ready(read(cluster)))


def test_a_prefix_that_is_not_in_the_bucket_fails_to_mount_until_it_is(cluster: ToyCluster) -> None:
    cluster.claim(path="/models/later")
    cluster.create(pod())
    cluster.until(lambda: cluster.events("FailedMount"))
    message = cluster.events("FailedMount")[0]
    assert message.startswith('MountVolume.SetUp failed for volume "llm-model"')
    cluster.until(lambda: waiting_reason(read(cluster)) == "ContainerCreating")
    assert read(cluster)["status"]["phase"] == "Pending"
    (cluster.buckets / "objects/toys/models/later").mkdir(parents=True)
    cluster.until(lambda: is_ready(read(cluster)))


@pytest.mark.parametrize("data", [None, {"akId": "eA=="}])
def test_a_volume_without_its_secret_fails_to_mount(cluster: ToyCluster, data: dict[str, str] | None) -> None:
    cluster.volume()
    secret = cluster.store.get(SECRETS, "oss-key", "default")
    assert secret is not None
    if data is None:
        cluster.store.delete(SECRETS, "oss-key", "default")
    else:
        cluster.store.replace(SECRETS, {**secret, "data": data})
    cluster.create(pod())
    cluster.until(lambda: cluster.events("FailedMount"))
    wanted = 'secrets "oss-key" not found' if data is None else "lacks akSecret"
    assert wanted in cluster.events("FailedMount")[0]


def test_an_image_that_cannot_be_pulled_is_told_as_error_then_as_back_off(cluster: ToyCluster) -> None:
    cluster.volume()
    before = cluster.store.revision
    cluster.create(pod(ABSENT_IMAGE))

    def states() -> list[Manifest]:
        """All that the pod was so far: error and back-off take turns."""
        return [
            one.content
            for one in cluster.store.log.after(before)
            if one.key[1] == "pods" and one.content["metadata"]["name"] == "solo"
            if "status" in one.content
        ]

    cluster.until(lambda: "ImagePullBackOff" in map(waiting_reason, states()))
    found = states()
    seen = [waiting_reason(state) for state in found]
    assert seen.index("ErrImagePull") < seen.index("ImagePullBackOff")
    status = found[seen.index("ImagePullBackOff")]["status"]
    message = status["containerStatuses"][0]["state"]["waiting"]["message"]
    assert message == f'Back-off pulling image "{ABSENT_IMAGE}"'
    assert status["phase"] == "Pending"
    assert ABSENT_IMAGE in cluster.events("Failed")[0]


def test_a_container_that_ends_again_and_again_backs_off_and_keeps_its_last_words(cluster: ToyCluster) -> None:
    cluster.volume()
    cluster.create(pod(CRASHING_IMAGE))
    cluster.until(lambda: waiting_reason(read(cluster)) == "CrashLoopBackOff")
    last = container_status(cluster)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (3, "Error")
    assert last["message"].endswith("the last line")
    assert container_status(cluster)["restartCount"] >= 1
    cluster.until(lambda: container_status(cluster)["restartCount"] >= 3)
    assert cluster.control_plane.pod_log("default", "solo", "engine", True) == "engine starts\nthe last line\n"


def test_a_container_that_ends_once_is_started_again_and_serves(cluster: ToyCluster) -> None:
    cluster.volume()
    cluster.create(pod())
    cluster.until(lambda: is_ready(read(cluster)))
    cluster.runtime.started[0].crash()
    cluster.until(lambda: container_status(cluster)["restartCount"] == 1 and is_ready(read(cluster)))
    assert container_status(cluster)["lastState"]["terminated"]["exitCode"] == 1


def test_a_container_whose_health_is_bad_never_starts_nor_is_ready(cluster: ToyCluster) -> None:
    cluster.volume()
    cluster.create(pod(NEVER_READY_IMAGE))
    cluster.until(lambda: "running" in container_status(cluster).get("state", {}))
    shown = container_status(cluster)
    assert (shown["started"], shown["ready"]) == (False, False)
    ready = next(one for one in read(cluster)["status"]["conditions"] if one["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ContainersNotReady")


def test_a_startup_probe_that_never_passes_kills_the_container(tmp_path: Path) -> None:
    with toy_cluster(tmp_path, timing=replace(FAST, patience=0.0)) as cluster:
        cluster.volume()
        hopeless = pod(NEVER_READY_IMAGE)
        hopeless["spec"]["containers"][0]["startupProbe"]["failureThreshold"] = 2
        cluster.create(hopeless)
        cluster.until(lambda: waiting_reason(read(cluster)) == "CrashLoopBackOff")
        assert container_status(cluster)["lastState"]["terminated"]["exitCode"] == 137
        assert cluster.events("Unhealthy")


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe"])
def test_a_container_that_is_slow_because_this_machine_is_busy_is_not_killed(cluster: ToyCluster, probe: str) -> None:
    cluster.volume()
    slow = pod(NEVER_READY_IMAGE)
    engine = slow["spec"]["containers"][0]
    del engine["startupProbe"]
    engine[probe] = {**engine["readinessProbe"], "failureThreshold": 1}
    cluster.create(slow)
    cluster.until(lambda: cluster.runtime.started and cluster.runtime.started[0].asked >= 5)
    assert container_status(cluster)["restartCount"] == 0
    assert not cluster.events("Unhealthy")


def test_a_variable_from_a_secret_that_is_not_there_is_a_config_error(cluster: ToyCluster) -> None:
    cluster.volume()
    lacking = pod()
    reference = {"secretKeyRef": {"name": "no-such", "key": "token"}}
    lacking["spec"]["containers"][0]["env"].append({"name": "TOKEN", "valueFrom": reference})
    cluster.create(lacking)
    cluster.until(lambda: waiting_reason(read(cluster)) == "CreateContainerConfigError")
    assert container_status(cluster)["state"]["waiting"]["message"] == 'secret "no-such" not found'


def test_a_claim_in_use_is_deleted_only_after_its_pods(cluster: ToyCluster) -> None:
    cluster.volume()
    cluster.create(pod())
    cluster.until(lambda: is_ready(read(cluster)))
    before = cluster.store.revision
    cluster.store.delete(PERSISTENT_VOLUME_CLAIMS, "llm-model", "default")
    cluster.store.delete(PERSISTENT_VOLUMES, "llm-model")
    cluster.store.delete(PODS, "solo", "default")
    cluster.until(lambda: cluster.store.get(PERSISTENT_VOLUMES, "llm-model") is None)
    gone = [one.key[1] for one in cluster.store.log.after(before) if one.type == "DELETED"]
    kinds = (PODS.plural, PERSISTENT_VOLUME_CLAIMS.plural, PERSISTENT_VOLUMES.plural)
    assert [kind for kind in gone if kind in kinds] == list(kinds)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [("$(A)-$(B)", "1-$(B)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("$(A)$(A)", "11"), ("", "")],
)
def test_variables_expand_as_kubernetes_expands_them(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded
