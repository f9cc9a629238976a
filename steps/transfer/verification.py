"""Comparison of a stored revision with its manifest: size and CRC-64 of OSS, and every byte."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from steps.ports.oss import ModelStore, StoredObject
from steps.reconcile.report import size
from steps.release import Release
from steps.transfer import hashing
from steps.transfer.bucket import object_key
from steps.transfer.inventory import unexpected_keys
from steps.transfer.layout import layout, part_size
from steps.transfer.manifest import ManifestFile, ModelManifest


@dataclass(frozen=True)
class Examined:
    """The result for one file of the manifest."""

    path: str
    difference: str = ""  # from the manifest; empty without one
    bytes_read: int = 0


@dataclass(frozen=True)
class Examination:
    files: tuple[Examined, ...] = ()
    extra: tuple[str, ...] = ()  # keys below the prefix without an entry in the manifest

    @property
    def differences(self) -> tuple[Examined, ...]:
        return tuple(file for file in self.files if file.difference)

    @property
    def bytes_read(self) -> int:
        return sum(file.bytes_read for file in self.files)


def examine(store: ModelStore, release: Release, manifest: ModelManifest) -> Examination:
    """Read every byte of the revision, `transfer.workers` files at a time with one part in memory for each.

    Raises Blocked and TransientError like the store.
    """
    here = {found.key for found in store.scan(f"{release.prefix}/")}
    readers = _Readers(store, release)
    # The largest first, so that the threads end at about the same time.
    ordered = sorted(manifest.files, key=lambda file: (-file.size, file.path))
    workers = max(1, min(release.service.transfer.workers, len(ordered)))
    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        files = list(pool.map(readers.examine, ordered))
    return Examination(
        tuple(sorted(files, key=lambda file: file.path)), unexpected_keys(release, manifest.listing, here)
    )


class _Own(threading.local):
    """The buffer of one thread."""

    buffer = bytearray()


class _Readers:
    def __init__(self, store: ModelStore, release: Release) -> None:
        self._store = store
        self._release = release
        self._part = part_size(release.service)
        self._own = _Own()

    def examine(self, file: ManifestFile) -> Examined:
        key = object_key(self._release, file.path)
        found = self._store.head(key)
        if found is None:
            return Examined(file.path, "is absent")
        differences = _metadata_differences(found, file)
        if found.size != file.size:  # then its bytes cannot be the published ones
            return Examined(file.path, "; ".join(differences))
        sums = self._sums(key, file)
        return Examined(file.path, "; ".join((*differences, *sums)), file.size)

    def _sums(self, key: str, file: ManifestFile) -> Sequence[str]:
        sha256, crc64 = hashing.sha256(), 0
        parts = layout(file.size, self._part)
        for number in range(1, parts.parts + 1):
            part = parts.part(number)
            body = self._buffer(part.length)
            self._store.read(key, part.start, body)
            sha256.update(body)
            crc64 = hashing.crc(body, crc64)
        found = sha256.hexdigest()
        wrong = [] if found == file.sha256 else [f"its bytes have the SHA-256 {found}, expected {file.sha256}"]
        if crc64 != file.crc64:
            wrong.append(f"its bytes have the CRC-64 {crc64}, expected {file.crc64}")
        return wrong

    def _buffer(self, length: int) -> memoryview:
        if len(self._own.buffer) < length:
            self._own.buffer = bytearray(length)
        return memoryview(self._own.buffer)[:length]


def _metadata_differences(found: StoredObject, file: ManifestFile) -> Sequence[str]:
    """Differences in the metadata of the object, without reading its bytes."""
    wrong = [] if found.size == file.size else [f"has {found.size} bytes ({size(found.size)}), expected {file.size}"]
    if found.crc64 != file.crc64:
        wrong.append(f"OSS has the CRC-64 {found.crc64}, expected {file.crc64}")
    return wrong
