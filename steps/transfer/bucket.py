"""The bucket as a sink: multipart uploads that another process can resume.

Each upload has a small state object, `<prefix>/.slipway/transfer/<hash of the path>.json`, with its resume point
(docs/decisions/0002-resume-inside-a-file.md). The order of writes keeps one promise: an object with
`x-oss-meta-sha256` and without a state object holds exactly the bytes with that SHA-256.
"""

import hashlib
import threading
from collections.abc import Iterable

from steps.errors import Blocked, StepError, TransientError
from steps.model import ModelFile
from steps.ports.oss import ModelStore, StoredObject, StoredPart, Upload
from steps.release import Release, content_hash
from steps.transfer.layout import FilePart
from steps.transfer.resume_point import ResumePoint, ResumeRecord
from steps.transfer.sink import Corrupted, FileSink, Move

STATE_FOLDER = ".slipway/transfer"
SHA256 = "sha256"  # metadata of every object
CRC64 = "crc64"  # metadata of small objects and copies, which have it before their first byte is sent


def object_key(release: Release, path: str) -> str:
    return f"{release.prefix}/{path}"


def state_key(release: Release, path: str) -> str:
    # Named by hash, because a path may be long and deep.
    return f"{release.prefix}/{STATE_FOLDER}/{content_hash(path, 16)}.json"


def metadata(file: ModelFile, crc64: int | None = None) -> dict[str, str]:
    return {SHA256: file.sha256} | ({} if crc64 is None else {CRC64: str(crc64)})


def why_unverified(found: StoredObject, file: ModelFile, state: ResumeRecord | None = None) -> str:
    """The reason against a stored object as the published file; empty for a proved one. `found` comes from `head`."""
    claimed = found.metadata.get(SHA256)
    promised = found.metadata.get(CRC64)
    if found.size != file.size:
        return f"size {found.size}, expected {file.size}"
    if claimed != file.sha256:
        return f"sha256 {claimed or 'unknown'}, expected {file.sha256}"
    if promised is not None and promised != str(found.crc64):
        return f"crc64 {found.crc64}, expected {promised}"
    if state is not None and not (state.complete and state.point.crc64 == found.crc64):
        return f"crc64 {found.crc64}, not proved by the upload that wrote it"
    return ""


class BucketSink:
    def __init__(self, store: ModelStore, release: Release) -> None:
        self._store = store
        self._release = release

    def open(self, move: Move, part_size: int) -> FileSink:
        return _BucketFile(self._store, self._release, move.file, part_size)


class _BucketFile:
    def __init__(self, store: ModelStore, release: Release, file: ModelFile, part_size: int) -> None:
        self._store = store
        self._file = file
        self._key = object_key(release, file.path)
        self._state_key = state_key(release, file.path)
        self._name = f"oss://{release.service.store.bucket}/{self._key}"
        self._part_size = part_size
        self._starting = threading.Lock()
        self._upload: Upload | None = None
        self._parts: dict[int, StoredPart] = {}

    def make_room(self) -> None:
        self._store.delete([self._key])

    def resume(self) -> ResumePoint | None:
        record = ResumeRecord.decode(self._store.get(self._state_key), self._file)
        if record is None:
            self._store.delete([self._state_key])
            return None
        self._upload = Upload(self._key, record.upload)
        parts = self._store.parts(self._upload)
        known = {part.number: part for part in parts or () if part.number <= record.parts}
        if parts is None or len(known) != record.parts or _etags(known.values()) != record.etags:
            self.discard()
            return None
        self._parts = known
        return record.point

    def put(self, body: memoryview, crc64: int) -> None:
        stored = self._store.put(self._key, body, metadata=metadata(self._file, crc64))
        if stored is None or stored.size != self._file.size or stored.crc64 != crc64:
            raise Corrupted(
                f"{self._name} was stored as {stored}, expected {self._file.size} bytes with CRC-64 {crc64}"
            )

    def write(self, part: FilePart, body: memoryview, crc64: int) -> None:
        upload = self._started()
        try:
            self._parts[part.number] = self._store.upload_part(upload, part.number, body, crc64=crc64)
        except Blocked as error:
            if self._store.parts(upload) is None:
                raise TransientError(
                    f"another client ended the upload of {self._name}", "run again; stored bytes are kept"
                ) from error
            raise

    def save(self, point: ResumePoint) -> None:
        upload = self._upload
        if upload:
            self._write_state(point, upload)

    def finish(self, point: ResumePoint) -> None:
        upload = self._started()
        # The state now holds the CRC of the whole file, so another process can verify the object even if this one dies
        # before the answer.
        self._write_state(point, upload)
        parts = [self._parts[number] for number in sorted(self._parts)]
        stored = self._completed(upload, parts, point.crc64)
        if stored.size != self._file.size or stored.crc64 != point.crc64:
            self._store.delete([self._key])
            raise Corrupted(
                f"{self._name} holds {stored.size} bytes with CRC-64 {stored.crc64}, "
                f"expected {self._file.size} bytes with CRC-64 {point.crc64}"
            )
        self._store.delete([self._state_key])

    def discard(self) -> None:
        if self._upload:
            self._store.abort_upload(self._upload)
        self._store.delete([self._state_key])
        self._upload = None
        self._parts = {}

    def close(self) -> None:
        """A bucket needs no open file."""

    def _started(self) -> Upload:
        with self._starting:
            if self._upload is None:
                self._upload = self._store.start_upload(self._key, metadata=metadata(self._file))
                self._write_state(ResumePoint(self._part_size, 0, "", 0), self._upload)
            return self._upload

    def _completed(self, upload: Upload, parts: list[StoredPart], crc64: int) -> StoredObject:
        try:
            return self._store.complete_upload(upload, parts, crc64=crc64)
        except StepError:
            # The answer was lost, or reported another checksum: the object itself decides.
            found = self._store.head(self._key)
            if found is None:
                raise
            return found

    def _write_state(self, point: ResumePoint, upload: Upload) -> None:
        leading = [self._parts[number] for number in range(1, point.parts + 1)]
        record = ResumeRecord.of(self._file, point, upload=upload.id, etags=_etags(leading))
        self._store.put(self._state_key, record.encode())


def _etags(parts: Iterable[StoredPart]) -> str:
    lines = "".join(f"{part.number} {part.size} {part.etag}\n" for part in parts)
    return hashlib.sha256(lines.encode()).hexdigest()
