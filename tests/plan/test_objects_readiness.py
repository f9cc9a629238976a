"""Every way in which a group can appear ready without being so."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from steps.kinds import HASH_LABEL, V1ALPHA2, Manifest
from steps.objects.group_operator import GroupOperator
from steps.rollout.observation import GroupObservation
from steps.rollout.readiness import fingerprint, gate, stable
from tests.support.group_objects import OPERATOR, deleted, event, group_of, ready_group
from tests.support.samples import release

WANTED = group_of(release())
NEW_API = GroupOperator(V1ALPHA2, "s-")
GROUP = release().group
Spoil = Callable[[GroupObservation], GroupObservation]


def spoiled(observed: GroupObservation) -> GroupObservation:
    return copy.deepcopy(observed)


def group_status(**status: Any) -> Spoil:
    def spoil(observed: GroupObservation) -> GroupObservation:
        assert observed.group is not None
        observed.group["status"].update(status)
        return observed

    return spoil


def generation(number: int) -> Spoil:
    def spoil(observed: GroupObservation) -> GroupObservation:
        assert observed.group is not None
        observed.group["metadata"]["generation"] = number
        observed.group["status"]["roleStatuses"] = []
        return observed

    return spoil


def workload(role: str, section: str, **values: Any) -> Spoil:
    def spoil(observed: GroupObservation) -> GroupObservation:
        found = observed.workloads[role]
        assert found is not None
        found[section].update(values)
        return observed

    return spoil


def without_workload(role: str) -> Spoil:
    return lambda observed: replace(observed, workloads={**observed.workloads, role: None})


def old_template(role: str) -> Spoil:
    def spoil(observed: GroupObservation) -> GroupObservation:
        found = observed.workloads[role]
        assert found is not None
        found["spec"]["template"]["metadata"]["labels"][HASH_LABEL] = "older"
        return observed

    return spoil


def partition(role: str, number: int) -> Spoil:
    def spoil(observed: GroupObservation) -> GroupObservation:
        found = observed.workloads[role]
        assert found is not None
        found["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = number
        return observed

    return spoil


def pod(index: int, change: Callable[[Manifest], Any]) -> Spoil:
    def spoil(observed: GroupObservation) -> GroupObservation:
        pods = list(observed.pods)
        pods[index] = change(pods[index]) or pods[index]
        return replace(observed, pods=tuple(pods))

    return spoil


def relabelled(found: Manifest) -> None:
    found["metadata"]["labels"][HASH_LABEL] = "older"


def unready(found: Manifest) -> None:
    found["status"]["conditions"][1]["status"] = "False"


def without_pod(index: int) -> Spoil:
    return lambda observed: replace(observed, pods=observed.pods[:index] + observed.pods[index + 1 :])


def with_pod_again(index: int) -> Spoil:
    def spoil(observed: GroupObservation) -> GroupObservation:
        extra = copy.deepcopy(observed.pods[index])
        extra["metadata"] |= {"name": "one-more", "uid": "one-more"}
        return replace(observed, pods=(*observed.pods, extra))

    return spoil


def test_a_group_that_serves_passes() -> None:
    plan = gate(WANTED, ready_group(WANTED))
    assert plan.converged
    words = (
        f"RoleBasedGroup/default/{GROUP} serves: prefill 2/2, decode 1/1, router 1/1 ready, all of the wanted template"
    )
    assert plan.ok == (words,)


def test_a_group_of_the_newer_api_passes() -> None:
    wanted = group_of(release(), NEW_API)
    assert gate(wanted, ready_group(wanted)).converged


LIES: dict[str, tuple[Spoil, str]] = {
    "no group": (lambda observed: replace(observed, group=None), "to exist"),
    "group is leaving": (lambda observed: replace(observed, group=deleted(observed.group or {})), "is being deleted"),
    "generation not seen": (generation(4), "generation 4, observed 1"),
    "not Ready": (
        group_status(conditions=[{"type": "Ready", "status": "False", "reason": "RoleNotReady"}]),
        "to report Ready: RoleNotReady",
    ),
    "no condition": (group_status(conditions=[]), "no such condition"),
    "Ready, but no workload yet": (without_workload("prefill"), "to be created by the operator"),
    "Ready, but the workload has the old template": (old_template("decode"), "to get the wanted template"),
    "workload not seen": (workload("router", "metadata", generation=3), "generation 3, observed 2"),
    "workload not scaled": (workload("prefill", "spec", replicas=1), "to be scaled to 2"),
    "partition left": (partition("prefill", 1), "partition 1, expected 0"),
    "update not finished": (workload("decode", "status", updateRevision="r2"), "r1 is current, r2 is wanted"),
    "too few updated": (workload("prefill", "status", updatedReplicas=1), "to count 2: updatedReplicas 1"),
    "too few ready": (workload("prefill", "status", readyReplicas=1), "to count 2: readyReplicas 1"),
    "too many": (workload("prefill", "status", replicas=3), "to count 2: replicas 3"),
    "a pod missing": (without_pod(0), "prefill 1/2 ready: not all pods are created"),
    "no router yet": (without_pod(3), "router 0/1 ready: not all pods are created"),
    "a pod too many": (with_pod_again(2), "decode 2/1 ready: 1 too many"),
    "a pod of the old template": (pod(2, relabelled), "of an older template is still there"),
    "a pod not ready": (pod(1, unready), f"{GROUP}-prefill-1 is Running but not Ready"),
    "a pod is leaving": (pod(0, deleted), f"{GROUP}-prefill-0 is Terminating"),
}


@pytest.mark.parametrize("lie", LIES)
def test_the_gate_stays_shut(lie: str) -> None:
    spoil, words = LIES[lie]
    plan = gate(WANTED, spoil(spoiled(ready_group(WANTED))))
    assert len(plan.waiting) == 1
    assert not plan.failed
    assert words in plan.waiting[0]


def test_the_newer_api_counts_pods_that_are_updated_and_ready() -> None:
    wanted = group_of(release(), NEW_API)
    observed = workload("prefill", "status", updatedReadyReplicas=1)(spoiled(ready_group(wanted)))
    assert "to count 2: updatedReadyReplicas 1" in gate(wanted, observed).waiting[0]


def test_a_group_kept_as_stateful_sets_is_looked_up_as_such_under_the_newer_api() -> None:
    wanted = group_of(release(), NEW_API)
    observed = spoiled(ready_group(wanted))
    assert observed.group is not None
    for role in observed.group["spec"]["roles"]:
        role["annotations"] = {"rbg.workloads.x-k8s.io/role-workload-type": "apps/v1/StatefulSet"}
    assert gate(wanted, replace(observed, workloads=ready_group(WANTED).workloads)).converged


def test_an_old_operator_that_leaves_its_generation_behind_is_believed_by_its_counts() -> None:
    observed = spoiled(ready_group(WANTED))
    assert observed.group is not None
    observed.group["metadata"]["generation"] = 5
    assert gate(WANTED, observed).converged


def test_one_line_says_how_far_each_role_is() -> None:
    observed = without_pod(3)(pod(0, unready)(spoiled(ready_group(WANTED))))
    prefill = f"prefill 1/2 ready: {GROUP}-prefill-0 is Running but not Ready"
    router = "router 0/1 ready: not all pods are created"
    assert gate(WANTED, observed).waiting == (f"{prefill}, decode 1/1 ready, {router}",)


def test_a_role_that_the_operator_holds_back_says_why() -> None:
    observed = without_workload("router")(without_pod(3)(spoiled(ready_group(WANTED))))
    assert observed.group is not None
    observed = replace(observed, events=(event(observed.group, "DependencyNotMet", "decode is not ready"),))
    assert gate(WANTED, observed).waiting[0].endswith("the operator reports DependencyNotMet: decode is not ready")


def test_a_volume_that_cannot_be_mounted_explains_the_pod() -> None:
    def creating(found: Manifest) -> None:
        unready(found)
        found["status"]["containerStatuses"][0] |= {
            "ready": False,
            "state": {"waiting": {"reason": "ContainerCreating"}},
        }

    observed = pod(2, creating)(spoiled(ready_group(WANTED)))
    observed = replace(observed, events=(event(observed.pods[2], "FailedMount", "bucket does not exist"),))
    assert f"{GROUP}-decode-0 is ContainerCreating (bucket does not exist)" in gate(WANTED, observed).waiting[0]


def crashing(found: Manifest) -> None:
    unready(found)
    found["status"]["containerStatuses"][0] |= {
        "ready": False,
        "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "message": "no such device erdma_0"}},
    }


def test_a_pod_that_cannot_come_up_ends_the_wait_with_its_reason() -> None:
    plan = gate(WANTED, pod(2, crashing)(spoiled(ready_group(WANTED))))
    assert len(plan.failed) == 1
    assert "no such device erdma_0" in plan.failed[0]


@pytest.mark.parametrize("leaving", [relabelled, deleted])
def test_a_broken_pod_on_its_way_out_ends_nothing(leaving: Callable[[Manifest], Any]) -> None:
    observed = pod(2, leaving)(pod(2, crashing)(spoiled(ready_group(WANTED))))
    assert not gate(WANTED, observed).failed


def test_a_group_that_was_seen_to_become_ready_must_be_seen_so_twice() -> None:
    ready = ready_group(WANTED)
    starting = fingerprint(pod(1, unready)(spoiled(ready)))
    assert "to stay ready" in stable(WANTED, ready, starting).waiting[0]
    assert stable(WANTED, ready, fingerprint(ready)).converged


def test_a_restart_between_two_observations_counts_as_falling_back() -> None:
    ready = ready_group(WANTED)

    def restarted(found: Manifest) -> None:
        found["status"]["containerStatuses"][0]["restartCount"] = 1

    assert stable(WANTED, pod(0, restarted)(spoiled(ready)), fingerprint(ready)).waiting


def test_a_group_that_is_ready_at_the_first_observation_needs_no_second() -> None:
    assert stable(WANTED, ready_group(WANTED), None).converged


def test_the_operator_of_the_samples_is_the_common_one() -> None:
    assert WANTED["apiVersion"] == OPERATOR.api_version
