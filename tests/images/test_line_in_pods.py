"""Every step does its work as a pod of a real cluster, confined as the workflow confines it.

Needs SLIPWAY_TEST_NODE, a kubeconfig of a cluster whose one node is this machine and has the image SLIPWAY_TEST_IMAGE,
and SLIPWAY_TEST_HOST, the address at which its pods reach this machine.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiClient, CoreV1Api
from kubernetes.config import new_client_from_config
from kubernetes.dynamic import DynamicClient

import steps
from tests.support.image_line import USER, Work, changed, embedded, run_every_step

pytestmark = [pytest.mark.timeout(900), pytest.mark.cluster]
SECONDS = 300
NAMESPACE = "default"
CHANGING = ("download-model", "upload-model", "mirror-model", "create-volume", "roll-out-service", "promote-release")


def setting(name: str) -> str:
    value = os.environ.get(name, "")  # noqa: TID251  # where to find what is tested
    if not value:
        pytest.skip(f"{name} is not set: no node of a real cluster to run pods on")
    return value


def test_every_step_does_its_task_as_a_pod_of_a_real_cluster(tmp_path: Path) -> None:
    kubeconfig, host = setting("SLIPWAY_TEST_NODE"), setting("SLIPWAY_TEST_HOST")
    image = os.environ.get("SLIPWAY_TEST_IMAGE", f"localhost/slipway:{steps.__version__}")  # noqa: TID251  # as above
    with new_client_from_config(kubeconfig) as client, embedded(tmp_path, host) as addresses:
        said = run_every_step(lambda work: run_pod(client, image, work), addresses, tmp_path)

    assert [name for name in CHANGING if not changed(said[name])] == []


def run_pod(client: ApiClient, image: str, work: Work) -> tuple[int, str]:
    pods = DynamicClient(client).resources.get(api_version="v1", kind="Pod")
    name = f"slipway-image-{work.task.name}"
    pods.create(body=pod(name, image, work), namespace=NAMESPACE)
    try:
        state = terminated(pods, name)
        log = CoreV1Api(client).read_namespaced_pod_log(name, NAMESPACE)
        return state["exitCode"], f"{log}\n{state.get('message', '')}"
    finally:
        pods.delete(name=name, namespace=NAMESPACE, body={"gracePeriodSeconds": 0})


def terminated(pods: Any, name: str) -> dict[str, Any]:
    """How the only container of the pod ended."""
    found: dict[str, Any] = {}
    for event in pods.watch(namespace=NAMESPACE, name=name, timeout=SECONDS):
        statuses = event["raw_object"].get("status", {}).get("containerStatuses", [{}])
        found = statuses[0].get("state", {})
        if "terminated" in found:
            return dict(found["terminated"])
    pytest.fail(f"{name} did not end within {SECONDS} s: {found}")


def pod(name: str, image: str, work: Work) -> dict[str, Any]:
    folders = {path.strip("/"): folder for path, folder in work.folders.items()}
    mounts = [{"name": volume, "mountPath": f"/{volume}"} for volume in folders]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "command": list(work.command[:3]),
                    "args": list(work.command[3:]),
                    "env": [{"name": key, "value": value} for key, value in work.environment.items()],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": True,
                    },
                    "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [
                *({"name": volume, "hostPath": {"path": str(folder)}} for volume, folder in folders.items()),
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }
