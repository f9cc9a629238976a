"""The target of files, as Protocols: a bucket or a directory."""

from dataclasses import dataclass
from typing import Protocol

from steps.errors import Blocked
from steps.model import ModelFile
from steps.transfer.layout import FilePart
from steps.transfer.resume_point import ResumePoint


@dataclass(frozen=True)
class Move:
    """One file to read at the source and write at the sink."""

    file: ModelFile
    resume: bool = False  # from the resume point of an earlier process
    replace: bool = False  # another file has this path, and is removed before the first write


class FileSink(Protocol):
    """The target of one file. `write` is called from several threads at once, every other method from one at a time.

    Until `put` or `finish` returns, the file is not whole for any reader of the sink.
    """

    def make_room(self) -> None:
        """Remove the other file at this path, before the records that mark it as unverified."""
        ...

    def resume(self) -> ResumePoint | None:
        """The usable resume point of an earlier process; its unusable leftovers are removed."""
        ...

    def put(self, body: memoryview, crc64: int) -> None:
        """Write a file of one part with a correct SHA-256."""
        ...

    def write(self, part: FilePart, body: memoryview, crc64: int) -> None:
        """Write one part of several; `crc64` is the one of its bytes at their arrival."""
        ...

    def save(self, point: ResumePoint) -> None:
        """Store the resume point for the next process."""
        ...

    def finish(self, point: ResumePoint) -> None:
        """Make the file whole; its SHA-256 is correct. Raises Corrupted if the sink holds other bytes."""
        ...

    def discard(self) -> None:
        """Remove the written parts and the resume point."""
        ...

    def close(self) -> None:
        """Release the resources of this process; written parts and the resume point stay."""
        ...


class Sink(Protocol):
    def open(self, move: Move, part_size: int) -> FileSink:
        """Does no I/O."""
        ...


class Corrupted(Exception):
    """The bytes of a file changed on their way, or are not the published ones; one more attempt may help."""


class WrongContent(Blocked):
    """A file was wrong in both attempts."""

    def __init__(self, file: ModelFile, reason: str, hint: str) -> None:
        super().__init__(reason, hint)
        self.file = file
