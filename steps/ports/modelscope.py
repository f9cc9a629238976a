"""The hub, the source of a model."""

from typing import Protocol

from steps.model import Listing, ModelFile


class ModelSource(Protocol):
    """One revision of one model."""

    def listing(self) -> Listing:
        """All files with sizes and hashes. Raises Blocked for a truncated or unsafe listing and an absent model."""
        ...

    def read(self, file: ModelFile, start: int, buffer: memoryview) -> int:
        """Fill `buffer` with the bytes of `file` from `start` on, or raise.

        Returns their CRC-64/XZ, computed at their arrival, so that it reveals a later change in memory.
        """
        ...
