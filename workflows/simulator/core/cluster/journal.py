"""The objects on disk: one SQLite file, written before a change is visible.

The write-ahead log is handed to the operating system with each change, so `kill -9` of this process loses no change.
A loss of power may lose the last changes, and never tears one. https://www.sqlite.org/pragma.html#pragma_synchronous
"""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SCHEMA = """
create table if not exists objects (
  api_group text, plural text, namespace text, name text, content text not null,
  primary key (api_group, plural, namespace, name)
);
create table if not exists revision (only integer primary key check (only = 1), number integer not null);
insert or ignore into revision values (1, 100);
"""
_DELETE = "delete from objects where (api_group, plural, namespace, name) = (?, ?, ?, ?)"


class JournalError(Exception):
    """The file cannot be read or written as a journal of the embedded cluster."""


class Journal:
    """Used under the lock of the store. Without a path all objects stay in memory."""

    def __init__(self, path: Path | None) -> None:
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = off")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise JournalError(
                f"cannot use {path} as the state of the embedded cluster: {error}. Next: stop another run that uses "
                "it, or remove the file to start with an empty cluster"
            ) from error

    def revision(self) -> int:
        return int(self._db.execute("select number from revision").fetchone()[0])

    def objects(self) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
        for group, plural, content in self._db.execute("select api_group, plural, content from objects"):
            yield (group, plural), json.loads(content)

    def write(
        self, key: tuple[str, str], place: tuple[str, str], content: dict[str, Any] | None, revision: int
    ) -> None:
        """Put one object, or with None remove it, together with the revision that this made.

        Raises JournalError, without a partial write.
        """
        text = None if content is None else json.dumps(content, separators=(",", ":"))
        try:
            self._db.execute("begin")
            if text is None:
                self._db.execute(_DELETE, key + place)
            else:
                self._db.execute("insert or replace into objects values (?, ?, ?, ?, ?)", (*key, *place, text))
            self._db.execute("update revision set number = ?", (revision,))
            self._db.execute("commit")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise JournalError(
                f"cannot keep the state of the embedded cluster: {error}. Next: is the disk full?"
            ) from error

    def close(self) -> None:
        self._db.close()
