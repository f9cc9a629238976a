"""What ends a rollout at once, what only after a while, and what is waited for."""

from typing import Any

import pytest

from steps.kinds import Manifest
from steps.objects.pod_status import state
from steps.rollout.causes import crashed_containers, pod_fault, pod_faults
from tests.support.group_objects import event, group_of, ready_pod
from tests.support.samples import release

NOT_FOUND = "rpc error: code = NotFound desc = failed to pull image: registry/x:1: not found"
TIMEOUT = "failed to do request: dial tcp 10.0.0.1:443: i/o timeout"


def pod(waiting: dict[str, Any] | None = None, restarts: int = 0, ended: dict[str, Any] | None = None) -> Manifest:
    group = group_of(release())
    found = ready_pod(group["spec"]["roles"][1], group, 0)
    found["status"]["conditions"][1]["status"] = "False"
    found["status"]["phase"] = "Pending" if waiting else "Running"
    found["status"]["containerStatuses"] = [
        {
            "name": "sglang-decode",
            "image": "registry/x:1",
            "ready": False,
            "restartCount": restarts,
            "state": {"waiting": waiting} if waiting else {"running": {}},
            "lastState": {"terminated": ended} if ended else {},
        }
    ]
    return found


def crash(code: int, restarts: int, reason: str = "Error", message: str = "") -> Manifest:
    return pod({"reason": "CrashLoopBackOff"}, restarts, {"exitCode": code, "reason": reason, "message": message})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (pod({"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}), "image registry/x:1 cannot"),
        (pod({"reason": "ErrImagePull", "message": NOT_FOUND}), "not found"),
        (pod({"reason": "ErrImagePull", "message": "401 Unauthorized"}), "serving.pod.imagePullSecrets"),
        (pod({"reason": "InvalidImageName", "message": "couldn't parse"}), "InvalidImageName"),
        (pod({"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}), 'secret "x" not found'),
        (pod({"reason": "RunContainerError", "message": "nvidia-container-cli"}, 2), "container runtime"),
        (crash(2, 0, message="usage: ...\nerror: unrecognized arguments: --x\n"), "unrecognized arguments: --x"),
        (crash(1, 1, message="Traceback\nRuntimeError: no GPU\n"), "2 times with exit code 1"),
        (crash(137, 0, "OOMKilled"), "serving.resources.memory"),
    ],
)
def test_what_time_will_not_mend_is_a_fault(found: Manifest, words: str) -> None:
    fault = pod_fault(found)
    assert words in fault
    assert "Next: " in fault


PULLED = "registry-vpc.cn-hangzhou.cr.aliyuncs.com/inference-platform/sglang-with-everything:v0.5.5-cu129-amd64"
WRAPPED = (
    f'Back-off pulling image "{PULLED}": ErrImagePull: failed to pull and unpack image "{PULLED}": failed to resolve '
    f'reference "{PULLED}": failed to do request: Head "https://{PULLED.replace(":", "/manifests/")}": '
)


@pytest.mark.parametrize("cause", ["dial tcp: lookup registry: no such host", f"{PULLED}: not found", "403 Forbidden"])
def test_of_an_image_that_cannot_be_pulled_the_cause_is_told_and_not_what_is_around_it(cause: str) -> None:
    fault = pod_fault(pod({"reason": "ImagePullBackOff", "message": WRAPPED + cause}))
    assert f"image registry/x:1 cannot be pulled: {cause}. Next: " in fault


def test_a_cause_that_may_pass_is_seen_behind_however_many_words() -> None:
    assert pod_fault(pod({"reason": "ImagePullBackOff", "message": WRAPPED + "dial tcp: i/o timeout"})) == ""


def test_pods_that_fail_for_one_reason_are_told_together() -> None:
    one, two, three = (pod({"reason": "ErrImagePull", "message": NOT_FOUND}) for _ in range(3))
    two["metadata"]["name"], three["metadata"]["name"] = "second", "third"
    three["status"]["containerStatuses"][0]["state"]["waiting"] = {"reason": "InvalidImageName"}
    first, last = pod_faults([one, two, three, pod()], [], {})
    assert first.startswith(f"pod {one['metadata']['name']} and 1 more: ErrImagePull")
    assert last.startswith("pod third: InvalidImageName")


@pytest.mark.parametrize(
    "found",
    [
        pod({"reason": "ContainerCreating"}),
        pod({"reason": "PodInitializing"}),
        pod(),
        pod(restarts=3),
        pod({"reason": "ErrImagePull", "message": "unexpected"}),
        pod({"reason": "ErrImagePull", "message": TIMEOUT}),
        pod({"reason": "ImagePullBackOff", "message": f"Back-off pulling image: ErrImagePull: {TIMEOUT}"}),
        pod({"reason": "ImagePullBackOff", "message": "unexpected status: 503 Service Unavailable"}),
        pod({"reason": "RunContainerError", "message": "x"}, 1),
        crash(1, 0),
        crash(137, 0, "Error"),
    ],
)
def test_what_time_may_mend_is_waited_for(found: Manifest) -> None:
    assert pod_fault(found) == ""


def test_a_ready_container_is_no_fault_whatever_it_went_through() -> None:
    found = crash(1, 9)
    found["status"]["containerStatuses"][0]["ready"] = True
    assert pod_fault(found) == ""


def test_a_pod_without_a_node_is_waited_for_with_the_words_of_the_scheduler() -> None:
    found = pod()
    words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    found["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}],
    }
    assert pod_fault(found) == ""
    assert state(found) == f"Unschedulable: {words}"


@pytest.mark.parametrize(("attempts", "is_fault"), [(1, False), (2, False), (3, True)])
def test_a_volume_that_cannot_be_mounted_three_times_is_a_fault(attempts: int, is_fault: bool) -> None:
    found = pod({"reason": "ContainerCreating"})
    events = [event(found, "FailedMount", "MountVolume.SetUp failed: 403 AccessDenied", attempts)]
    assert ("AccessDenied" in pod_fault(found, events)) is is_fault


def test_another_pods_event_says_nothing_about_this_one() -> None:
    found, other = pod({"reason": "ContainerCreating"}), pod({"reason": "ContainerCreating"})
    other["metadata"]["uid"] = "another"
    assert pod_fault(found, [event(other, "FailedMount", "x", 9)]) == ""


def test_the_log_speaks_where_the_container_left_no_message() -> None:
    found = crash(1, 2)
    assert crashed_containers(found) == ["sglang-decode"]
    assert "CUDA out of memory" in pod_fault(found, log="loading\nCUDA out of memory\n\n")
    assert crashed_containers(crash(1, 2, message="known")) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (pod({"reason": "ContainerCreating"}), "ContainerCreating"),
        (pod({"reason": "ErrImagePull", "message": TIMEOUT}), f"ErrImagePull ({TIMEOUT})"),
        (pod(), "Running but not Ready"),
        (pod(restarts=1), "Running but not Ready, restarted 1 time"),
    ],
)
def test_a_state_is_one_phrase(found: Manifest, words: str) -> None:
    assert state(found) == words
