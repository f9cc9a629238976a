"""The rows of the bucket in SQLite: a file without a row does not exist."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

_TABLES = """
CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
  bucket TEXT NOT NULL, key TEXT NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
  crc64 TEXT NOT NULL, content_type TEXT NOT NULL, metadata TEXT NOT NULL, kind TEXT NOT NULL, modified REAL NOT NULL,
  PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS objects_by_blob ON objects (blob);
CREATE TABLE IF NOT EXISTS uploads (
  id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL, content_type TEXT NOT NULL, metadata TEXT NOT NULL,
  initiated REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
  upload TEXT NOT NULL, number INTEGER NOT NULL, file TEXT NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL,
  etag TEXT NOT NULL, crc64 TEXT NOT NULL, modified REAL NOT NULL, PRIMARY KEY (upload, number)
) WITHOUT ROWID;
"""


class FolderUnusableError(Exception):
    """Another process keeps a bucket in the same folder, or the index in it is damaged."""


@dataclass(frozen=True)
class _Row:
    """A row of one table; its fields are the columns, in order."""

    def values(self) -> tuple[Any, ...]:
        return tuple(_stored(field.name, getattr(self, field.name)) for field in fields(self))

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Self:
        return cls(*(_loaded(field.name, value) for field, value in zip(fields(cls), row, strict=True)))


def _stored(column: str, value: Any) -> Any:
    # SQLite integers are signed, a CRC-64 is not: it is kept as text.
    return json.dumps(dict(value)) if column == "metadata" else str(value) if column == "crc64" else value


def _loaded(column: str, value: Any) -> Any:
    return json.loads(value) if column == "metadata" else int(value) if column == "crc64" else value


@dataclass(frozen=True)
class ObjectRow(_Row):
    bucket: str
    key: str
    blob: str  # name of the file with the bytes; empty if they were not kept
    size: int
    etag: str  # upper-case, without quotes
    crc64: int
    content_type: str
    metadata: Mapping[str, str]
    kind: str  # Normal or Multipart
    modified: float  # seconds since 1970


@dataclass(frozen=True)
class UploadRow(_Row):
    id: str
    bucket: str
    key: str
    content_type: str
    metadata: Mapping[str, str]
    initiated: float  # seconds since 1970


@dataclass(frozen=True)
class PartRow(_Row):
    upload: str
    number: int
    file: str  # inside the folder of the upload; empty if the bytes were not kept
    start: int  # offset in that file
    size: int
    etag: str
    crc64: int
    modified: float


class Index:
    """One connection, one writer; safe to use from several threads. Each `transaction` is all or nothing."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, timeout=0.3, isolation_level=None, check_same_thread=False)
        try:
            # Exclusive: two processes that sweep one folder would take each other's files away.
            self._connection.executescript(
                "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _TABLES
            )
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise FolderUnusableError(
                f"cannot open {path}: {error}. Next: stop the other process that keeps a bucket in this folder, or "
                "delete the folder if none does"
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:  # which commits at the end, and rolls back after an error
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection

    def all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def one(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        rows = self.all(query, *values)
        return rows[0] if rows else None

    def close(self) -> None:
        with self._lock:
            self._connection.close()
