"""Resource requests of the pod of each step, measured, with headroom: docs/reference/resources.md."""

from dataclasses import dataclass

from steps.document.schema import ModelService

_LIGHT = 128  # MiB; at most 57 were measured
_WHOLE_CLUSTER = 256  # MiB; 142 were measured with 3,000 pods, of which 500 are in memory as a whole
_TRANSFER = 192  # MiB beside the buffers; 53 were measured, and 92 for the step that hashes the files of the bucket


@dataclass(frozen=True)
class ResourceRequests:
    cpu: str  # a request only: a limit would slow the step down and free no CPU that another pod asked for
    memory_mebibytes: int  # request and limit: a leak ends the step and not its neighbours


def light(_service: ModelService) -> ResourceRequests:
    return ResourceRequests("100m", _LIGHT)


def whole_cluster(_service: ModelService) -> ResourceRequests:
    """For a step that lists all pods of the cluster."""
    return ResourceRequests("100m", _WHOLE_CLUSTER)


def transfer(service: ModelService) -> ResourceRequests:
    """For a step that moves or reads the files of the model.

    Memory for each part in flight, twice: while one is sent, the next is read. One CPU, so that a node of two has a
    place for it beside its DaemonSets; a transfer uses more where more is idle.
    """
    in_flight = (service.transfer.part_bytes >> 20) * service.transfer.workers
    return ResourceRequests("1", _TRANSFER + 2 * in_flight)
