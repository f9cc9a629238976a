"""Facts of all checks, read once; each may be a Refusal instead."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from steps.checks.findings import Refusal
from steps.kinds import DAEMON_SET, DEPLOYMENT, NODE, POD, Kind, Manifest
from steps.ports.kubernetes import Permission

Objects = tuple[Manifest, ...]


def of_pod(pod: Manifest) -> Manifest:
    """Its node, and its resources there."""
    spec = pod["spec"]
    containers = [_only(container, "resources") for container in spec["containers"]]
    return {
        "metadata": _only(pod["metadata"], "name", "namespace", "labels"),
        "spec": {**_only(spec, "nodeName"), "containers": containers},
        "status": _only(pod.get("status", {}), "phase"),
    }


def of_node(node: Manifest) -> Manifest:
    """Its resources, and the pods that it takes."""
    return {
        "metadata": _only(node["metadata"], "name", "labels"),
        "spec": _only(node["spec"], "taints", "unschedulable"),
        "status": _only(node["status"], "allocatable", "conditions"),
    }


def of_workload(workload: Manifest) -> Manifest:
    """Replicas of a Deployment or a DaemonSet, declared and available."""
    return {
        "metadata": _only(workload["metadata"], "name", "namespace"),
        "spec": _only(workload.get("spec", {}), "replicas"),
        "status": workload.get("status", {}),
        "images": _images(workload),
    }


def _images(workload: Manifest) -> list[str]:
    pod = (workload.get("spec", {}).get("template") or {}).get("spec") or {}
    return [container["image"] for container in pod.get("containers") or () if "image" in container]


def _only(found: Manifest, *names: str) -> Manifest:
    return {name: found[name] for name in names if name in found}


# Parts of the kinds that are many and large; the rest is not kept.
PARTS: Mapping[Kind, Callable[[Manifest], Manifest]] = {
    POD: of_pod,
    NODE: of_node,
    DEPLOYMENT: of_workload,
    DAEMON_SET: of_workload,
}


@dataclass(frozen=True)
class CodeOfModel:
    """Code in the files of the model, compared with the release that serves."""

    changed: tuple[str, ...] = ()  # paths of files
    known: str = ""  # why a comparison is not needed


@dataclass(frozen=True)
class PlatformFacts:
    namespace: Manifest | Refusal | None
    rbg_versions: tuple[str, ...] | Refusal  # served API versions of RoleBasedGroup, in order of preference
    deployments: Objects | Refusal  # of all namespaces
    daemon_sets: Objects | Refusal  # of all namespaces
    nodes: Objects | Refusal
    pods: Objects | Refusal  # of all namespaces
    erdma_devices: Objects | Refusal | None  # None: that kind is not served
    csi_driver: Manifest | Refusal | None
    secret: Manifest | Refusal | None  # with the access key of OSS
    services: Objects | Refusal  # of the serving namespace
    weight_bytes: int | Refusal
    bucket: str | Refusal  # its state, in words
    code: CodeOfModel | Refusal = CodeOfModel()
    engines: Mapping[str, str | Refusal] = field(default_factory=dict)  # image -> version in it, empty if it has none
    stored: bool = False  # the bucket holds the model
    quotas: Objects | Refusal = ()  # of the serving namespace
    quotas_of_runs: Objects | Refusal = ()  # of the namespace of the workflow
    run: Manifest | Refusal | None = None  # the Workflow that this step belongs to
    rights: Mapping[Permission, bool] = field(default_factory=dict)
    # Ids of the recorded release and of the one that serves, beside which BlueGreen starts another. None: unknown.
    staying: frozenset[str] | None = None
    in_pods: bool = False  # whether the steps run on nodes of this cluster
