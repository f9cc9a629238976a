"""Copies an object that is too large for one CopyObject, part by part, inside OSS.

https://www.alibabacloud.com/help/en/oss/developer-reference/uploadpartcopy
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from steps.ports.oss import StoredObject, StoredPart, Upload

PART = 256 << 20  # bytes: OSS answers before a read times out, and 10,000 of them are more than any model file


class PartStore(Protocol):
    def start_upload(self, key: str, *, metadata: Mapping[str, str] | None = None) -> Upload: ...

    def copy_part(self, upload: Upload, number: int, source: StoredObject, start: int, size: int) -> StoredPart: ...

    def complete_upload(self, upload: Upload, parts: Iterable[StoredPart], *, crc64: int) -> StoredObject: ...

    def abort_upload(self, upload: Upload) -> None: ...


def copy_parts(store: PartStore, source: StoredObject, wanted: StoredObject, part_size: int = PART) -> StoredObject:
    """Make `wanted` from the bytes of `source`, and compare the CRC-64. An upload that fails is not left behind."""
    upload = store.start_upload(wanted.key, metadata=wanted.metadata)
    done = False
    try:
        parts = [
            store.copy_part(upload, number, source, start, min(part_size, source.size - start))
            for number, start in enumerate(range(0, source.size, part_size), start=1)
        ]
        copied = store.complete_upload(upload, parts, crc64=source.crc64 or 0)
        done = True
    finally:
        if not done:
            store.abort_upload(upload)
    return copied
