"""upload-model: from the scratch volume to the bucket; verified again in flight, resumable, manifest last."""

from dataclasses import dataclass, field
from pathlib import Path

from steps.model import Listing
from steps.ports.oss import ModelStore
from steps.reconcile.clock import Clock, SystemClock
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.release import Release
from steps.transfer import inventory, manifest, plans, staging
from steps.transfer.delivery import Delivery, InBucket, TransferStats
from steps.transfer.directory import DirectorySource
from steps.transfer.inventory import Inventory
from steps.transfer.manifest import ModelManifest
from steps.transfer.scratch import Scratch
from steps.transfer.sink import WrongContent
from steps.transfer.staging import NEEDS_NEW_RUN, RemoveFolder, Staged, StagedStep

Outputs = InBucket


@dataclass(frozen=True)
class Facts:
    manifest: ModelManifest | None  # present: the revision is whole in the bucket
    inventory: Inventory = field(default_factory=Inventory)
    staged: Staged = field(default_factory=Staged)


def plan(release: Release, scratch: Scratch, facts: Facts) -> Plan:
    """Upload the missing files, copy those of another revision, write the manifest, then empty the folder."""
    if facts.manifest:
        return plans.stored(release, facts.manifest) + _emptied(scratch, facts.staged)
    listing = facts.staged.listing
    if listing is None or listing.digest != release.model_digest:
        found = "no listing" if listing is None else f"the listing of {listing.digest}"
        fault = f"{scratch.root} holds {found}, expected {release.model_digest}. Next: {NEEDS_NEW_RUN}"
        return Plan(failed=(fault,))
    absent = staging.missing(scratch, plans.decide(listing, facts.inventory).moves, facts.staged)
    return absent if absent.failed else plans.into_bucket(release, listing, facts.inventory)


def _emptied(scratch: Scratch, staged: Staged) -> Plan:
    # Safe for a retry of any step: with the manifest there, download-model and upload-model have nothing to do.
    if not staged.exists:
        return Plan()
    reason = "the bucket holds every file, verified"
    return Plan(changes=(Change("delete", str(scratch.root), reason, RemoveFolder(scratch.root)),))


@dataclass(frozen=True)
class UploadModel(StagedStep):
    release: Release
    store: ModelStore
    scratch: Path
    clock: Clock = field(default_factory=SystemClock)
    stats: TransferStats = field(default_factory=TransferStats)

    def observe(self, _past: Past[Facts]) -> Facts:
        found = manifest.read(self.store, self.release)
        if found:
            return Facts(found, staged=staging.observe(self.folder, None))
        listing = self.folder.listing()
        if listing is None or listing.digest != self.release.model_digest:
            return Facts(None, staged=staging.observe(self.folder, None))
        stored = inventory.observe(self.store, self.release, listing)
        return Facts(None, stored, staging.observe(self.folder, listing))

    def plan(self, facts: Facts) -> Plan:
        return plan(self.release, self.folder, facts)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        context = Delivery(self.release, self.store, report, self.clock, self.stats)
        try:
            context.do(changes, DirectorySource(self.folder), NEEDS_NEW_RUN)
        except WrongContent as error:
            # Otherwise the next download would believe the marker of the damaged file, and no step would repair it.
            self.folder.remove_file(error.file)
            raise
        for change in changes:
            if isinstance(change.payload, RemoveFolder):
                self.folder.remove()
                report.changed(change)

    def outputs(self, facts: Facts) -> Outputs:
        listing = facts.manifest.listing if facts.manifest else facts.staged.listing
        return Outputs.of(self.release, listing or Listing(()), self.stats)
