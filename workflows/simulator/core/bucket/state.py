"""The state that operations read and change."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from workflows.simulator.core.bucket.objects import Objects
from workflows.simulator.core.bucket.uploads import Uploads

Keep = Literal["bytes", "checksums"]
SMALL = 1 << 20  # bytes; a bucket that keeps checksums alone still keeps smaller objects, such as manifests


@dataclass(frozen=True)
class BucketState:
    objects: Objects
    uploads: Uploads
    clock: Callable[[], float]  # seconds since 1970
    keep: Keep

    def keeps(self, size: int) -> bool:
        return self.keep == "bytes" or size <= SMALL
