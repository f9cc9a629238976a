"""Applies the changes of the plans, and counts them for the outputs."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from steps.document.schema import ModelService
from steps.errors import Blocked
from steps.model import Listing, ModelFile
from steps.ports.modelscope import ModelSource
from steps.ports.oss import ModelStore
from steps.reconcile.clock import Clock
from steps.reconcile.plan import Change
from steps.reconcile.report import Report
from steps.release import Release
from steps.transfer import manifest
from steps.transfer.bucket import BucketSink, metadata, object_key, state_key
from steps.transfer.layout import part_size
from steps.transfer.mover import Limits, Mover
from steps.transfer.plans import Abort, Copies, Copy, Forget, Moves, Publish, location
from steps.transfer.sink import Sink

FROM_HUB = (
    "the hub sent other bytes than it lists: if the revision has moved since this run began, submit a new run, which "
    "pins the current one; otherwise report it to the owner of the model"
)


@dataclass
class TransferStats:
    """The work of this process, for the outputs alone: no plan depends on it."""

    files_moved: int = 0
    bytes_moved: int = 0
    files_copied: int = 0


@dataclass(frozen=True)
class InBucket:
    """Outputs of a step that brings a revision, or the share of a shard, into the bucket."""

    prefix: str  # oss://bucket/prefix
    files_total: int
    bytes_total: int
    files_moved: int
    bytes_moved: int
    files_copied: int  # inside the bucket, from another revision

    @classmethod
    def of(cls, release: Release, listing: Listing, stats: TransferStats) -> "InBucket":
        return cls(
            prefix=location(release),
            files_total=len(listing.files),
            bytes_total=listing.size,
            files_moved=stats.files_moved,
            bytes_moved=stats.bytes_moved,
            files_copied=stats.files_copied,
        )


def stored_or_listed(
    store: ModelStore, source: ModelSource, release: Release, before: Listing | None
) -> tuple[manifest.ModelManifest | None, Listing]:
    """The manifest of the revision in the bucket; without one, the listing of the hub.

    `before` replaces the hub if it is the pinned listing: a later revision has no effect on this process.
    """
    found = manifest.read(store, release)
    if found or (before and before.digest == release.model_digest):
        return found, before or Listing(())
    return None, source.listing()


def deadline(service: ModelService) -> float:
    """Seconds for one step of a transfer."""
    return service.transfer.deadline_minutes * 60.0


def limits(service: ModelService) -> Limits:
    return Limits(part_size(service), service.transfer.workers, deadline(service))


@dataclass(frozen=True)
class Delivery:
    """Applies changes of a bucket, in the order for a later resume: leftovers, copies, moves, manifest."""

    release: Release
    store: ModelStore
    report: Report
    clock: Clock
    stats: TransferStats

    def do(self, changes: Sequence[Change], source: ModelSource, advice: str) -> None:
        for change in changes:
            self._clean(change)
        self._copy(changes)
        move(changes, source, BucketSink(self.store, self.release), self, advice)
        for change in changes:
            if isinstance(change.payload, Publish):
                content = manifest.compose(self.release, change.payload.files, self.clock.time())
                manifest.publish(self.store, self.release, content)
                self.report.changed(change)

    def _clean(self, change: Change) -> None:
        match change.payload:
            case Abort(upload):
                self.store.abort_upload(upload)
            case Forget(key):
                self.store.delete([key])
            case _:
                return
        self.report.changed(change)

    def _copy(self, changes: Sequence[Change]) -> None:
        todo = [(change, change.payload.copies) for change in changes if isinstance(change.payload, Copies)]
        copies = [copy for _, group in todo for copy in group]
        if not copies:
            return
        progress = ChangeProgress(self.report, [(change, [copy.file for copy in group]) for change, group in todo])
        with ThreadPoolExecutor(min(self.release.service.transfer.workers, len(copies))) as pool:
            for copy in pool.map(self._copy_one, copies):
                self.stats.files_copied += 1
                progress.done(copy.file)

    def _copy_one(self, copy: Copy) -> Copy:
        key = object_key(self.release, copy.file.path)
        if copy.replace:
            self.store.delete([key])
            self.store.delete([state_key(self.release, copy.file.path)])
        found = self.store.copy(copy.source, key, metadata=metadata(copy.file, copy.source.crc64))
        if (found.size, found.crc64) != (copy.source.size, copy.source.crc64):
            self.store.delete([key])
            raise Blocked(
                f"{location(self.release, copy.source.key)} differs from its manifest: its copy has {found.size} "
                f"bytes and CRC-64 {found.crc64}, expected {copy.source.size} bytes and CRC-64 {copy.source.crc64}",
                "that stored revision is damaged: delete its manifest, so that no file is copied from it; run again",
            )
        return copy


def move(changes: Sequence[Change], source: ModelSource, sink: Sink, context: Delivery, advice: str) -> None:
    """Move the files of all changes with moves; each change is reported after its last file is whole."""
    todo = [(change, change.payload.moves) for change in changes if isinstance(change.payload, Moves)]
    if not todo:
        return
    progress = ChangeProgress(context.report, [(change, [item.file for item in group]) for change, group in todo])
    mover = Mover(source, sink, limits(context.release.service), context.report, context.clock)
    moved = mover.run([item for _, group in todo for item in group], progress.done, advice)
    context.stats.files_moved += moved.files
    context.stats.bytes_moved += moved.bytes


class ChangeProgress:
    """Reports a change after the last of its files; safe to call from several threads."""

    def __init__(self, report: Report, groups: Sequence[tuple[Change, Sequence[ModelFile]]]) -> None:
        self._report = report
        self._changes = [change for change, _ in groups]
        self._left = [len(files) for _, files in groups]
        self._group = {file.path: index for index, (_, files) in enumerate(groups) for file in files}
        self._lock = threading.Lock()

    def done(self, file: ModelFile) -> None:
        index = self._group[file.path]
        with self._lock:
            self._left[index] -= 1
            last = self._left[index] == 0
        if last:
            self._report.changed(self._changes[index])
