"""A directory as a source and as a sink."""

import os
import sys
import threading
from pathlib import Path

from steps.errors import Blocked
from steps.model import Listing, ModelFile
from steps.transfer import hashing
from steps.transfer.direct_io import DirectFile
from steps.transfer.layout import FilePart
from steps.transfer.resume_point import ResumePoint, ResumeRecord
from steps.transfer.scratch import Scratch, explained, read, write
from steps.transfer.sink import FileSink, Move

PIECE = 1 << 20  # bytes of one read, so that they are still in the cache of a core for the CRC-64


class DirectorySource:
    """The files of an earlier step in the scratch folder."""

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
    """A file gets its name after it is whole, verified and on the disk."""

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
        self._record = scratch.resume_record(file)
        self._opening = threading.Lock()
        self._open: DirectFile | None = None

    def make_room(self) -> None:
        self._scratch.remove_file(self._file)

    def resume(self) -> ResumePoint | None:
        record = ResumeRecord.decode(read(self._record), self._file)
        if record is None or self._scratch.allocated(self._file) != self._file.size:
            self.discard()
            return None
        return record.point

    def put(self, body: memoryview, crc64: int) -> None:  # noqa: ARG002  # a file system has no CRC
        self._write_at(0, body)
        self._move_into_place()

    def write(self, part: FilePart, body: memoryview, crc64: int) -> None:  # noqa: ARG002  # a file system has no CRC
        self._write_at(part.start, body)

    def save(self, point: ResumePoint) -> None:
        # The bytes reach the disk before the record: after a power failure, no transfer may resume behind a gap.
        with explained(self._draft, 0):
            _sync(self._opened().descriptor)
        write(self._record, ResumeRecord.of(self._file, point).encode())

    def finish(self, point: ResumePoint) -> None:  # noqa: ARG002  # a file system has no CRC
        self._move_into_place()

    def discard(self) -> None:
        self.close()
        with explained(self._draft, 0):
            self._record.unlink(missing_ok=True)
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

    def _move_into_place(self) -> None:
        with explained(self._path, self._file.size):
            _sync(self._opened().descriptor)
            self.close()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # The marker comes first, and has no meaning without the file: the next process never fetches a whole file
            # again.
            self._scratch.mark_verified(self._file)
            self._draft.replace(self._path)
            _sync_folder(self._path.parent)
            self._record.unlink(missing_ok=True)

    def _opened(self) -> DirectFile:
        with self._opening:
            if self._open is None:
                with explained(self._path, self._file.size):
                    self._draft.parent.mkdir(parents=True, exist_ok=True)
                    self._open = DirectFile(self._draft, os.O_RDWR | os.O_CREAT)
                    _allocate(self._open.descriptor, self._file.size)
            return self._open


def _allocate(descriptor: int, length: int) -> None:
    """Allocate the space now, so that a full disk is found before the download."""
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
