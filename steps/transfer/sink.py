"""Where files go, as Protocols: a bucket or a directory."""

from dataclasses import dataclass
from typing import Protocol

from steps.errors import Blocked
from steps.model import ModelFile
from steps.transfer.checkpoint import Checkpoint
from steps.transfer.layout import Part


@dataclass(frozen=True)
class Move:
    """One file that has to be read at the source and written at the sink."""

    file: ModelFile
    resume: bool = False  # an earlier process has left a checkpoint
    replace: bool = False  # something else has the place of this file, and must go before anything is written


class FileSink(Protocol):
    """Where one file goes. `write` is called from several threads at once, everything else from one at a time.

    Until `put` or `finish` returns, no reader of the sink may take the file for a whole one.
    """

    def make_room(self) -> None:
        """Remove what has the place of this file, before anything that says it is not to be trusted."""
        ...

    def resume(self) -> Checkpoint | None:
        """What an earlier process has left and this one can go on with; anything else that it left is removed."""
        ...

    def put(self, body: memoryview, crc64: int) -> None:
        """Write a file of one part whose SHA-256 was found right."""
        ...

    def write(self, part: Part, body: memoryview, crc64: int) -> None:
        """Write one part of several; `crc64` is that of its bytes as they came in."""
        ...

    def save(self, checkpoint: Checkpoint) -> None:
        """Remember how far the file is, where the next process will look for it."""
        ...

    def finish(self, checkpoint: Checkpoint) -> None:
        """Make the file whole; its SHA-256 was found right. Raises Corrupted if the sink holds other bytes."""
        ...

    def discard(self) -> None:
        """Forget what was written and remembered."""
        ...

    def close(self) -> None:
        """Let go of what only this process holds; what was written and saved stays."""
        ...


class Sink(Protocol):
    def open(self, move: Move, part_size: int) -> FileSink:
        """Reads and writes nothing yet."""
        ...


class Corrupted(Exception):
    """The bytes of a file changed on their way, or are not the published ones; it may be fetched once more."""


class WrongContent(Blocked):
    """A file was fetched twice and was wrong twice."""

    def __init__(self, file: ModelFile, reason: str, hint: str) -> None:
        super().__init__(reason, hint)
        self.file = file
