"""Contents of the bucket for a model: for the declared revision, and for its other revisions."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from steps.model import Listing, ModelFile
from steps.ports.oss import ModelStore, StoredObject, Upload
from steps.release import MANIFEST_NAME, Release
from steps.transfer import manifest
from steps.transfer.bucket import STATE_FOLDER, object_key, state_key, why_unverified
from steps.transfer.resume_point import ResumeRecord

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Unfinished:
    """An upload of an earlier process that can be resumed."""

    upload: Upload
    state_key: str
    bytes_stored: int


@dataclass(frozen=True)
class Inventory:
    """Paths are those of the listing; keys are full keys."""

    stored: Mapping[str, StoredObject] = field(default_factory=dict)  # path -> object with proved content
    unverified: Mapping[str, str] = field(
        default_factory=dict
    )  # path -> difference between the object there and the file
    unfinished: Mapping[str, Unfinished] = field(default_factory=dict)  # path -> an upload to resume
    elsewhere: Mapping[str, StoredObject] = field(default_factory=dict)  # SHA-256 -> object of another revision
    orphans: tuple[Upload, ...] = ()  # uploads that cannot be resumed
    stale: tuple[str, ...] = ()  # keys of states that cannot be resumed
    unexpected: tuple[str, ...] = ()  # keys below the prefix of no file of this revision


def observe(store: ModelStore, release: Release, listing: Listing, share: Listing | None = None) -> Inventory:
    """Read the bucket: one listing of the model, one HEAD for each object of this revision.

    With a `share` of the listing, only for its files: another process is moving the others, and its uploads are no
    leftovers. Raises Blocked and TransientError like the store.
    """
    files = listing.files if share is None else share.files
    model = f"{release.service.store.prefix}/{release.service.model.id}/"
    objects = {found.key: found for found in store.scan(model)}
    uploads = tuple(store.uploads(f"{release.prefix}/"))
    here = {key for key in objects if key.startswith(f"{release.prefix}/")}
    states = _states(store, release, files, here)
    present = [file for file in files if object_key(release, file.path) in here]
    workers = release.service.transfer.workers
    heads = _in_parallel(lambda file: store.head(object_key(release, file.path)), present, workers)
    stored, unverified = _evaluate(zip(present, heads, strict=True), states)
    resumable = _resumable(release, uploads, states, stored)
    mine = None if share is None else _keys(release, share)
    named = {(item.upload.key, item.upload.id) for item in resumable.values()}
    kept_states = {state_key(release, path) for path in {*resumable, *unverified}}
    return Inventory(
        stored=stored,
        unverified=unverified,
        unfinished=resumable,
        elsewhere=_elsewhere(store, objects, release),
        orphans=tuple(
            upload
            for upload in uploads
            if (upload.key, upload.id) not in named and (mine is None or upload.key in mine)
        ),
        stale=tuple(
            sorted(
                key
                for key in here
                if _is_state(release, key) and key not in kept_states and (mine is None or key in mine)
            )
        ),
        unexpected=unexpected_keys(release, listing, here),
    )


def _keys(release: Release, share: Listing) -> set[str]:
    """Every possible key of the files of a share: of the object, and of its state."""
    return {key(release, file.path) for file in share.files for key in (object_key, state_key)}


def _states(store: ModelStore, release: Release, files: Iterable[ModelFile], here: set[str]) -> dict[str, ResumeRecord]:
    found = {}
    for file in files:
        key = state_key(release, file.path)
        record = ResumeRecord.decode(store.get(key), file) if key in here else None
        if record:
            found[file.path] = record
    return found


def _evaluate(
    heads: Iterable[tuple[ModelFile, StoredObject | None]], states: Mapping[str, ResumeRecord]
) -> tuple[dict[str, StoredObject], dict[str, str]]:
    stored, unverified = {}, {}
    for file, found in heads:
        if found is None:
            continue
        difference = why_unverified(found, file, states.get(file.path))
        if difference:
            unverified[file.path] = difference
        else:
            stored[file.path] = found
    return stored, unverified


def _resumable(
    release: Release,
    uploads: Iterable[Upload],
    states: Mapping[str, ResumeRecord],
    stored: Mapping[str, StoredObject],
) -> dict[str, Unfinished]:
    found = {}
    still_open = {(upload.key, upload.id) for upload in uploads}
    for path, record in states.items():
        upload = Upload(object_key(release, path), record.upload)
        if path not in stored and (upload.key, upload.id) in still_open:
            stored_bytes = min(record.parts * record.part_size, record.size)
            found[path] = Unfinished(upload, state_key(release, path), stored_bytes)
    return found


def _is_state(release: Release, key: str) -> bool:
    return key.startswith(f"{release.prefix}/{STATE_FOLDER}/")


def unexpected_keys(release: Release, listing: Listing, here: Iterable[str]) -> tuple[str, ...]:
    """Keys of no file of the model. Readers mount the prefix as a folder, so such a file would be part of the model."""
    known = {object_key(release, file.path) for file in listing.files}
    ours = f"{release.prefix}/{MANIFEST_NAME.partition('/')[0]}/"
    # Consoles and FUSE clients create empty objects that end with a slash as folders.
    return tuple(sorted(key for key in here if key not in known and not key.startswith(ours) and not key.endswith("/")))


def _elsewhere(store: ModelStore, objects: Mapping[str, StoredObject], release: Release) -> dict[str, StoredObject]:
    """Files of the other revisions, by SHA-256, with the CRC of their manifest."""
    found: dict[str, StoredObject] = {}
    for key in sorted(objects):
        if not manifest.name_is_manifest(key) or key == release.manifest_key:
            continue
        try:
            other = manifest.decode(store.get(key) or b"")
        except manifest.CorruptManifest as error:
            log.warning("no file is copied from the revision of %s, its manifest is corrupt: %s", key, error)
            continue
        prefix = key.removesuffix(f"/{MANIFEST_NAME}")
        for file in other.files:
            stored = objects.get(f"{prefix}/{file.path}")
            if stored and stored.size == file.size:
                found.setdefault(file.sha256, replace(stored, crc64=file.crc64))
    return found


def _in_parallel(call: Callable[[_Item], _Result], items: Sequence[_Item], workers: int) -> list[_Result]:
    if not items:
        return []
    with ThreadPoolExecutor(min(workers, len(items)), thread_name_prefix="observe") as pool:
        return list(pool.map(call, items))
