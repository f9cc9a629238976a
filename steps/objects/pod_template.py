"""Pod templates of a release: workers and router.

A pod template depends on the inputs of `Release.id` alone, except for the list of workers of the router: any other
change is another release, which is proved beside the old one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from steps.document.pod_fields import Pod
from steps.document.schema import Resources, Serving
from steps.kinds import ERDMA, GPU, HASH_LABEL, RELEASE_LABEL, ROLE_LABEL, SERVICE_LABEL
from steps.objects.probes import router_probes, worker_probes
from steps.release import Release, content_hash
from steps.sglang.flags import (
    HEALTH_FAILURES,
    HEALTH_INTERVAL,
    ROUTER_COMMAND,
    ROUTER_METRICS_PORT,
    WORKER_COMMAND,
    WorkerRole,
    router_args,
    worker_args,
    worker_env,
)

PodTemplate = dict[str, Any]

HASH_LENGTH = 10
# Longer than any generation in flight: SGLang drains without an upper bound after SIGTERM.
WORKER_GRACE = 600  # seconds
# The router's own `--shutdown-grace-period-secs` is 180.
ROUTER_GRACE = 240  # seconds
# Deleting a group stops router and workers at the same moment. The workers wait until the router accepts no more
# requests and has removed the workers that are gone.
WORKER_PRE_STOP = HEALTH_INTERVAL * HEALTH_FAILURES + 5  # seconds
# Endpoints reach every node some seconds after a pod starts to terminate; until then the router must serve.
ROUTER_PRE_STOP = 5  # seconds

_ROUTER_RESOURCES = {"cpu": "4", "memory": "8Gi"}


def worker_template(release: Release, role: WorkerRole) -> PodTemplate:
    """Pod of a prefill or decode worker."""
    worker = release.service.serving.worker(role)
    spec = {
        **_pod_defaults(WORKER_GRACE, worker.pod),
        "containers": [_worker(release, role)],
        "volumes": [
            {"name": "model", "persistentVolumeClaim": {"claimName": release.volume_name, "readOnly": True}},
            {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": worker.resources.shared_memory}},
        ],
    }
    return _template(release, role, spec, _monitoring_labels(release, role))


def router_template(release: Release, prefill: Sequence[str], decode: Sequence[str]) -> PodTemplate:
    """Pod of the router in front of workers at these addresses."""
    serving = release.service.serving
    container = {
        "name": "router",
        "image": serving.router.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(ROUTER_COMMAND),
        "args": router_args(serving, prefill, decode),
        "ports": [_port("http", serving.ports.http), _port("metrics", ROUTER_METRICS_PORT)],
        **router_probes(serving),
        "resources": _resources(_ROUTER_RESOURCES),
        "lifecycle": _pre_stop(ROUTER_PRE_STOP),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return _template(release, "router", {**_pod_defaults(ROUTER_GRACE, serving.pod), "containers": [container]}, {})


def labelled(template: PodTemplate, labels: Mapping[str, str]) -> PodTemplate:
    """The template with the labels of the document. They are not part of the hash, since they change no process."""
    return {**template, "metadata": {"labels": {**labels, **template["metadata"]["labels"]}}}


def spec_hash(template: PodTemplate) -> str:
    """Value of the hash label: a hash of the template with Slipway's own labels, without the hash label.

    Pods with this value were created from this template.
    """
    labels = {key: value for key, value in template["metadata"]["labels"].items() if key != HASH_LABEL}
    return content_hash({"labels": labels, "spec": template["spec"]}, HASH_LENGTH)


def _template(release: Release, role: str, spec: dict[str, Any], labels: Mapping[str, str]) -> PodTemplate:
    own = {SERVICE_LABEL: release.service.name, RELEASE_LABEL: release.id, ROLE_LABEL: role, **labels}
    found: PodTemplate = {"metadata": {"labels": own}, "spec": spec}
    found["metadata"]["labels"][HASH_LABEL] = spec_hash(found)
    return found


def _worker(release: Release, role: WorkerRole) -> dict[str, Any]:
    service, serving = release.service, release.service.serving
    worker = serving.worker(role)
    bootstrap = [_port("bootstrap", serving.ports.bootstrap)] if role == "prefill" else []
    return {
        "name": f"sglang-{role}",
        "image": worker.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(WORKER_COMMAND),
        "args": worker_args(service, role),
        "env": _env(serving, role),
        "ports": [_port("http", serving.ports.http), *bootstrap],
        **worker_probes(serving),
        "resources": _resources(_worker_resources(serving, worker.resources)),
        "lifecycle": _pre_stop(WORKER_PRE_STOP),
        "securityContext": _worker_security(release),
        # The end of the log becomes the termination message.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "model", "mountPath": service.model_path, "readOnly": True},
            {"name": "dshm", "mountPath": "/dev/shm"},  # noqa: S108  # shared memory of the tensor-parallel ranks
        ],
    }


def _env(serving: Serving, role: WorkerRole) -> list[dict[str, Any]]:
    address = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}
    # Mooncake sends its peers this address; without it, it would guess one on a node with several cards.
    sources: dict[str, dict[str, Any]] = {"POD_IP": {"valueFrom": address}, "SGLANG_HOST_IP": {"valueFrom": address}}
    sources |= {name: {"value": value} for name, value in worker_env(serving, role).items()}
    return [{"name": name, **source} for name, source in sources.items()]


def _worker_resources(serving: Serving, resources: Resources) -> dict[str, str]:
    amounts = {
        "cpu": resources.cpu,
        "memory": resources.memory,
        GPU: str(serving.tensor_parallel),
    }
    return {**amounts, ERDMA: "1"} if serving.fabric == "erdma" else amounts


def _worker_security(release: Release) -> dict[str, Any]:
    """RDMA registers memory, which must be locked: IPC_LOCK is enough, without a privileged container."""
    security: dict[str, Any] = {"allowPrivilegeEscalation": False}
    if release.service.serving.fabric == "erdma":
        security["capabilities"] = {"add": ["IPC_LOCK"]}
    return security


def _monitoring_labels(release: Release, role: str) -> dict[str, str]:
    """Labels that Alibaba's inference dashboards select; the second spelling is that of older samples.

    https://www.alibabacloud.com/help/en/ack/cloud-native-ai-suite/user-guide/configure-monitoring-for-llm-inference-services
    """
    return {
        "alibabacloud.com/inference-workload": f"{release.service.name}-{role}",
        "alibabacloud.com/inference-backend": "sglang",
        "alibabacloud.com/inference_backend": "sglang",
    }


def _pod_defaults(grace: int, pod: Pod) -> dict[str, Any]:
    return {
        "terminationGracePeriodSeconds": grace,
        # A worker calls no API, and needs no variable for each Service of the namespace.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **pod.spec,
    }


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _resources(amounts: Mapping[str, str]) -> dict[str, Any]:
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _pre_stop(seconds: int) -> dict[str, Any]:
    # `sleep` as a handler of its own needs Kubernetes 1.30, which is newer than some supported clusters.
    return {"preStop": {"exec": {"command": ["sleep", str(seconds)]}}}
