"""Models as plain folders: the entries of a listing, with hashes that are computed once for each content."""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of an owner or a model; drafts begin with a dot
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".onnx", ".gguf")
LFS_SIZE = 5 * 10**6  # bytes from which any file is kept as LFS


@dataclass(frozen=True)
class Entry:
    path: str
    modified: int  # seconds since 1970
    size: int = 0  # bytes
    sha256: str = ""  # empty for a folder

    @property
    def is_folder(self) -> bool:
        return not self.sha256

    @property
    def is_lfs(self) -> bool:
        return not self.is_folder and (self.path.endswith(LFS_SUFFIXES) or self.size >= LFS_SIZE)

    @property
    def commit(self) -> str:
        """Stands for the commit that changed this file last."""
        return hashlib.sha1(f"{self.path} {self.sha256}".encode(), usedforsecurity=False).hexdigest()


class Hashes:
    """SHA-256 of files, remembered by size, time and inode, so that a second listing of a large model is cheap."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._known = _remembered(memory)
        self._new = False

    def of(self, path: Path) -> tuple[int, str]:
        """Size in bytes and SHA-256 of a file as it is now."""
        with self._lock:
            while True:
                before = _identity(path)
                known = self._known.get(str(path))
                if known and known[:3] == before:
                    return before[0], str(known[3])
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                if _identity(path) == before:  # else it was edited meanwhile
                    self._known[str(path)] = [*before, digest]
                    self._new = True

    def save(self) -> None:
        """Write the hashes since the last time for the next start."""
        with self._lock:
            if self._new:
                draft = self._memory.with_name(self._memory.name + ".draft")
                draft.write_text(json.dumps(self._known), encoding="utf-8")
                draft.replace(self._memory)
                self._new = False


def _remembered(memory: Path) -> dict[str, list[Any]]:
    """A memory that cannot be read, or is none, is forgotten: everything is hashed again."""
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _identity(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino]


class Repository:
    """One model, in its only branch: the files as they are now."""

    def __init__(self, folder: Path, hashes: Hashes) -> None:
        self._folder = folder.resolve()
        self._hashes = hashes

    def entries(self, root: str = "", *, recursive: bool = True) -> list[Entry]:
        """Folders and files below `root`, sorted by path; paths are relative to the repository."""
        found = sorted(self._walk(self._folder / root, recursive=recursive), key=lambda entry: entry.path)
        self._hashes.save()
        return found

    def file(self, path: str) -> Entry | None:
        found = (self._folder / path).resolve()
        if not found.is_relative_to(self._folder) or not found.is_file():
            return None
        return self._file(found)

    def location(self, entry: Entry) -> Path:
        return self._folder / entry.path

    @property
    def commit(self) -> str:
        """Stands for the newest commit."""
        commits = "".join(entry.commit for entry in self.entries() if not entry.is_folder)
        return hashlib.sha1(commits.encode(), usedforsecurity=False).hexdigest()

    def _walk(self, folder: Path, *, recursive: bool) -> Iterator[Entry]:
        if not folder.is_dir():
            return
        for item in os.scandir(folder):
            path = Path(item.path)
            if not item.is_dir():
                yield self._file(path)
                continue
            yield Entry(path.relative_to(self._folder).as_posix(), int(item.stat().st_mtime))
            if recursive:
                yield from self._walk(path, recursive=True)

    def _file(self, path: Path) -> Entry:
        size, sha256 = self._hashes.of(path)
        return Entry(path.relative_to(self._folder).as_posix(), int(path.stat().st_mtime), size, sha256)


class Repositories:
    """All models of a folder: `folder/<owner>/<name>/`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._hashes = Hashes(folder / ".hashes.json")

    def get(self, model_id: str) -> Repository | None:
        owner, _, name = model_id.partition("/")
        folder = self._folder / owner / name
        if not (NAME.fullmatch(owner) and NAME.fullmatch(name) and folder.is_dir()):
            return None
        return Repository(folder, self._hashes)
