"""The changes for each file of a revision: pure decisions from the observed facts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from steps.model import Listing, ModelFile
from steps.ports.oss import StoredObject, Upload
from steps.reconcile.plan import Action, Change, Plan
from steps.reconcile.report import size
from steps.release import Release
from steps.transfer.bucket import object_key
from steps.transfer.inventory import Inventory
from steps.transfer.manifest import ManifestFile, ModelManifest
from steps.transfer.shards import Shard
from steps.transfer.sink import Move

# A model of thousands of small files has at most so many lines of each kind in the report.
MOST_LINES = 100

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Copy:
    """One file that another revision holds in the same bucket."""

    file: ModelFile
    source: StoredObject  # its `crc64` is the one of the manifest of that revision
    replace: bool = False  # another file has this path, and is removed first


@dataclass(frozen=True)
class Moves:
    moves: tuple[Move, ...]


@dataclass(frozen=True)
class Copies:
    copies: tuple[Copy, ...]


@dataclass(frozen=True)
class Abort:
    upload: Upload


@dataclass(frozen=True)
class Forget:
    state_key: str


@dataclass(frozen=True)
class Publish:
    files: tuple[ManifestFile, ...]


@dataclass(frozen=True)
class Decision:
    """Missing files of a listing in the bucket, and unfinished uploads."""

    moves: tuple[Move, ...] = ()
    copies: tuple[Copy, ...] = ()
    aborts: tuple[Upload, ...] = ()
    forgets: tuple[str, ...] = ()

    @property
    def bytes_to_move(self) -> int:
        return sum(move.file.size for move in self.moves)

    @property
    def is_empty(self) -> bool:
        return not (self.moves or self.copies or self.aborts or self.forgets)


def decide(listing: Listing, inventory: Inventory) -> Decision:
    """A proved file stays, a file of another revision is copied, every other file moves."""
    copies, moves = [], []
    for file in listing.files:
        if file.path in inventory.stored:
            continue
        replace = file.path in inventory.unverified
        source = inventory.elsewhere.get(file.sha256)
        if source is not None and source.size == file.size:
            copies.append(Copy(file, source, replace=replace))
        else:
            moves.append(Move(file, resume=file.path in inventory.unfinished, replace=replace))
    copied = {copy.file.path: copy for copy in copies}
    superseded = [(copied[path], item) for path, item in sorted(inventory.unfinished.items()) if path in copied]
    return Decision(
        moves=tuple(moves),
        copies=tuple(copies),
        aborts=inventory.orphans + tuple(item.upload for _, item in superseded),
        # The state marks an object as unverified, so it is removed after the replaced object.
        forgets=inventory.stale + tuple(item.state_key for copy, item in superseded if not copy.replace),
    )


def pinned(release: Release, listing: Listing, origin: str) -> Plan:
    """A failure unless the listing is the pinned one of the run."""
    if listing.digest == release.model_digest:
        return Plan()
    fault = (
        f"{origin} now lists {listing.digest}, but this run is pinned to {release.model_digest}, which is not whole in "
        "the bucket; two revisions are never mixed. Next: submit a new run, it pins the current revision"
    )
    return Plan(failed=(fault,))


def stored(release: Release, manifest: ModelManifest) -> Plan:
    """No changes: the manifest covers every file."""
    count, total = _files(len(manifest.files)), size(manifest.total_bytes)
    return Plan(ok=(f"{location(release)}: {count}, {total}, verified {manifest.created}",))


def not_stored(release: Release) -> Plan:
    """The failure of a step that needs the files in the bucket, without a manifest."""
    transfer = release.service.transfer
    writer = "upload-model" if transfer.mode == "staged" else "publish-model" if transfer.shards > 1 else "mirror-model"
    fault = (
        f"{location(release)} has no manifest of {release.model_digest}, so this revision does not exist for any "
        f"reader; {writer} writes it last. Next: submit a new run"
    )
    return Plan(failed=(fault,))


def into_bucket(release: Release, listing: Listing, inventory: Inventory) -> Plan:
    """The changes that bring the revision into the bucket; the manifest after all others."""
    if inventory.unexpected:
        return Plan(failed=tuple(_unexpected(release, key) for key in inventory.unexpected[:MOST_LINES]))
    decision = decide(listing, inventory)
    if decision.is_empty:
        return _publish(release, listing, inventory)
    return _work(release, listing, decision, inventory)


def of_shard(release: Release, shard: Shard, share: Listing, inventory: Inventory) -> Plan:
    """The changes that bring the files of one shard into the bucket, without a manifest: other shards may be at work.

    `inventory` is the one of `share`.
    """
    if inventory.unexpected:
        return Plan(failed=tuple(_unexpected(release, key) for key in inventory.unexpected[:MOST_LINES]))
    decision = decide(share, inventory)
    if not decision.is_empty:
        return _work(release, share, decision, inventory)
    total = f"{_files(len(share.files))}, {size(share.size)}"
    return Plan(ok=(f"{location(release)}: {shard} is there and verified: {total}; the manifest comes last",))


def _work(release: Release, listing: Listing, decision: Decision, inventory: Inventory) -> Plan:
    leftovers = [_abort(release, upload) for upload in decision.aborts]
    leftovers += [_forget(release, key) for key in decision.forgets]
    return Plan(
        changes=(*leftovers, *_copies(release, decision), *_moves(release, decision, inventory)),
        ok=(summary(listing, decision, inventory),),
    )


def summary(listing: Listing, decision: Decision, inventory: Inventory) -> str:
    """`2 of 17 files changed, 7.9 GB of 65.5 GB to move; 15 are copied inside the bucket`."""
    word = "changed" if decision.copies else "missing"
    text = (
        f"{len(decision.moves)} of {_files(len(listing.files))} {word}, "
        f"{size(decision.bytes_to_move)} of {size(listing.size)} to move"
    )
    if decision.copies:
        text += f"; {len(decision.copies)} copied inside the bucket"
    there = sum(inventory.unfinished[move.file.path].bytes_stored for move in decision.moves if move.resume)
    return text + (f"; {size(there)} of that arrived in an earlier run" if there else "")


def location(release: Release, key: str = "") -> str:
    return f"oss://{release.service.store.bucket}/{key or release.prefix}"


def grouped(
    items: Sequence[_Item], name: Callable[[_Item], str], bytes_of: Callable[[_Item], int]
) -> list[tuple[tuple[_Item, ...], str, str]]:
    """Items in at most MOST_LINES groups, each with a name and, if it has more than one item, its size."""
    step = -(-len(items) // MOST_LINES)
    groups = []
    for start in range(0, len(items), max(1, step)):
        group = tuple(items[start : start + step])
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        total = f", {size(sum(bytes_of(item) for item in group))}" if len(group) > 1 else ""
        groups.append((group, name(group[0]) + more, total))
    return groups


def _moves(release: Release, decision: Decision, inventory: Inventory) -> list[Change]:
    changes = []
    for why, moves in _by_reason(decision.moves, lambda move: _why_moved(move, inventory)):
        action: Action = "update" if moves[0].replace else "create"
        for group, name, total in grouped(
            moves, lambda move: location(release, object_key(release, move.file.path)), lambda move: move.file.size
        ):
            changes.append(Change(action, name, f"{why}{total or f', {size(group[0].file.size)}'}", Moves(group)))
    return changes


def _why_moved(move: Move, inventory: Inventory) -> str:
    if move.resume:
        arrived = inventory.unfinished[move.file.path].bytes_stored
        return f"{size(arrived)} arrived in an earlier run" if arrived else "begun in an earlier run"
    if move.replace:
        return f"differs: {inventory.unverified[move.file.path]}"
    return "absent at OSS"


def _copies(release: Release, decision: Decision) -> list[Change]:
    changes = []
    for why, copies in _by_reason(decision.copies, lambda copy: f"same bytes as {_revision(release, copy)}"):
        for group, name, total in grouped(
            copies, lambda copy: location(release, object_key(release, copy.file.path)), lambda copy: copy.file.size
        ):
            changes.append(Change("create", name, why + total, Copies(group)))
    return changes


def _revision(release: Release, copy: Copy) -> str:
    model = release.prefix.rpartition("/")[0]
    return "revision " + copy.source.key.removeprefix(f"{model}/").partition("/")[0]


def _by_reason(items: Sequence[_Item], reason: Callable[[_Item], str]) -> list[tuple[str, list[_Item]]]:
    found: dict[str, list[_Item]] = {}
    for item in items:
        found.setdefault(reason(item), []).append(item)
    return list(found.items())


def _abort(release: Release, upload: Upload) -> Change:
    target = f"{location(release, upload.key)}?uploadId={upload.id}"
    return Change("delete", target, "a multipart upload that cannot be resumed", Abort(upload))


def _forget(release: Release, key: str) -> Change:
    return Change("delete", location(release, key), "the state of an upload that has ended", Forget(key))


def _publish(release: Release, listing: Listing, inventory: Inventory) -> Plan:
    files = []
    for file in listing.files:
        found = inventory.stored[file.path]
        if found.crc64 is None:
            return Plan(failed=(f"{location(release, found.key)} has no CRC-64, which OSS computes for every object",))
        files.append(ManifestFile(file.path, file.size, file.sha256, found.crc64))
    reason = f"all {_files(len(files))} are there and verified"
    return Plan(
        changes=(Change("create", location(release, release.manifest_key), reason, Publish(tuple(files))),),
        ok=(f"{location(release)}: {_files(len(files))}, {size(listing.size)}",),
    )


def _unexpected(release: Release, key: str) -> str:
    return (
        f"{location(release, key)} is no file of {release.model_digest}, but readers of the prefix would see it. "
        "Next: find its writer, delete it and run again"
    )


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
