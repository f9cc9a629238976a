"""Division of a file into parts."""

from dataclasses import dataclass

from steps.document.schema import ModelService

MIB = 1 << 20
# OSS allows 10,000 parts. https://www.alibabacloud.com/help/en/oss/developer-reference/uploadpart
MOST_PARTS = 9_000


@dataclass(frozen=True)
class FilePart:
    number: int  # from 1
    start: int  # offset in the file
    length: int  # bytes


@dataclass(frozen=True)
class Layout:
    """One file in parts of the same size, the last one shorter. An empty file is one empty part."""

    size: int
    part_size: int

    @property
    def parts(self) -> int:
        return max(1, -(-self.size // self.part_size))

    def part(self, number: int) -> FilePart:
        start = (number - 1) * self.part_size
        return FilePart(number, start, min(self.part_size, self.size - start))

    def bytes_of(self, parts: int) -> int:
        """Bytes of the first `parts` parts."""
        return min(parts * self.part_size, self.size)


def layout(size: int, part_size: int) -> Layout:
    """Parts of `part_size` bytes, or of more whole MiB for a file that would exceed the limit of parts."""
    if size <= part_size * MOST_PARTS:
        return Layout(size, part_size)
    return Layout(size, -(-size // (MOST_PARTS * MIB)) * MIB)


def part_size(service: ModelService) -> int:
    """Bytes of one part."""
    return service.transfer.part_bytes
