"""Multipart uploads: rows in the index, bytes in `uploads/<id>/`.

Parts of equal size are written where they belong in one file, so that completing an upload of any size moves no byte.
A part that does not fit that pattern, or comes a second time, gets a file of its own; then completing copies.
"""

import os
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from workflows.simulator.core.bucket.errors import no_such_upload
from workflows.simulator.core.bucket.index import Index, PartRow, UploadRow
from workflows.simulator.core.bucket.receive import BUFFER, Received, Write

_COMMON = "all"  # the file that holds every part at its place
_COLUMNS = "upload, number, file, start, size, etag, crc64, modified"


@dataclass(frozen=True)
class Slot:
    """Where the bytes of one part go; `folder` is None where bytes are not kept."""

    upload: UploadRow
    number: int
    size: int
    folder: Path | None
    file: str
    start: int

    def writer(self, descriptor: int) -> Write:
        def write(chunk: memoryview, offset: int) -> None:
            os.pwrite(descriptor, chunk, self.start + offset)

        return write


class Uploads:
    def __init__(self, folder: Path, index: Index) -> None:
        self._index = index
        self._folder = folder / "uploads"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._part_size: dict[str, int] = {}  # upload -> size of a place in the common file
        self._claimed: set[tuple[str, int]] = set()  # places that were ever given out
        self._sweep()

    def start(self, upload: UploadRow) -> None:
        (self._folder / upload.id).mkdir()
        with self._index.transaction() as rows:
            rows.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?)", upload.values())

    def get(self, upload_id: str, bucket: str, key: str) -> UploadRow:
        """Raises OssError if there is no such upload of that very key."""
        row = self._index.one("SELECT * FROM uploads WHERE id = ? AND bucket = ? AND key = ?", upload_id, bucket, key)
        if row is None:
            raise no_such_upload(upload_id)
        return UploadRow.of(row)

    def after(self, bucket: str, prefix: str, marker: tuple[str, str], limit: int) -> list[UploadRow]:
        """Uploads below `prefix` that sort behind `marker` (key, id; an empty id stands behind all ids)."""
        key, upload_id = marker
        behind = "(key > ? OR (key = ? AND ? <> '' AND id > ?))"
        query = (
            f"SELECT * FROM uploads WHERE bucket = ? AND substr(key, 1, length(?)) = ? AND {behind} "  # noqa: S608  # constant
            "ORDER BY key, id LIMIT ?"
        )
        rows = self._index.all(query, bucket, prefix, prefix, key, key, upload_id, upload_id, limit)
        return [UploadRow.of(row) for row in rows]

    def parts(self, upload: UploadRow, after: int = 0, limit: int = -1) -> list[PartRow]:
        rows = self._index.all(
            f"SELECT {_COLUMNS} FROM parts WHERE upload = ? AND number > ? ORDER BY number LIMIT ?",  # noqa: S608  # constant columns
            *(upload.id, after, limit),
        )
        return [PartRow.of(row) for row in rows]

    def slot(self, upload: UploadRow, number: int, size: int, *, keep: bool) -> Slot:
        """A place of its own for one part."""
        if not keep:
            return Slot(upload, number, size, None, "", 0)
        folder = self._folder / upload.id
        with self._lock:
            part_size = self._part_size.setdefault(upload.id, size)
            claim = (upload.id, number)
            fits = size == part_size or (size < part_size and number > 1)
            if fits and claim not in self._claimed:
                self._claimed.add(claim)
                return Slot(upload, number, size, folder, _COMMON, (number - 1) * part_size)
        return Slot(upload, number, size, folder, uuid.uuid4().hex, 0)

    def keep(self, slot: Slot, received: Received, now: float) -> PartRow:
        """The part is complete. Raises OssError if its upload ended meanwhile."""
        part = PartRow(
            *(slot.upload.id, slot.number, slot.file, slot.start, slot.size), received.etag, received.crc64, now
        )
        with self._index.transaction() as rows:
            self.get(slot.upload.id, slot.upload.bucket, slot.upload.key)
            old = rows.execute(
                "SELECT file FROM parts WHERE upload = ? AND number = ?", (part.upload, part.number)
            ).fetchone()
            rows.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", part.values())
        if old and old[0] not in ("", _COMMON):
            (self._folder / part.upload / old[0]).unlink(missing_ok=True)
        return part

    def assemble(self, upload: UploadRow, parts: Sequence[PartRow], draft: Path) -> None:
        """Make `draft` the bytes of `parts` behind one another."""
        folder = self._folder / upload.id
        size = sum(part.size for part in parts)
        if self._in_place(parts) and len(parts) == len(self.parts(upload)):
            # A link and not a move: after a kill before the object's row, the upload is still whole. Bytes
            # behind the last part was never kept.
            os.link(folder / _COMMON, draft)
            os.truncate(draft, size)
            return
        with draft.open("wb") as target:
            for part in parts:
                with (folder / part.file).open("rb") as source:
                    _copy(source.fileno(), part.start, target, part.size)

    def release(self, slot: Slot) -> None:
        """The bytes of the part did not come."""
        if slot.folder and slot.file != _COMMON:
            (slot.folder / slot.file).unlink(missing_ok=True)
        with self._lock:
            self._claimed.discard((slot.upload.id, slot.number))

    def abort(self, upload: UploadRow) -> None:
        with self._index.transaction() as rows:
            self.forget(rows, upload)
        self.clear(upload)

    def forget(self, rows: sqlite3.Connection, upload: UploadRow) -> None:
        """Forget an upload and its parts, inside the transaction of `rows`."""
        rows.execute("DELETE FROM parts WHERE upload = ?", (upload.id,))
        rows.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))

    def clear(self, upload: UploadRow) -> None:
        """Take the files of a forgotten upload away."""
        with self._lock:
            self._part_size.pop(upload.id, None)
            self._claimed = {claim for claim in self._claimed if claim[0] != upload.id}
        shutil.rmtree(self._folder / upload.id, ignore_errors=True)

    def _in_place(self, parts: Sequence[PartRow]) -> bool:
        end = 0
        for part in parts:
            if part.file != _COMMON or part.start != end:
                return False
            end += part.size
        return True

    def _sweep(self) -> None:
        """After a kill: forget folders and files that no row names, and never write where a kept part is."""
        uploads = {str(row[0]) for row in self._index.all("SELECT id FROM uploads")}
        for folder in self._folder.iterdir():
            if folder.name not in uploads:
                shutil.rmtree(folder)
        every = [PartRow.of(row) for row in self._index.all(f"SELECT {_COLUMNS} FROM parts")]  # noqa: S608  # constant columns
        for upload in uploads:
            parts = [part for part in every if part.upload == upload]
            named = {part.file for part in parts} | {_COMMON}
            for file in (self._folder / upload).iterdir():
                if file.name not in named:
                    file.unlink()
            self._remember(upload, parts)

    def _remember(self, upload: str, parts: Sequence[PartRow]) -> None:
        common = [part for part in parts if part.file == _COMMON]
        self._claimed |= {(upload, part.number) for part in common}
        sizes = [part.start // (part.number - 1) for part in common if part.number > 1]
        first = [part.size for part in common if part.number == 1]
        if sizes or first:
            self._part_size[upload] = (sizes or first)[0]


def _copy(source: int, start: int, target: BinaryIO, count: int) -> None:
    """Append `count` bytes of the file `source`."""
    while count:
        chunk = os.pread(source, min(BUFFER, count), start)
        if not chunk:
            raise EOFError(f"{count} bytes of a part are gone")
        target.write(chunk)
        start += len(chunk)
        count -= len(chunk)
