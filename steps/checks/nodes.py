"""Which nodes can run workers, and what they say about their GPUs."""

import re
from typing import Any

from steps.checks.facts import Objects
from steps.kinds import GPU, Manifest
from steps.release import Release

# What tells a node with GPUs, whatever it has free: a label that ACK gives to it, and one of NVIDIA's GPU operator,
# which says "false" once the cards are gone.
# https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/gpu-node-labels
# https://github.com/NVIDIA/gpu-operator/blob/main/controllers/state_manager.go (commonGPULabelKey)
GPU_NAME_LABEL = "aliyun.accelerator/nvidia_name"
GPU_PRESENT_LABEL = "nvidia.com/gpu.present"

_MEMORY_LABELS = ("aliyun.accelerator/nvidia_mem", "nvidia.com/gpu.memory")  # "97871MiB" and "97871", both in MiB
_UNITS = {"": 1, "m": 1e-3, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def gpu_nodes(release: Release, nodes: Objects) -> Objects:
    """Nodes with GPUs that take pods and match the document's node selector."""
    wanted = release.service.serving.pod.node_selector.items()
    return tuple(
        node
        for node in nodes
        if quantity(node["status"].get("allocatable", {}).get(GPU, "0")) > 0
        and not node["spec"].get("unschedulable")
        and wanted <= node["metadata"].get("labels", {}).items()
        and is_ready(node)
    )


def quantity(text: Any) -> float:
    """A Kubernetes quantity as a number: "200m" is 0.2, "48Gi" is 51539607552.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    return float(match[1]) * _UNITS[match[2]] if match and match[2] in _UNITS else 0.0


def card_memory(node: Manifest) -> int | None:
    """Bytes of one card, or None if no label says so."""
    labels = node["metadata"].get("labels", {})
    for label in _MEMORY_LABELS:
        if match := re.fullmatch(r"(\d+)(MiB)?", labels.get(label, "")):
            return int(match[1]) * 2**20
    return None


def has_gpus(node: Manifest) -> bool:
    """As the affinity of the steps sees it, by labels alone."""
    labels = node["metadata"].get("labels", {})
    return GPU_NAME_LABEL in labels or labels.get(GPU_PRESENT_LABEL) == "true"


def is_ready(node: Manifest) -> bool:
    conditions = node["status"].get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
