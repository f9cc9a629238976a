"""The actions of the embedded RBG operator and its StatefulSets on a group, and their order."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_cluster import ToyCluster, group, image_of, is_ready, toy_cluster
from workflows.simulator.core.cluster.controllers.groups import RefusedError, in_order
from workflows.simulator.core.cluster.controllers.partitions import next_partition
from workflows.simulator.core.cluster.resources import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)
from workflows.simulator.core.cluster.store import Manifest

NEW_IMAGE = "registry.example.com/toy:2"
GROUP = ("sglang-pd", "default")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ToyCluster]:
    with toy_cluster(tmp_path) as cluster:
        cluster.volume()
        yield cluster


@pytest.fixture
def served(cluster: ToyCluster) -> ToyCluster:
    cluster.create(group())
    cluster.until(lambda: len(cluster.pods(app="sglang-pd")) == 4 and is_settled(cluster), "group is served")
    return cluster


def read_group(cluster: ToyCluster) -> Manifest:
    found = cluster.store.get(cluster.kind("workloads.x-k8s.io/v1alpha1", "RoleBasedGroup"), *GROUP)
    assert found is not None
    return found


def change(cluster: ToyCluster, edit: Any) -> None:
    resource = cluster.kind("workloads.x-k8s.io/v1alpha1", "RoleBasedGroup")
    with cluster.store.exclusive():
        found = read_group(cluster)
        edit({role["name"]: role for role in found["spec"]["roles"]})
        cluster.store.replace(resource, found)


def is_settled(cluster: ToyCluster) -> bool:
    """The gate that holds on every release: workloads by generation and revision, then pods."""
    sets = cluster.store.select(STATEFUL_SETS, "default")
    return bool(sets) and all(_is_rolled_out(one) for one in sets) and is_ready(read_group(cluster))


def _is_rolled_out(one: Manifest) -> bool:
    status, spec = one.get("status") or {}, one["spec"]
    counts = {status.get(name) for name in ("replicas", "readyReplicas", "updatedReplicas")}
    return (
        status.get("observedGeneration") == one["metadata"]["generation"]
        and counts == {spec["replicas"]}
        and status["currentRevision"] == status["updateRevision"]
        and spec["updateStrategy"]["rollingUpdate"]["partition"] == 0
    )


def uids(cluster: ToyCluster) -> dict[str, str]:
    return {name: pod["metadata"]["uid"] for name, pod in cluster.pods(app="sglang-pd").items()}


def statuses(cluster: ToyCluster, after: int) -> list[tuple[int, Manifest]]:
    """Every state of the group since a revision, with the revision."""
    changes = cluster.store.log.after(after)
    return [(one.revision, one.content) for one in changes if one.key[1] == "rolebasedgroups"]


def test_a_group_becomes_pods_with_names_that_dns_knows(served: ToyCluster) -> None:
    pods = served.pods(app="sglang-pd")
    assert list(pods) == ["sglang-pd-decode-0", "sglang-pd-prefill-0", "sglang-pd-prefill-1", "sglang-pd-router-0"]
    prefill = pods["sglang-pd-prefill-1"]
    assert (prefill["spec"]["hostname"], prefill["spec"]["subdomain"]) == (
        "sglang-pd-prefill-1",
        "s-sglang-pd-prefill",
    )
    labels = prefill["metadata"]["labels"]
    assert labels["rolebasedgroup.workloads.x-k8s.io/name"] == "sglang-pd"
    assert labels["rolebasedgroup.workloads.x-k8s.io/role"] == "prefill"
    assert labels["apps.kubernetes.io/pod-index"] == "1"
    service = served.store.get(SERVICES, "s-sglang-pd-prefill", "default")
    assert service is not None
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert len({pod["status"]["podIP"] for pod in pods.values()}) == 4


def test_a_role_is_made_once_its_dependencies_are_ready(served: ToyCluster) -> None:
    changes = [one for one in served.store.log.after(served.store.log._forgotten) if one.key[1] == "statefulsets"]
    router = next(one.revision for one in changes if one.content["metadata"]["name"] == "sglang-pd-router")
    before = {one.content["metadata"]["name"]: one.content for one in changes if one.revision < router}
    assert {name: one["status"]["readyReplicas"] for name, one in before.items()} == {
        "sglang-pd-prefill": 2,
        "sglang-pd-decode": 1,
    }
    assert served.events("DependencyNotMet") == ["dependencies not met for role 'router'"]


def test_the_operator_calls_a_group_ready_at_its_new_generation_before_a_new_pod_exists(served: ToyCluster) -> None:
    with served.ends_held():
        change(served, lambda roles: roles["prefill"]["template"]["spec"]["containers"][0].update(image=NEW_IMAGE))

        def lie() -> Manifest | None:
            found = read_group(served)
            return found if is_ready(found) and found["status"]["observedGeneration"] == 2 else None

        told = served.until(lie)
        assert all(image_of(pod) != NEW_IMAGE for pod in served.pods(app="sglang-pd").values())
    # Its count of updated pods is that of the old revision.
    assert told["status"]["roleStatuses"][0] == {
        "name": "prefill",
        "replicas": 2,
        "readyReplicas": 2,
        "updatedReplicas": 2,
    }


def test_ready_goes_back_once_after_a_group_was_first_ready(served: ToyCluster) -> None:
    served.until(lambda: _turns(served) == ["True", "False", "True"], "Ready flaps once")


def _turns(cluster: ToyCluster) -> list[str]:
    """The values of Ready since it was first true, without repetitions."""
    found = [str(is_ready(content)) for _, content in statuses(cluster, cluster.store.log._forgotten)]
    turns = [value for index, value in enumerate(found) if index == 0 or value != found[index - 1]]
    return turns[turns.index("True") :] if "True" in turns else []


def test_a_new_image_replaces_the_pods_from_the_highest_ordinal_one_at_a_time(served: ToyCluster) -> None:
    old, before = uids(served), served.store.revision
    change(served, lambda roles: roles["prefill"]["template"]["spec"]["containers"][0].update(image=NEW_IMAGE))
    served.until(
        lambda: image_of(served.pods().get("sglang-pd-prefill-0", _no_pod())) == NEW_IMAGE and is_settled(served)
    )
    assert read_group(served)["status"]["observedGeneration"] == 2
    changed = {name for name, uid in uids(served).items() if old[name] != uid}
    assert changed == {"sglang-pd-prefill-0", "sglang-pd-prefill-1"}
    events = [one for one in served.store.log.after(before) if one.key[1] == "pods"]
    gone = [one.content["metadata"]["name"] for one in events if one.type == "DELETED"]
    assert gone == ["sglang-pd-prefill-1", "sglang-pd-prefill-0"]
    second_gone = next(
        one.revision for one in events if one.type == "DELETED" and one.content["metadata"]["name"] == gone[1]
    )
    assert any(
        one.revision < second_gone and is_ready(one.content) and image_of(one.content) == NEW_IMAGE for one in events
    )


def test_one_more_replica_leaves_every_other_pod_alone(served: ToyCluster) -> None:
    old = uids(served)
    change(served, lambda roles: roles["prefill"].update(replicas=3))
    served.until(lambda: "sglang-pd-prefill-2" in served.pods() and is_settled(served))
    now = uids(served)
    assert now.keys() - old.keys() == {"sglang-pd-prefill-2"}
    assert {name: now[name] for name in old} == old
    change(served, lambda roles: roles["prefill"].update(replicas=2))
    served.until(lambda: uids(served) == old and is_settled(served))


def has_none(cluster: ToyCluster, kind: Resource) -> bool:
    return not cluster.store.select(kind, "default")


def test_deleting_a_group_takes_everything_that_was_made_for_it(served: ToyCluster) -> None:
    resource = served.kind("workloads.x-k8s.io/v1alpha1", "RoleBasedGroup")
    served.store.delete(resource, *GROUP)
    served.until(lambda: not served.pods(), "pods are gone")
    for kind in (STATEFUL_SETS, SERVICES, CONTROLLER_REVISIONS, CONFIG_MAPS):
        served.until(partial(has_none, served, kind), kind.plural)
    assert all(toy.stopped for toy in served.runtime.started)


def test_a_removed_role_takes_its_workload_along(served: ToyCluster) -> None:
    resource = served.kind("workloads.x-k8s.io/v1alpha1", "RoleBasedGroup")
    with served.store.exclusive():
        found = read_group(served)
        found["spec"]["roles"] = [role for role in found["spec"]["roles"] if role["name"] != "router"]
        served.store.replace(resource, found)
    served.until(lambda: "sglang-pd-router-0" not in served.pods())


def test_a_deleted_pod_ends_gracefully_and_comes_back(served: ToyCluster) -> None:
    old, before = uids(served)["sglang-pd-decode-0"], served.store.revision
    served.store.delete(PODS, "sglang-pd-decode-0", "default")
    served.until(lambda: uids(served).get("sglang-pd-decode-0", old) != old and is_settled(served))
    events = [one for one in served.store.log.after(before) if one.content["metadata"].get("uid") == old]
    assert events[0].content["metadata"]["deletionTimestamp"]
    assert events[-1].type == "DELETED"
    assert served.runtime.of("sglang-pd-decode-0")[0].stopped


def test_without_a_running_operator_nothing_is_made_of_a_group(cluster: ToyCluster) -> None:
    deployments, name = cluster.kind("apps/v1", "Deployment"), ("rbgs-controller-manager", "rbgs-system")
    found = cluster.store.get(deployments, *name)
    assert found is not None
    assert found["status"]["readyReplicas"] == 2
    cluster.store.replace(deployments, {**found, "spec": {**found["spec"], "replicas": 0}})
    cluster.until(lambda: (cluster.store.get(deployments, *name) or {})["status"]["readyReplicas"] == 0)
    cluster.create(group())
    cluster.claim(name="later")
    cluster.until(lambda: _is_bound(cluster, "later"))
    assert not cluster.store.select(STATEFUL_SETS)


@pytest.mark.parametrize("needs", [{"a": ["b"], "b": ["a"]}, {"a": ["missing"]}])
def test_roles_that_need_each_other_or_nobody_are_refused(needs: dict[str, list[str]]) -> None:
    roles = [{"name": name, "dependencies": dependencies} for name, dependencies in needs.items()]
    with pytest.raises(RefusedError) as refused:
        in_order({"spec": {"roles": roles}})
    assert refused.value.reason == "InvalidRoleDependency"


@pytest.mark.parametrize(
    ("states", "step", "current", "expected"),
    [
        ([(True, False)] * 3, 1, 3, 2),  # all are old: the highest goes first
        ([(True, False), (True, False), (True, True)], 1, 2, 1),
        ([(True, False), (True, False), (False, True)], 1, 2, 2),  # the new one is not ready yet
        ([(False, False), (True, False), (True, True)], 1, 2, 2),  # one is down already, so no second one
        ([(True, True)] * 3, 1, 1, 0),
        ([(True, False)] * 4, 2, 4, 2),
        ([(True, False)] * 3, 1, 1, 1),  # it never rises
    ],
)
def test_the_partition_falls_as_pods_become_ready(
    states: list[tuple[bool, bool]], step: int, current: int, expected: int
) -> None:
    assert next_partition(states, step, current) == expected


def _is_bound(cluster: ToyCluster, name: str) -> bool:
    claim = cluster.store.get(PERSISTENT_VOLUME_CLAIMS, name, "default")
    return claim is not None and (claim.get("status") or {}).get("phase") == "Bound"


def _no_pod() -> dict[str, Any]:
    return {"spec": {"containers": [{"image": ""}]}}
