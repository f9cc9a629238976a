"""download-model: from the hub to the scratch volume; verified, resumable, and only the files that the bucket lacks."""

from dataclasses import dataclass, field
from pathlib import Path

from steps.model import Listing
from steps.ports.modelscope import ModelSource
from steps.ports.oss import ModelStore
from steps.reconcile.clock import Clock, SystemClock
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.release import Release
from steps.transfer import delivery, inventory, plans, staging
from steps.transfer.delivery import FROM_HUB, Delivery, TransferStats, move
from steps.transfer.directory import DirectorySink
from steps.transfer.inventory import Inventory
from steps.transfer.manifest import ModelManifest
from steps.transfer.scratch import Scratch
from steps.transfer.staging import Staged, StagedStep, WriteListing


@dataclass(frozen=True)
class Facts:
    manifest: ModelManifest | None  # present: the revision is whole in the bucket, and no more was read
    listing: Listing = field(default_factory=lambda: Listing(()))  # of the hub
    inventory: Inventory = field(default_factory=Inventory)
    staged: Staged = field(default_factory=Staged)


@dataclass(frozen=True)
class Outputs:
    folder: str  # on the scratch volume
    files_total: int
    bytes_total: int
    files_moved: int
    bytes_moved: int


def plan(release: Release, scratch: Scratch, facts: Facts) -> Plan:
    """Fetch each file that neither the bucket nor the scratch folder holds."""
    if facts.manifest:
        return plans.stored(release, facts.manifest)
    mixed = plans.pinned(release, facts.listing, f"the hub ({release.service.model.revision})")
    if mixed.failed:
        return mixed
    needed = plans.decide(facts.listing, facts.inventory).moves
    return staging.into_scratch(scratch, facts.listing, needed, facts.staged)


@dataclass(frozen=True)
class DownloadModel(StagedStep):
    release: Release
    source: ModelSource
    store: ModelStore
    scratch: Path
    clock: Clock = field(default_factory=SystemClock)
    stats: TransferStats = field(default_factory=TransferStats)

    def observe(self, past: Past[Facts]) -> Facts:
        before = past.facts.listing if past.facts else None
        found, listing = delivery.stored_or_listed(self.store, self.source, self.release, before)
        if found or listing.digest != self.release.model_digest:
            return Facts(found, listing)
        stored = inventory.observe(self.store, self.release, listing)
        return Facts(None, listing, stored, staging.observe(self.folder, listing))

    def plan(self, facts: Facts) -> Plan:
        return plan(self.release, self.folder, facts)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        for change in changes:
            if isinstance(change.payload, WriteListing):
                self.folder.write_listing(change.payload.listing)
                report.changed(change)
        context = Delivery(self.release, self.store, report, self.clock, self.stats)
        move(changes, self.source, DirectorySink(self.folder), context, FROM_HUB)

    def outputs(self, facts: Facts) -> Outputs:
        listing = facts.manifest.listing if facts.manifest else facts.listing
        return Outputs(
            folder=str(self.folder.root),
            files_total=len(listing.files),
            bytes_total=listing.size,
            files_moved=self.stats.files_moved,
            bytes_moved=self.stats.bytes_moved,
        )
