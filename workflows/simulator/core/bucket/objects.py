"""Objects: rows in the index, bytes in `blobs/`, and the same files again at `objects/<bucket>/<key>`.

A row names its blob, so one commit replaces an object as a whole, and a kill leaves the old one or the new one, never
half of one. `objects/` holds hard links to the blobs: a folder that can be mounted. It lacks the few keys that no file
can be called, such as `a/` or both `a` and `a/b`; those are served over HTTP alone.
"""

import os
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

from workflows.simulator.core.bucket.errors import OssError, exists_already, no_such_bucket, no_such_key
from workflows.simulator.core.bucket.index import Index, ObjectRow

Also = Callable[[sqlite3.Connection], None]
"""More that belongs into the same transaction."""

_COLUMNS = "bucket, key, blob, size, etag, crc64, content_type, metadata, kind, modified"
_REPLACE = "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Objects:
    def __init__(self, folder: Path, index: Index) -> None:
        self._index = index
        self._blobs = folder / "blobs"
        self._drafts = folder / "drafts"
        self._tree = folder / "objects"
        self._tree_lock = threading.Lock()
        for path in (self._blobs, self._drafts, self._tree):
            path.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def create_bucket(self, name: str, now: float) -> None:
        with self._index.transaction() as rows:
            rows.execute("INSERT OR IGNORE INTO buckets VALUES (?, ?)", (name, now))
        (self._tree / name).mkdir(exist_ok=True)

    def bucket_created(self, name: str) -> float:
        """When the bucket was made, in seconds since 1970. Raises OssError if there is none."""
        row = self._index.one("SELECT created FROM buckets WHERE name = ?", name)
        if row is None:
            raise no_such_bucket(name)
        return float(row[0])

    def find(self, bucket: str, key: str) -> ObjectRow | None:
        row = self._index.one(f"SELECT {_COLUMNS} FROM objects WHERE bucket = ? AND key = ?", bucket, key)  # noqa: S608  # constant columns
        return ObjectRow.of(row) if row else None

    def get(self, bucket: str, key: str) -> ObjectRow:
        """Raises OssError if there is no such object."""
        found = self.find(bucket, key)
        if found is None:
            raise no_such_key(key)
        return found

    def after(self, bucket: str, prefix: str, marker: str, limit: int) -> list[ObjectRow]:
        """Objects below `prefix` with a key behind `marker`, in the order of their UTF-8 bytes."""
        # `substr` and not LIKE: a prefix may hold any character.
        rows = self._index.all(
            f"SELECT {_COLUMNS} FROM objects WHERE bucket = ? AND key > ? AND key >= ? "  # noqa: S608  # constant columns
            "AND substr(key, 1, length(?)) = ? ORDER BY key LIMIT ?",
            *(bucket, marker, prefix, prefix, prefix, limit),
        )
        return [ObjectRow.of(row) for row in rows]

    def draft(self) -> Path:
        """A new file of the same file system, for bytes that are not an object yet."""
        return self._drafts / uuid.uuid4().hex

    def adopt(self, draft: Path) -> str:
        """Turn a complete draft into a blob; it is swept unless a row names it."""
        blob = uuid.uuid4().hex
        draft.rename(self._blobs / blob)
        return blob

    def blob(self, row: ObjectRow) -> Path:
        return self._blobs / row.blob

    def open(self, bucket: str, key: str) -> tuple[ObjectRow, BufferedReader]:
        """An object and its bytes at the same moment. Raises OssError for an absent object or absent bytes."""
        with self._index.transaction():
            row = self.get(bucket, key)
            if not row.blob:
                raise OssError(501, "NotImplemented", "This bucket keeps checksums, not bytes.")
            return row, self.blob(row).open("rb")

    def put(self, row: ObjectRow, *, forbid_overwrite: bool = False, also: Also | None = None) -> None:
        """Write the object of `row` in one commit. Raises OssError if it may not be overwritten."""
        with self._index.transaction() as rows:
            old = self.find(row.bucket, row.key)
            if old and forbid_overwrite:
                raise exists_already(row.key)
            rows.execute(_REPLACE, row.values())
            if also:
                also(rows)
        self._show(row.bucket, row.key)
        self._forget_blob(old)

    def copy(
        self, source: tuple[str, str], make: Callable[[ObjectRow], ObjectRow], forbid_overwrite: bool
    ) -> ObjectRow:
        """A second row for the bytes of `source`. Raises OssError if there is none, or the copy may not be made."""
        with self._index.transaction() as rows:
            row = make(self.get(*source))
            old = self.find(row.bucket, row.key)
            if old and forbid_overwrite:
                raise exists_already(row.key)
            rows.execute(_REPLACE, row.values())
        self._show(row.bucket, row.key)
        self._forget_blob(old)
        return row

    def delete(self, bucket: str, key: str) -> None:
        with self._index.transaction() as rows:
            old = self.find(bucket, key)
            rows.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key))
        if old:
            self._show(bucket, key)
            self._forget_blob(old)

    def _forget_blob(self, old: ObjectRow | None) -> None:
        if old and old.blob:
            # Inside a transaction, so that no copy names the blob between the question and the answer.
            with self._index.transaction():
                if not self._index.one("SELECT 1 FROM objects WHERE blob = ?", old.blob):
                    self.blob(old).unlink(missing_ok=True)

    def _show(self, bucket: str, key: str) -> None:
        """Bring the tree in line with the index for one key."""
        path = self._place(bucket, key)
        if path is None:
            return
        with self._tree_lock:
            row = self.find(bucket, key)
            try:
                if row and row.blob:
                    self._link(self.blob(row), path)
                elif path.is_file():
                    path.unlink()
                    self._prune(path.parent, self._tree / bucket)
            except (NotADirectoryError, IsADirectoryError, FileExistsError):
                return  # a key and a folder cannot share a name

    def _place(self, bucket: str, key: str) -> Path | None:
        segments = key.split("/")
        plain = all(segment not in ("", ".", "..") and "\0" not in segment for segment in segments)
        short = all(len(segment.encode()) <= 255 for segment in segments)  # noqa: PLR2004  # NAME_MAX of Linux and macOS
        return self._tree.joinpath(bucket, *segments) if plain and short else None

    def _link(self, blob: Path, path: Path) -> None:
        if path.exists() and path.samefile(blob):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        link = self.draft()
        os.link(blob, link)
        try:
            link.replace(path)
        finally:
            link.unlink(missing_ok=True)

    def _prune(self, folder: Path, root: Path) -> None:
        while folder != root and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    def _sweep(self) -> None:
        """After a kill: remove files without a row, and bring the tree in line with the index."""
        shutil.rmtree(self._drafts)
        self._drafts.mkdir()
        rows = [ObjectRow.of(row) for row in self._index.all(f"SELECT {_COLUMNS} FROM objects")]  # noqa: S608  # constant columns
        named = {row.blob for row in rows}
        for blob in self._blobs.iterdir():
            if blob.name not in named:
                blob.unlink()
        keys = {(row.bucket, row.key) for row in rows}
        for bucket, key in keys | set(self._shown()):
            self._show(bucket, key)

    def _shown(self) -> Iterator[tuple[str, str]]:
        for path in self._tree.glob("*/**/*"):
            if path.is_file():
                bucket, *segments = path.relative_to(self._tree).parts
                yield bucket, "/".join(segments)
