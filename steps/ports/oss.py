"""The bucket, and the access key for it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

Metadata = Mapping[str, str]  # x-oss-meta-*, names without that prefix


@dataclass(frozen=True)
class StoredObject:
    key: str
    size: int
    etag: str
    crc64: int | None = None  # of the whole object, as OSS computed it
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class StoredPart:
    number: int  # from 1
    size: int
    etag: str
    crc64: int | None = None  # of the bytes that OSS received


@dataclass(frozen=True)
class Upload:
    """A multipart upload that is not complete."""

    key: str
    id: str


class ModelStore(Protocol):
    """One bucket. Keys are full keys, never relative to a prefix."""

    def head(self, key: str) -> StoredObject | None: ...

    def scan(self, prefix: str) -> Iterator[StoredObject]:
        """Objects below a prefix, without `crc64` and `metadata`, in key order."""
        ...

    def get(self, key: str) -> bytes | None: ...

    def read(self, key: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of an object from `start` on, or raise."""
        ...

    def put(
        self, key: str, body: bytes | memoryview, *, metadata: Metadata | None = None, forbid_overwrite: bool = False
    ) -> StoredObject | None:
        """Write one object and compare the CRC-64 of OSS. None if it exists and may not be overwritten."""
        ...

    def copy(self, source: StoredObject, key: str, *, metadata: Metadata | None = None) -> StoredObject:
        """Copy inside the bucket; no byte goes through this process."""
        ...

    def delete(self, keys: Iterable[str]) -> None: ...

    def start_upload(self, key: str, *, metadata: Metadata | None = None) -> Upload: ...

    def upload_part(self, upload: Upload, number: int, body: memoryview, *, crc64: int | None = None) -> StoredPart:
        """Send one part and compare the CRC-64 of OSS with `crc64`; None means the one of `body`."""
        ...

    def parts(self, upload: Upload) -> list[StoredPart] | None:
        """Parts that OSS holds, by number; None if the upload does not exist any more."""
        ...

    def complete_upload(self, upload: Upload, parts: Iterable[StoredPart], *, crc64: int) -> StoredObject:
        """Make the object from its parts and compare its CRC-64 with `crc64`."""
        ...

    def abort_upload(self, upload: Upload) -> None:
        """Remove an upload and its parts. An absent upload is no error."""
        ...

    def uploads(self, prefix: str) -> list[Upload]: ...


@dataclass(frozen=True)
class AccessKey:
    """An access key of Alibaba Cloud. Its secrets never reach a repr, and so no log."""

    id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)  # of a temporary key (STS)
