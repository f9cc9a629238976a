"""The manifest of one stored model revision: written last, so a prefix without it does not exist for any reader."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from steps import __version__
from steps.errors import Blocked
from steps.model import Listing, ModelDigest, ModelFile, UnsafePathError
from steps.ports.oss import ModelStore
from steps.release import MANIFEST_NAME, Release

SCHEMA = 1  # raised by an incompatible change; compatible ones add fields


@dataclass(frozen=True, order=True)
class ManifestFile:
    path: str
    size: int  # bytes
    sha256: str  # 64 lower-case hex digits
    crc64: int  # CRC-64/XZ of the object, as OSS computes it


@dataclass(frozen=True)
class ModelManifest:
    """The files of one stored revision, sorted by path, and its origin."""

    model_id: str
    requested_revision: str
    model_digest: ModelDigest
    files: tuple[ManifestFile, ...]
    tool_version: str
    created: str  # ISO 8601, UTC

    @property
    def listing(self) -> Listing:
        return Listing.of(ModelFile(file.path, file.size, file.sha256) for file in self.files)

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)


class CorruptManifest(ValueError):
    """The bytes are not a manifest, or contradict themselves."""


def compose(release: Release, files: Iterable[ManifestFile], seconds: float) -> ModelManifest:
    """The manifest of a release with all files stored and verified; `seconds` since 1970 are its time."""
    return ModelManifest(
        model_id=release.service.model.id,
        requested_revision=release.service.model.revision,
        model_digest=release.model_digest,
        files=tuple(sorted(files)),
        tool_version=__version__,
        created=datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds"),
    )


def encode(manifest: ModelManifest) -> bytes:
    """The manifest as the JSON object that is stored.

    SGLang reads it too, as `--model-checksum FILE`: it requires `files` as a map from path to `sha256` and `size`,
    refuses an entry with any other field, and takes a top-level `checksums` for an older form. So CRCs have a map.
    sglang 0.5.23, srt/utils/model_file_verifier.py:26-50
    """
    content = {
        "schema": SCHEMA,
        "modelId": manifest.model_id,
        "requestedRevision": manifest.requested_revision,
        "modelDigest": manifest.model_digest,
        "totalBytes": manifest.total_bytes,
        "toolVersion": manifest.tool_version,
        "created": manifest.created,
        "files": {file.path: {"sha256": file.sha256, "size": file.size} for file in manifest.files},
        # CRCs are strings because most JSON readers parse numbers as doubles, which lose the low bits of 64.
        "crc64": {file.path: str(file.crc64) for file in manifest.files},
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def decode(body: bytes) -> ModelManifest:
    """Accepts every schema with the required fields; unknown fields are ignored.

    Raises CorruptManifest unless the digest, the total and the CRCs in the manifest match its files.
    """
    try:
        stored = _Stored.model_validate_json(body)
        listing = Listing.of(ModelFile(path, file.size, file.sha256) for path, file in stored.files.items())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the object"
        raise CorruptManifest(f"{where}: {first['msg']}{_newer(body)}") from error
    except UnsafePathError as error:
        raise CorruptManifest(str(error)) from error
    if listing.digest != stored.model_digest:
        raise CorruptManifest(f"it claims {stored.model_digest}, but its own files give {listing.digest}")
    if listing.size != stored.total_bytes:
        raise CorruptManifest(f"it totals {stored.total_bytes} bytes, but its own files {listing.size}")
    for path in sorted(stored.crc64.keys() ^ stored.files.keys()):
        raise CorruptManifest(f"only one of its fields files and crc64 has {path!r}")
    return ModelManifest(
        model_id=stored.model_id,
        requested_revision=stored.requested_revision,
        model_digest=listing.digest,
        files=tuple(ManifestFile(f.path, f.size, f.sha256, int(stored.crc64[f.path])) for f in listing.files),
        tool_version=stored.tool_version,
        created=stored.created,
    )


def read(store: ModelStore, release: Release) -> ModelManifest | None:
    """The manifest of a release. None means that the revision does not exist, even with objects below its prefix.

    Raises Blocked for an unreadable manifest, and for one of another revision.
    """
    body = store.get(release.manifest_key)
    if body is None:
        return None
    try:
        manifest = decode(body)
    except CorruptManifest as error:
        raise _refusal(release, str(error)) from error
    if manifest.model_digest != release.model_digest:
        raise _refusal(release, f"it is the manifest of {manifest.model_digest}, expected {release.model_digest}")
    return manifest


def publish(store: ModelStore, release: Release, manifest: ModelManifest) -> None:
    """Write the manifest, unless one with the same files exists.

    Raises Blocked for one with other files, which is never overwritten.
    """
    if store.put(release.manifest_key, encode(manifest), forbid_overwrite=True) is not None:
        return
    found = read(store, release)
    if found is None:
        raise Blocked(
            f"{_where(release)} was refused because it exists, and is absent now",
            "find the client that deletes objects below the prefix, then run again",
        )
    if found.files != manifest.files:
        raise _refusal(release, "it was written by another run with other checksums")


def name_is_manifest(key: str) -> bool:
    return key.endswith(f"/{MANIFEST_NAME}")


def _where(release: Release) -> str:
    return f"the manifest oss://{release.service.store.bucket}/{release.manifest_key}"


def _refusal(release: Release, found: str) -> Blocked:
    return Blocked(
        f"{_where(release)} cannot be trusted: {found}",
        "find its writer; if it is a newer Slipway, use that one, else delete this one object and run again: the files "
        "are checked, not moved again",
    )


def _newer(body: bytes) -> str:
    """A note for an unreadable manifest of a newer Slipway."""
    try:
        schema = json.loads(body)["schema"]
    except (ValueError, TypeError, LookupError):
        return ""
    newer = isinstance(schema, int) and schema > SCHEMA
    return f"; its schema is {schema}, and this Slipway knows {SCHEMA}" if newer else ""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, alias_generator=to_camel, defer_build=True)


class _StoredFile(_Section):
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Stored(_Section):
    schema_number: int = Field(alias="schema", ge=1)
    model_id: str
    requested_revision: str
    model_digest: str
    total_bytes: int
    tool_version: str
    created: str
    files: dict[str, _StoredFile]
    crc64: dict[str, Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]]
