"""The objects of a healthy ACK cluster before the first model: nodes, drivers, operators.

Each is made once. An object that a person removes or breaks stays so, for checks to find.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workflows.simulator.core.cluster.controllers.groups import OPERATOR, OPERATOR_NAMESPACE
from workflows.simulator.core.cluster.controllers.operator_style import V06, OperatorStyle
from workflows.simulator.core.cluster.errors import ApiError
from workflows.simulator.core.cluster.kubelet.kubelet import SIMULATED
from workflows.simulator.core.cluster.kubelet.mounts import OSS_DRIVER
from workflows.simulator.core.cluster.resources import CONFIG_MAPS
from workflows.simulator.core.cluster.store import ClusterStore, Manifest, now

CRDS = Path(__file__).parent / "crds"
ERDMA_NAMESPACE = "ack-erdma-controller"
_RECORD = ("kube-system", "embedded-cluster")
_GPUS = 8
_GPU_NAME = "NVIDIA-H20"
_GPU_MIB = 97871  # as nvidia-smi shows 96 GB
_ERDMA = 200  # devices of one elastic RDMA interface


@dataclass(frozen=True)
class Secret:
    namespace: str
    name: str
    data: Mapping[str, str]  # plain text


@dataclass(frozen=True)
class Seed:
    """The differences between rehearsals."""

    operator: OperatorStyle = V06
    gpu_nodes: int = 3
    namespaces: tuple[str, ...] = ("slipway",)
    secrets: tuple[Secret, ...] = ()

    def manifests(self) -> Iterator[Manifest]:
        """All objects, each after those it needs."""
        for name in (OPERATOR_NAMESPACE, ERDMA_NAMESPACE, *self.namespaces):
            yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "status": {"phase": "Active"}}
        for folder in (self.operator.crds, "erdma"):
            for path in sorted((CRDS / folder).glob("*.yaml")):
                yield yaml.safe_load(path.read_text(encoding="utf-8"))
        if self.operator.service_prefix:  # of releases since v0.5, which also serve Instance
            yield _open_definition("Instance")
        for index in range(self.gpu_nodes):
            yield from _gpu_node(f"cn-hangzhou.10.0.0.{11 + index}", index)
        yield from _cpu_node("cn-hangzhou.10.0.0.10")
        yield from _components(self.operator)
        for secret in self.secrets:
            data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.data.items()}
            metadata = {"name": secret.name, "namespace": secret.namespace}
            yield {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}


def plant(store: ClusterStore, seed: Seed) -> None:
    """Make the objects that were never made before. Safe to be killed in between: existing objects stay."""
    planted = _planted(store)
    for manifest in seed.manifests():
        name = _title(manifest)
        if name in planted:
            continue
        resource = store.registry.kind(manifest["apiVersion"], manifest["kind"])
        if resource is None:
            raise LookupError(f"the embedded API does not serve {manifest['apiVersion']} {manifest['kind']}")
        try:
            store.create(resource, manifest)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        planted.add(name)
    _record(store, planted)


def _planted(store: ClusterStore) -> set[str]:
    namespace, name = _RECORD
    record = store.get(CONFIG_MAPS, name, namespace)
    return set(record["data"]["seeded"].splitlines()) if record else set()


def _record(store: ClusterStore, planted: set[str]) -> None:
    namespace, name = _RECORD
    data = {"seeded": "\n".join(sorted(planted))}
    live = store.get(CONFIG_MAPS, name, namespace)
    if live is None:
        store.create(CONFIG_MAPS, {"metadata": {"name": name, "namespace": namespace}, "data": data})
    elif live["data"] != data:
        store.replace(CONFIG_MAPS, {**live, "data": data})


def _title(manifest: Mapping[str, Any]) -> str:
    metadata = manifest["metadata"]
    return "/".join((manifest["kind"], metadata.get("namespace", ""), metadata["name"]))


def _open_definition(kind: str) -> Manifest:
    """A kind of the RBG operator of which clients read the existence, and no field."""
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": plural}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.workloads.x-k8s.io"},
        "spec": {"group": "workloads.x-k8s.io", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _gpu_node(name: str, index: int) -> Iterator[Manifest]:
    labels = {
        "aliyun.accelerator/nvidia_count": str(_GPUS),
        "aliyun.accelerator/nvidia_mem": f"{_GPU_MIB}MiB",
        "aliyun.accelerator/nvidia_name": _GPU_NAME,
        "node.kubernetes.io/instance-type": "ecs.ebmgn8v.48xlarge",
        "nvidia.com/gpu.memory": str(_GPU_MIB),
    }
    capacity = {
        "aliyun/erdma": str(_ERDMA),
        "cpu": "192",
        "ephemeral-storage": "1000Gi",
        "memory": "1800Gi",
        "nvidia.com/gpu": str(_GPUS),
        "pods": "110",
    }
    yield from _node(name, labels, capacity)
    device = {
        "id": f"eni-{index:08x}",
        "instanceID": f"i-{index:08x}",
        "isPrimaryENI": False,
        "mac": f"00:16:3e:00:00:{index:02x}",
        "networkCardIndex": 0,
        "queuePair": 0,
    }
    yield {
        "apiVersion": "network.alibabacloud.com/v1",
        "kind": "ERdmaDevice",
        "metadata": {"name": name, "labels": {"alibabacloud.com/nodename": name}},
        "spec": {"devices": [device]},
        "status": {"devices": [{"id": device["id"], "status": "Ready", "message": ""}]},
    }


def _cpu_node(name: str) -> Iterator[Manifest]:
    capacity = {"cpu": "32", "ephemeral-storage": "200Gi", "memory": "128Gi", "pods": "110"}
    yield from _node(name, {"node.kubernetes.io/instance-type": "ecs.g8i.8xlarge"}, capacity)


def _node(name: str, labels: Mapping[str, str], capacity: Mapping[str, str]) -> Iterator[Manifest]:
    yield {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "topology.kubernetes.io/region": "cn-hangzhou",
                "topology.kubernetes.io/zone": "cn-hangzhou-i",
                **labels,
            },
        },
        "spec": {"providerID": f"cn-hangzhou.{name}"},
        "status": {
            "capacity": dict(capacity),
            "allocatable": dict(capacity),
            "addresses": [
                {"type": "InternalIP", "address": name.removeprefix("cn-hangzhou.")},
                {"type": "Hostname", "address": name},
            ],
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "message": "kubelet is posting ready status",
                    "lastHeartbeatTime": now(),
                    "lastTransitionTime": now(),
                }
            ],
            "nodeInfo": {
                "architecture": "amd64",
                "containerRuntimeVersion": "containerd://1.6.38",
                "kernelVersion": "5.10.134-18.al8.x86_64",
                "kubeletVersion": "v1.32.1-aliyun.1",
                "operatingSystem": "linux",
                "osImage": "Alibaba Cloud Linux 3.2104 LTS (OpenAnolis Edition)",
            },
        },
    }
    yield {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {"name": name},
        "spec": {"drivers": [{"name": OSS_DRIVER, "nodeID": name, "topologyKeys": None}]},
    }


def _components(operator: OperatorStyle) -> Iterator[Manifest]:
    yield {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": {"name": OSS_DRIVER},
        "spec": {"attachRequired": False, "podInfoOnMount": True},
    }
    registry = "registry-cn-hangzhou.ack.aliyuncs.com/acs"
    csi = f"{registry}/csi-plugin:v1.33.1"
    erdma = f"{registry}/alibabacloud-erdma-controller:v0.2.8"
    yield _daemon_set("csi-plugin", "kube-system", csi, {"app": "csi-plugin"}, {})
    yield _deployment("csi-provisioner", "kube-system", csi, {"app": "csi-provisioner"})
    yield _deployment(OPERATOR, OPERATOR_NAMESPACE, operator.image, {"control-plane": "rbgs-controller"})
    name = "alibabacloud-erdma"
    yield _deployment(f"{name}-controller", ERDMA_NAMESPACE, erdma, {"app": f"{name}-controller", "tier": "controller"})
    selector = {"aliyun.accelerator/nvidia_name": _GPU_NAME}
    labels = {"app": f"{name}-agent", "tier": "agent"}
    yield _daemon_set(f"{name}-agent", ERDMA_NAMESPACE, erdma, labels, selector)


def _deployment(name: str, namespace: str, image: str, labels: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": dict(labels)},
            "template": _template(name, image, labels),
            "strategy": {"type": "RollingUpdate"},
        },
    }


def _daemon_set(
    name: str, namespace: str, image: str, labels: Mapping[str, str], node_selector: Mapping[str, str]
) -> Manifest:
    template = _template(name, image, labels)
    template["spec"] |= {"nodeSelector": dict(node_selector)} if node_selector else {}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {"selector": {"matchLabels": dict(labels)}, "template": template},
    }


def _template(name: str, image: str, labels: Mapping[str, str]) -> Manifest:
    resources = {"requests": {"cpu": "100m", "memory": "128Mi"}}
    return {
        "metadata": {"labels": dict(labels), "annotations": {SIMULATED: "true"}},
        "spec": {"containers": [{"name": name, "image": image, "resources": resources}]},
    }
