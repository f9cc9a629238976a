"""The hub that a model comes from."""

from typing import Protocol

from steps.model import Listing, ModelFile


class ModelSource(Protocol):
    """One revision of one model, to be read."""

    def listing(self) -> Listing:
        """All files with sizes and hashes. Raises Blocked for a truncated or unsafe listing and an absent model."""
        ...

    def read(self, file: ModelFile, start: int, buffer: memoryview) -> int:
        """Fill `buffer` with the bytes of `file` from `start` on, or raise.

        Returns their CRC-64/XZ, taken as they came in: whatever changes them in memory afterwards does not change it.
        """
        ...
