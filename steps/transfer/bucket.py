"""The bucket as a sink: multipart uploads that another process can go on with.

Beside each upload lies a small object, `<prefix>/.slipway/transfer/<hash of the path>.json`, that says how far it is
(docs/decisions/0002-resume-inside-a-file.md). The order of writes keeps one promise: an object that says
`x-oss-meta-sha256` and has no such state beside it holds exactly the bytes with that SHA-256.
"""

import hashlib
import threading
from collections.abc import Iterable

from steps.errors import Blocked, StepError, TransientError
from steps.model import ModelFile
from steps.ports.oss import ModelStore, StoredObject, StoredPart, Upload
from steps.release import Release, content_hash
from steps.transfer import checkpoint as checkpoints
from steps.transfer.checkpoint import Checkpoint, CheckpointRecord
from steps.transfer.layout import Part
from steps.transfer.sink import Corrupted, FileSink, Move

STATE_FOLDER = ".slipway/transfer"
SHA256 = "sha256"  # metadata of every object
CRC64 = "crc64"  # metadata where it is known before the first byte is sent: of small objects and copies


def object_key(release: Release, path: str) -> str:
    return f"{release.prefix}/{path}"


def state_key(release: Release, path: str) -> str:
    # Named by hash, because a path may be longer or deeper than a key of ours should be.
    return f"{release.prefix}/{STATE_FOLDER}/{content_hash(path, 16)}.json"


def metadata(file: ModelFile, crc64: int | None = None) -> dict[str, str]:
    return {SHA256: file.sha256} | ({} if crc64 is None else {CRC64: str(crc64)})


def mistrust(found: StoredObject, file: ModelFile, state: CheckpointRecord | None = None) -> str:
    """Why a stored object is not the published file, or an empty string. `found` comes from `head`."""
    claimed = found.metadata.get(SHA256)
    promised = found.metadata.get(CRC64)
    if found.size != file.size:
        return f"size {found.size}, expected {file.size}"
    if claimed != file.sha256:
        return f"sha256 {claimed or 'unknown'}, expected {file.sha256}"
    if promised is not None and promised != str(found.crc64):
        return f"crc64 {found.crc64}, expected {promised}"
    if state is not None and not (state.complete and state.checkpoint.crc64 == found.crc64):
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

    def resume(self) -> Checkpoint | None:
        body = self._store.get(self._state_key)
        record = checkpoints.decode(body) if body else None
        if record is None or (record.path, record.sha256, record.size) != (
            self._file.path,
            self._file.sha256,
            self._file.size,
        ):
            self._store.delete([self._state_key])
            return None
        self._upload = Upload(self._key, record.upload)
        parts = self._store.parts(self._upload)
        known = {part.number: part for part in parts or () if part.number <= record.parts}
        if parts is None or len(known) != record.parts or _etags(known.values()) != record.etags:
            self.discard()
            return None
        self._parts = known
        return record.checkpoint

    def put(self, body: memoryview, crc64: int) -> None:
        stored = self._store.put(self._key, body, metadata=metadata(self._file, crc64))
        if stored is None or stored.size != self._file.size or stored.crc64 != crc64:
            raise Corrupted(
                f"{self._name} was stored as {stored}, expected {self._file.size} bytes with CRC-64 {crc64}"
            )

    def write(self, part: Part, body: memoryview, crc64: int) -> None:
        upload = self._started()
        try:
            self._parts[part.number] = self._store.upload_part(upload, part.number, body, crc64=crc64)
        except Blocked as error:
            if self._store.parts(upload) is None:
                raise TransientError(
                    f"the upload of {self._name} was ended by somebody else", "run again; what is stored is kept"
                ) from error
            raise

    def save(self, checkpoint: Checkpoint) -> None:
        upload = self._upload
        if upload:
            self._write_state(checkpoint, upload)

    def finish(self, checkpoint: Checkpoint) -> None:
        upload = self._started()
        # From here on the state holds the CRC of the whole file, so a process that finds the object can judge it even
        # if this one dies before it has seen the answer.
        self._write_state(checkpoint, upload)
        parts = [self._parts[number] for number in sorted(self._parts)]
        stored = self._completed(upload, parts, checkpoint.crc64)
        if stored.size != self._file.size or stored.crc64 != checkpoint.crc64:
            self._store.delete([self._key])
            raise Corrupted(
                f"{self._name} holds {stored.size} bytes with CRC-64 {stored.crc64}, "
                f"expected {self._file.size} bytes with CRC-64 {checkpoint.crc64}"
            )
        self._store.delete([self._state_key])

    def discard(self) -> None:
        if self._upload:
            self._store.abort_upload(self._upload)
        self._store.delete([self._state_key])
        self._upload = None
        self._parts = {}

    def close(self) -> None:
        """Nothing is held open."""

    def _started(self) -> Upload:
        with self._starting:
            if self._upload is None:
                self._upload = self._store.start_upload(self._key, metadata=metadata(self._file))
                self._write_state(Checkpoint(self._part_size, 0, "", 0), self._upload)
            return self._upload

    def _completed(self, upload: Upload, parts: list[StoredPart], crc64: int) -> StoredObject:
        try:
            return self._store.complete_upload(upload, parts, crc64=crc64)
        except StepError:
            # The answer may have been lost, or said that the checksum differs: the object itself tells.
            found = self._store.head(self._key)
            if found is None:
                raise
            return found

    def _write_state(self, checkpoint: Checkpoint, upload: Upload) -> None:
        leading = [self._parts[number] for number in range(1, checkpoint.parts + 1)]
        record = CheckpointRecord(
            path=self._file.path,
            sha256=self._file.sha256,
            size=self._file.size,
            part_size=checkpoint.part_size,
            parts=checkpoint.parts,
            sha256_state=checkpoint.sha256_state,
            crc64=str(checkpoint.crc64),
            upload=upload.id,
            etags=_etags(leading),
        )
        self._store.put(self._state_key, record.encode())


def _etags(parts: Iterable[StoredPart]) -> str:
    lines = "".join(f"{part.number} {part.size} {part.etag}\n" for part in parts)
    return hashlib.sha256(lines.encode()).hexdigest()
