"""Models as plain folders: the entries of a listing, with hashes that are computed once for each content."""

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
    """SHA-256 of files, cached by size, time and inode, so that a second listing of a large model is cheap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}

    def of(self, path: Path) -> tuple[int, str]:
        """Size in bytes and SHA-256 of a file as it is now."""
        with self._lock:
            while True:
                before = _identity(path)
                identity, digest = self._known.get(path, ((), ""))
                if identity == before:
                    return before[0], digest
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                if _identity(path) == before:  # else it was edited meanwhile
                    self._known[path] = before, digest


def _identity(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


class Repository:
    """One model, in its only branch: the files as they are now."""

    def __init__(self, folder: Path, hashes: Hashes) -> None:
        self._folder = folder.resolve()
        self._hashes = hashes

    def entries(self, root: str = "", *, recursive: bool = True) -> list[Entry]:
        """Folders and files below `root`, sorted by path; paths are relative to the repository."""
        return sorted(self._walk(self._folder / root, recursive=recursive), key=lambda entry: entry.path)

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
        self._hashes = Hashes()

    def get(self, model_id: str) -> Repository | None:
        owner, _, name = model_id.partition("/")
        folder = self._folder / owner / name
        if not (NAME.fullmatch(owner) and NAME.fullmatch(name) and folder.is_dir()):
            return None
        return Repository(folder, self._hashes)
