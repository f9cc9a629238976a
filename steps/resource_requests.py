"""Resource requests of the pod of each step, measured, with headroom: docs/reference/resources.md."""

from collections.abc import Mapping
from dataclasses import dataclass

from steps.document.schema import ModelService

_LIGHT = 128  # MiB; at most 57 were measured
_WHOLE_CLUSTER = 256  # MiB; 142 were measured with 3,000 pods, of which 500 are in memory as a whole
_TRANSFER = 192  # MiB beside the buffers; 53 were measured, and 92 for the one that hashes what it reads back
_MEBIBYTES: Mapping[str, int] = {"check-platform": _WHOLE_CLUSTER}
TRANSFERS = frozenset({"download-model", "upload-model", "mirror-model", "verify-model"})


@dataclass(frozen=True)
class Footprint:
    cpu: str  # a request only: a limit would slow the step down and help nobody
    memory_mebibytes: int  # request and limit: a leak ends the step and not its neighbours


def footprint(step: str, service: ModelService) -> Footprint:
    if step not in TRANSFERS:
        return Footprint("100m", _MEBIBYTES.get(step, _LIGHT))
    # Room for every part in flight, twice: while one is sent, the next is read. One CPU, so that a node of two has a
    # place for it beside what runs on every node; a transfer that needs more takes what is idle.
    in_flight = (service.transfer.part_bytes >> 20) * service.transfer.workers
    return Footprint("1", _TRANSFER + 2 * in_flight)
