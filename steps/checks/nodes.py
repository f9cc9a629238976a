"""Facts about a node: its GPUs, and whether it is Ready."""

import re

from steps.document.quantities import quantity
from steps.kinds import GPU, Manifest

# Labels of a node with GPUs, free or not: one of ACK, and one of NVIDIA's GPU operator, which sets it to
# "false" once the cards are gone.
# https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/gpu-node-labels
# https://github.com/NVIDIA/gpu-operator/blob/main/controllers/state_manager.go (commonGPULabelKey)
GPU_NAME_LABEL = "aliyun.accelerator/nvidia_name"
GPU_PRESENT_LABEL = "nvidia.com/gpu.present"

_MEMORY_LABELS = ("aliyun.accelerator/nvidia_mem", "nvidia.com/gpu.memory")  # "97871MiB" and "97871", both in MiB


def name_of(node: Manifest) -> str:
    return str(node["metadata"]["name"])


def card_memory(node: Manifest) -> int | None:
    """Bytes of one card, or None without a label for it."""
    labels = node["metadata"].get("labels", {})
    for label in _MEMORY_LABELS:
        if match := re.fullmatch(r"(\d+)(MiB)?", labels.get(label, "")):
            return int(match[1]) * 2**20
    return None


def allocatable_gpus(node: Manifest) -> float:
    return quantity(node["status"].get("allocatable", {}).get(GPU, "0"))


def has_gpus(node: Manifest) -> bool:
    """By labels alone, as the affinity of the steps has it."""
    labels = node["metadata"].get("labels", {})
    return GPU_NAME_LABEL in labels or labels.get(GPU_PRESENT_LABEL) == "true"


def is_ready(node: Manifest) -> bool:
    conditions = node["status"].get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
