"""Contents of the scratch folder, and the changes of a download: pure decisions."""

from dataclasses import dataclass
from pathlib import Path

from steps.model import Listing
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import size
from steps.release import Release
from steps.transfer import delivery
from steps.transfer.plans import Moves, grouped
from steps.transfer.scratch import Scratch
from steps.transfer.sink import Move

NEEDS_NEW_RUN = "submit a new run: download-model fetches only what is missing"


@dataclass(frozen=True)
class Staged:
    """The scratch folder of a revision."""

    listing: Listing | None = None
    verified: frozenset[str] = frozenset()  # paths that are verified, and unchanged since
    begun: frozenset[str] = frozenset()  # paths with a resume point
    allocated: int = 0  # bytes of files in transfer
    free: int = 0  # bytes
    exists: bool = False


class StagedStep:
    """The common part of download-model and upload-model."""

    release: Release
    scratch: Path  # the volume

    @property
    def deadline(self) -> float:
        return delivery.deadline(self.release.service)

    @property
    def folder(self) -> Scratch:
        return Scratch.of(self.scratch, self.release.model_digest)


@dataclass(frozen=True)
class WriteListing:
    listing: Listing


@dataclass(frozen=True)
class RemoveFolder:
    folder: Path


def observe(scratch: Scratch, listing: Listing | None) -> Staged:
    """Read the state of every file of `listing`, but not its bytes."""
    files = listing.files if listing else ()
    return Staged(
        listing=scratch.listing(),
        verified=frozenset(file.path for file in files if scratch.is_verified(file)),
        begun=frozenset(file.path for file in files if scratch.resume_record(file).exists()),
        allocated=sum(scratch.allocated(file) for file in files),
        free=scratch.free(),
        exists=scratch.exists(),
    )


def into_scratch(scratch: Scratch, listing: Listing, moves: tuple[Move, ...], staged: Staged) -> Plan:
    """Fetch the missing files of the bucket, `moves`, unless the folder holds them."""
    wanted = [
        Move(move.file, resume=move.file.path in staged.begun)
        for move in moves
        if move.file.path not in staged.verified
    ]
    needed = sum(move.file.size for move in wanted) - staged.allocated
    if needed > staged.free:
        fault = (
            f"{scratch.root} has {size(staged.free)} free, but {size(needed)} more are needed. Next: raise "
            "transfer.scratch.size, or use transfer.mode: streamed, which needs no disk; then run again"
        )
        return Plan(failed=(fault,))
    changes = []
    if staged.listing != listing:
        reason = f"{len(listing.files)} files, {size(listing.size)}"
        changes.append(Change("create", str(scratch.listing_path), reason, WriteListing(listing)))
    for resume, why in ((True, "began in an earlier run"), (False, "absent on the scratch volume")):
        group = [move for move in wanted if move.resume is resume]
        for some, name, total in grouped(group, lambda move: str(scratch.path(move.file)), lambda move: move.file.size):
            changes.append(Change("create", name, f"{why}{total or f', {size(some[0].file.size)}'}", Moves(some)))
    return Plan(changes=tuple(changes), ok=(_summary(scratch, listing, moves, wanted),))


def missing(scratch: Scratch, moves: tuple[Move, ...], staged: Staged) -> Plan:
    """Failures for files that are neither in the bucket nor in the folder."""
    absent = [move.file.path for move in moves if move.file.path not in staged.verified]
    if not absent:
        return Plan()
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    fault = (
        f"{scratch.root} does not hold {absent[0]}{more}, verified, and neither does the bucket. Next: {NEEDS_NEW_RUN}"
    )
    return Plan(failed=(fault,))


def _summary(scratch: Scratch, listing: Listing, needed: tuple[Move, ...], wanted: list[Move]) -> str:
    in_bucket = len(listing.files) - len(needed)
    here = len(needed) - len(wanted)
    total = sum(move.file.size for move in wanted)
    return (
        f"{len(wanted)} of {len(listing.files)} files, {size(total)} of {size(listing.size)} to fetch; "
        f"{here} are in {scratch.root}, {in_bucket} are in the bucket"
    )
