"""What the bucket holds of a model: of the revision that is wanted, and of its other revisions."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from steps.model import Listing, ModelFile
from steps.ports.oss import ModelStore, StoredObject, Upload
from steps.release import MANIFEST_NAME, Release
from steps.transfer import checkpoint, manifest
from steps.transfer.bucket import STATE_FOLDER, mistrust, object_key, state_key
from steps.transfer.checkpoint import CheckpointRecord

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Unfinished:
    """An upload that a process has left behind, with what it needs to go on."""

    upload: Upload
    state_key: str
    bytes_there: int


@dataclass(frozen=True)
class Inventory:
    """Paths are those of the listing; keys are full keys."""

    stored: Mapping[str, StoredObject] = field(default_factory=dict)  # path -> object whose content is proved
    mistrusted: Mapping[str, str] = field(default_factory=dict)  # path -> why the object there is not the file
    unfinished: Mapping[str, Unfinished] = field(default_factory=dict)  # path -> an upload to go on with
    elsewhere: Mapping[str, StoredObject] = field(default_factory=dict)  # SHA-256 -> object of another revision
    orphans: tuple[Upload, ...] = ()  # uploads that nothing goes on with
    stale: tuple[str, ...] = ()  # keys of states that nothing goes on with
    strangers: tuple[str, ...] = ()  # keys below the prefix that are no file of this revision


def take(store: ModelStore, release: Release, listing: Listing, share: Listing | None = None) -> Inventory:
    """Read what is there: one listing of the model, one HEAD for each object of this revision.

    With a `share` of the listing, only its files are looked at: what belongs to other files is on its way in another
    process, and looks like nothing but leftovers from here. Raises Blocked and TransientError like the store.
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
    stored, mistrusted = _judge(zip(present, heads, strict=True), states)
    going_on = _going_on(release, uploads, states, stored)
    mine = None if share is None else _keys(release, share)
    named = {(item.upload.key, item.upload.id) for item in going_on.values()}
    kept_states = {state_key(release, path) for path in {*going_on, *mistrusted}}
    return Inventory(
        stored=stored,
        mistrusted=mistrusted,
        unfinished=going_on,
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
        strangers=strangers(release, listing, here),
    )


def _keys(release: Release, share: Listing) -> set[str]:
    """Every key that may exist for the files of a share: of the object, and of its state."""
    return {key(release, file.path) for file in share.files for key in (object_key, state_key)}


def _states(
    store: ModelStore, release: Release, files: Iterable[ModelFile], here: set[str]
) -> dict[str, CheckpointRecord]:
    found = {}
    for file in files:
        key = state_key(release, file.path)
        body = store.get(key) if key in here else None
        record = checkpoint.decode(body) if body else None
        if record and (record.path, record.sha256, record.size) == (file.path, file.sha256, file.size):
            found[file.path] = record
    return found


def _judge(
    seen: Iterable[tuple[ModelFile, StoredObject | None]], states: Mapping[str, CheckpointRecord]
) -> tuple[dict[str, StoredObject], dict[str, str]]:
    stored, mistrusted = {}, {}
    for file, found in seen:
        if found is None:
            continue
        doubt = mistrust(found, file, states.get(file.path))
        if doubt:
            mistrusted[file.path] = doubt
        else:
            stored[file.path] = found
    return stored, mistrusted


def _going_on(
    release: Release,
    uploads: Iterable[Upload],
    states: Mapping[str, CheckpointRecord],
    stored: Mapping[str, StoredObject],
) -> dict[str, Unfinished]:
    found = {}
    still_open = {(upload.key, upload.id) for upload in uploads}
    for path, record in states.items():
        upload = Upload(object_key(release, path), record.upload)
        if path not in stored and (upload.key, upload.id) in still_open:
            there = min(record.parts * record.part_size, record.size)
            found[path] = Unfinished(upload, state_key(release, path), there)
    return found


def _is_state(release: Release, key: str) -> bool:
    return key.startswith(f"{release.prefix}/{STATE_FOLDER}/")


def strangers(release: Release, listing: Listing, here: Iterable[str]) -> tuple[str, ...]:
    """Readers mount the prefix as a folder, so a file that is not of the model would be part of it."""
    known = {object_key(release, file.path) for file in listing.files}
    ours = f"{release.prefix}/{MANIFEST_NAME.partition('/')[0]}/"
    # Consoles and FUSE clients leave empty objects that end with a slash, in place of folders.
    return tuple(sorted(key for key in here if key not in known and not key.startswith(ours) and not key.endswith("/")))


def _elsewhere(store: ModelStore, objects: Mapping[str, StoredObject], release: Release) -> dict[str, StoredObject]:
    """Files of the other revisions whose manifests vouch for them, by SHA-256, with the CRC of the manifest."""
    found: dict[str, StoredObject] = {}
    for key in sorted(objects):
        if not manifest.name_is_manifest(key) or key == release.manifest_key:
            continue
        try:
            other = manifest.decode(store.get(key) or b"")
        except manifest.CorruptManifest as error:
            log.warning("nothing is copied from the revision of %s, its manifest is corrupt: %s", key, error)
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
    with ThreadPoolExecutor(min(workers, len(items)), thread_name_prefix="look") as pool:
        return list(pool.map(call, items))
