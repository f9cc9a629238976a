"""Links to files that end: signed like type A of https://www.alibabacloud.com/help/en/cdn/user-guide/type-a-signing."""

import hashlib
import secrets
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlencode

from workflows.simulator.core.hub.repository import Entry, Repositories


class Links:
    """Maps a link to its file for `seconds`. Links of an earlier start are invalid, like links that have ended."""

    def __init__(self, repositories: Repositories, seconds: float, clock: Callable[[], float]) -> None:
        self._repositories = repositories
        self._seconds = seconds
        self._clock = clock
        self._secret = secrets.token_hex(16)
        self._files: dict[str, tuple[str, str]] = {}  # sha256 -> (model, path)
        self._lock = threading.Lock()

    def link(self, model_id: str, entry: Entry, place: str) -> str:
        """Path and query of a link below `place`, in the form of the real ones: the path is made of the SHA-256."""
        with self._lock:
            self._files[entry.sha256] = (model_id, entry.path)
        path = f"{place}/prod/lfs-objects/{entry.sha256[:2]}/{entry.sha256[2:4]}/{entry.sha256[4:]}"
        namespace, _, repository = model_id.partition("/")
        names = {"filename": entry.path, "namespace": namespace, "repository": repository, "revision": "master"}
        stem = f"{int(self._clock() + self._seconds)}-{uuid.uuid4().hex}-0"
        key = f"{stem}-{self._hash(path, stem)}"
        return f"{path}?{urlencode({**names, 'tag': 'model', 'auth_key': key}, quote_via=quote)}"

    def find(self, path: str, key: str) -> tuple[Path, Entry] | None:
        """The file of a valid link that still has the content of the link."""
        sha256 = "".join(path.split("/")[-3:])
        with self._lock:
            model_id, name = self._files.get(sha256, ("", ""))
        repository = self._repositories.get(model_id) if self._is_valid(path, key) else None
        entry = repository.file(name) if repository else None
        return (repository.location(entry), entry) if repository and entry and entry.sha256 == sha256 else None

    def _is_valid(self, path: str, key: str) -> bool:
        stem, _, found = key.rpartition("-")
        if not secrets.compare_digest(found, self._hash(path, stem)):
            return False
        return self._clock() < int(stem.partition("-")[0])

    def _hash(self, path: str, stem: str) -> str:
        return hashlib.md5(f"{path}-{stem}-{self._secret}".encode(), usedforsecurity=False).hexdigest()
