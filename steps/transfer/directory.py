"""A directory as a source and as a sink."""

import os
import sys
import threading
from pathlib import Path

from steps.errors import Blocked
from steps.model import Listing, ModelFile
from steps.transfer import checkpoint as checkpoints
from steps.transfer import hashing
from steps.transfer.checkpoint import Checkpoint, CheckpointRecord
from steps.transfer.direct_io import DirectFile
from steps.transfer.layout import Part
from steps.transfer.scratch import Scratch, explained, read, write
from steps.transfer.sink import FileSink, Move

PIECE = 1 << 20  # bytes of one read; what was read is then still in the cache of a core when its CRC-64 is taken


class DirectorySource:
    """The files that an earlier step has put into the scratch folder."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch

    def listing(self) -> Listing:
        listing = self._scratch.listing()
        if listing is None:
            raise Blocked(
                f"the scratch folder {self._scratch.root} holds no listing of the model",
                "submit a new run: download-model fills the folder",
            )
        return listing

    def read(self, file: ModelFile, start: int, buffer: memoryview) -> int:
        path = self._scratch.path(file)
        with explained(path, 0):
            source = DirectFile(path, os.O_RDONLY)
            try:
                filled, crc64 = 0, 0
                while filled < len(buffer):
                    count = source.read(buffer[filled : filled + PIECE], start + filled)
                    if count == 0:
                        raise Blocked(
                            f"{path} ends at byte {start + filled}, expected {file.size} bytes",
                            "submit a new run: download-model fetches the file again",
                        )
                    crc64 = hashing.crc(buffer[filled : filled + count], crc64)
                    filled += count
                return crc64
            finally:
                source.close()


class DirectorySink:
    """Files get their name once they are whole, on the disk, and verified."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch

    def open(self, move: Move, part_size: int) -> FileSink:
        return _DirectoryFile(self._scratch, move.file, part_size)


class _DirectoryFile:
    def __init__(self, scratch: Scratch, file: ModelFile, part_size: int) -> None:
        self._scratch = scratch
        self._file = file
        self._part_size = part_size
        self._path = scratch.path(file)
        self._draft = scratch.draft(file)
        self._checkpoint = scratch.checkpoint(file)
        self._opening = threading.Lock()
        self._open: DirectFile | None = None

    def make_room(self) -> None:
        self._scratch.distrust(self._file)

    def resume(self) -> Checkpoint | None:
        body = read(self._checkpoint)
        record = checkpoints.decode(body) if body else None
        usable = (
            record is not None
            and (record.path, record.sha256, record.size) == (self._file.path, self._file.sha256, self._file.size)
            and self._scratch.allocated(self._file) == self._file.size
        )
        if record is None or not usable:
            self.discard()
            return None
        return record.checkpoint

    def put(self, body: memoryview, crc64: int) -> None:  # noqa: ARG002  # a file system knows no CRC
        self._write_at(0, body)
        self._take_place()

    def write(self, part: Part, body: memoryview, crc64: int) -> None:  # noqa: ARG002  # a file system knows no CRC
        self._write_at(part.start, body)

    def save(self, checkpoint: Checkpoint) -> None:
        # The bytes reach the disk before the checkpoint does: a node that loses power must not go on after a gap.
        with explained(self._draft, 0):
            _sync(self._opened().descriptor)
        record = CheckpointRecord(
            path=self._file.path,
            sha256=self._file.sha256,
            size=self._file.size,
            part_size=checkpoint.part_size,
            parts=checkpoint.parts,
            sha256_state=checkpoint.sha256_state,
            crc64=str(checkpoint.crc64),
        )
        write(self._checkpoint, record.encode())

    def finish(self, checkpoint: Checkpoint) -> None:  # noqa: ARG002  # a file system knows no CRC
        self._take_place()

    def discard(self) -> None:
        self.close()
        with explained(self._draft, 0):
            self._checkpoint.unlink(missing_ok=True)
            self._draft.unlink(missing_ok=True)

    def close(self) -> None:
        with self._opening:
            if self._open:
                self._open.close()
                self._open = None

    def _write_at(self, start: int, body: memoryview) -> None:
        draft = self._opened()
        with explained(self._path, self._file.size):
            written = 0
            while written < len(body):
                written += draft.write(body[written:], start + written)

    def _take_place(self) -> None:
        with explained(self._path, self._file.size):
            _sync(self._opened().descriptor)
            self.close()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # The marker comes first, and means nothing until the file is there: no moment leaves a whole file that the
            # next process would fetch again.
            self._scratch.mark_verified(self._file)
            self._draft.replace(self._path)
            _sync_folder(self._path.parent)
            self._checkpoint.unlink(missing_ok=True)

    def _opened(self) -> DirectFile:
        with self._opening:
            if self._open is None:
                with explained(self._path, self._file.size):
                    self._draft.parent.mkdir(parents=True, exist_ok=True)
                    self._open = DirectFile(self._draft, os.O_RDWR | os.O_CREAT)
                    _allocate(self._open.descriptor, self._file.size)
            return self._open


def _allocate(descriptor: int, length: int) -> None:
    """Take the space now, so that a full disk is found before the bytes are fetched, not after."""
    if length and sys.platform == "linux" and os.fstat(descriptor).st_size != length:
        os.posix_fallocate(descriptor, 0, length)
    os.ftruncate(descriptor, length)


def _sync(descriptor: int) -> None:
    if sys.platform == "linux":
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
