"""A hub and a bucket in memory that keep the promises of `steps.ports`, count what they do, and break on demand."""

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from steps.errors import Blocked, TransientError
from steps.model import Listing, ModelFile
from steps.ports.oss import StoredObject, StoredPart, Upload
from steps.transfer.hashing import crc

Hook = Callable[[str, str], None]  # operation, key or path; raises to break


class Killed(BaseException):
    """The process is gone: no later action of it has an effect."""


class KillAt:
    """A hook that lets `operations` pass, and kills at the next one and at all that follow."""

    def __init__(self, operations: int) -> None:
        self._left = operations
        self._lock = threading.Lock()

    def __call__(self, operation: str, key: str) -> None:
        with self._lock:
            self._left -= 1
            if self._left < 0:
                raise Killed


def nothing(operation: str, key: str) -> None:
    """The hook of a good day."""


def transfer_threads() -> list[threading.Thread]:
    """Those that move files now."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("transfer-")]


def content(path: str, size: int) -> bytes:
    """Bytes that differ from file to file."""
    return random.Random(path).randbytes(size)


def listing_of(files: Mapping[str, bytes]) -> Listing:
    return Listing.of(ModelFile(path, len(body), hashlib.sha256(body).hexdigest()) for path, body in files.items())


@dataclass
class MemorySource:
    files: dict[str, bytes]
    hook: Hook = nothing
    bytes_read: int = 0
    listings: int = 0
    flips: Counter[str] = field(default_factory=Counter)  # path -> reads that still get one wrong bit
    listed: Listing | None = None  # of the hub, where it differs from its files
    lock: threading.Lock = field(default_factory=threading.Lock)

    def listing(self) -> Listing:
        self.hook("listing", "")
        self.listings += 1
        return self.listed or listing_of(self.files)

    def read(self, file: ModelFile, start: int, buffer: memoryview) -> int:
        self.hook("read", file.path)
        body = self.files[file.path][start : start + len(buffer)]
        if len(body) != len(buffer):
            raise Blocked(f"short read of {file.path}")
        buffer[:] = body
        with self.lock:
            self.bytes_read += len(body)
            if self.flips[file.path]:
                self.flips[file.path] -= 1
                buffer[0] ^= 1
        return crc(buffer)


@dataclass
class _Entry:
    body: bytes
    metadata: dict[str, str]


@dataclass
class _Open:
    key: str
    metadata: dict[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class MemoryStore:
    hook: Hook = nothing
    objects: dict[str, _Entry] = field(default_factory=dict)
    open: dict[str, _Open] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    bytes_received: int = 0
    deceive: Callable[[str, bytes], bytes] = lambda key, body: (
        body
    )  # bytes that the bucket keeps instead of the sent ones
    lock: threading.RLock = field(default_factory=threading.RLock)
    made: int = 0

    def _asked(self, operation: str, key: str) -> None:
        self.hook(operation, key)
        with self.lock:
            self.requests[operation] += 1

    def head(self, key: str) -> StoredObject | None:
        self._asked("head", key)
        return self._describe(key)

    def scan(self, prefix: str) -> Iterator[StoredObject]:
        self._asked("scan", prefix)
        for key in sorted(key for key in self.objects if key.startswith(prefix)):
            yield replace(self._described(key), crc64=None, metadata={})

    def get(self, key: str) -> bytes | None:
        self._asked("get", key)
        entry = self.objects.get(key)
        return entry.body if entry else None

    def read(self, key: str, start: int, buffer: memoryview) -> None:
        self._asked("read", key)
        buffer[:] = self.objects[key].body[start : start + len(buffer)]

    def put(
        self,
        key: str,
        body: bytes | memoryview,
        *,
        metadata: Mapping[str, str] | None = None,
        forbid_overwrite: bool = False,
    ) -> StoredObject | None:
        self._asked("put", key)
        with self.lock:
            if forbid_overwrite and key in self.objects:
                return None
            kept = self.deceive(key, bytes(body))
            self.bytes_received += len(kept)
            self.objects[key] = _Entry(kept, dict(metadata or {}))
            self.hook("answer put", key)
            return self._described(key)

    def copy(self, source: StoredObject, key: str, *, metadata: Mapping[str, str] | None = None) -> StoredObject:
        self._asked("copy", key)
        with self.lock:
            self.objects[key] = _Entry(self.objects[source.key].body, dict(metadata or {}))
            return self._described(key)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._asked("delete", key)
            with self.lock:
                self.objects.pop(key, None)

    def start_upload(self, key: str, *, metadata: Mapping[str, str] | None = None) -> Upload:
        self._asked("start", key)
        with self.lock:
            self.made += 1
            upload = Upload(key, f"upload-{self.made}")
            self.open[upload.id] = _Open(key, dict(metadata or {}))
        self.hook("answer start", key)
        return upload

    def upload_part(self, upload: Upload, number: int, body: memoryview, *, crc64: int | None = None) -> StoredPart:
        self._asked("part", upload.key)
        with self.lock:
            if upload.id not in self.open:
                raise Blocked(f"no upload {upload.id}")
            kept = self.deceive(upload.key, bytes(body))
            self.bytes_received += len(kept)
            self.open[upload.id].parts[number] = kept
        self.hook("answer part", upload.key)
        return _part(number, bytes(body))

    def parts(self, upload: Upload) -> list[StoredPart] | None:
        self._asked("parts", upload.key)
        found = self.open.get(upload.id)
        return [_part(number, body) for number, body in sorted(found.parts.items())] if found else None

    def complete_upload(self, upload: Upload, parts: Iterable[StoredPart], *, crc64: int) -> StoredObject:
        self._asked("complete", upload.key)
        with self.lock:
            found = self.open.get(upload.id)
            if found is None:
                raise TransientError(f"no upload {upload.id}")
            body = b"".join(found.parts[part.number] for part in parts)
            del self.open[upload.id]
            self.objects[upload.key] = _Entry(body, found.metadata)
        self.hook("answer complete", upload.key)
        stored = self._described(upload.key)
        if stored.crc64 != crc64:
            raise TransientError(f"{upload.key} has CRC-64 {stored.crc64}, expected {crc64}")
        return stored

    def abort_upload(self, upload: Upload) -> None:
        self._asked("abort", upload.key)
        with self.lock:
            self.open.pop(upload.id, None)

    def uploads(self, prefix: str) -> list[Upload]:
        self._asked("uploads", prefix)
        return [Upload(found.key, name) for name, found in sorted(self.open.items()) if found.key.startswith(prefix)]

    def _describe(self, key: str) -> StoredObject | None:
        return self._described(key) if key in self.objects else None

    def _described(self, key: str) -> StoredObject:
        entry = self.objects[key]
        checksum = crc(memoryview(entry.body))
        return StoredObject(key, len(entry.body), f"{checksum:x}", checksum, entry.metadata)


def _part(number: int, body: bytes) -> StoredPart:
    checksum = crc(memoryview(body))
    return StoredPart(number, len(body), f"{checksum:x}", checksum)
