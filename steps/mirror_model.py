"""mirror-model: from the hub to the bucket in one stream, without a disk; verified, resumable, manifest last.

Several processes may share one transfer: each gets a shard, and moves the files of that alone. Behind them the
same step, without a shard, finds every file there and writes the manifest; after a lost shard, it would move the rest.
"""

from dataclasses import dataclass, field

from steps.model import Listing
from steps.ports.modelscope import ModelSource
from steps.ports.oss import ModelStore
from steps.reconcile.clock import Clock, SystemClock
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.release import Release
from steps.transfer import delivery, inventory, plans
from steps.transfer.delivery import FROM_HUB, Delivery, InBucket, TransferStats
from steps.transfer.inventory import Inventory
from steps.transfer.manifest import ModelManifest
from steps.transfer.shards import Shard

Outputs = InBucket


@dataclass(frozen=True)
class Facts:
    manifest: ModelManifest | None  # present: the revision is whole, and no more was read
    listing: Listing = field(default_factory=lambda: Listing(()))  # of the hub
    inventory: Inventory = field(default_factory=Inventory)  # of all files, or of those of the shard


def plan(release: Release, facts: Facts, shard: Shard | None = None) -> Plan:
    """Move what no revision in the bucket has, copy what another one has, then write the manifest, unless the files
    are only those of a shard.
    """
    if facts.manifest:
        return plans.stored(release, facts.manifest)
    mixed = plans.pinned(release, facts.listing, f"the hub ({release.service.model.revision})")
    if mixed.failed:
        return mixed
    if shard:
        return plans.of_shard(release, shard, shard.share(facts.listing), facts.inventory)
    return plans.into_bucket(release, facts.listing, facts.inventory)


@dataclass(frozen=True)
class MirrorModel:
    release: Release
    source: ModelSource
    store: ModelStore
    clock: Clock = field(default_factory=SystemClock)
    stats: TransferStats = field(default_factory=TransferStats)
    shard: Shard | None = None  # None: all files, and the manifest

    @property
    def deadline(self) -> float:
        return delivery.deadline(self.release.service)

    def observe(self, past: Past[Facts]) -> Facts:
        before = past.facts.listing if past.facts else None
        found, listing = delivery.stored_or_listed(self.store, self.source, self.release, before)
        if found or listing.digest != self.release.model_digest:
            return Facts(found, listing)
        share = self.shard.share(listing) if self.shard else None
        return Facts(None, listing, inventory.observe(self.store, self.release, listing, share))

    def plan(self, facts: Facts) -> Plan:
        return plan(self.release, facts, self.shard)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        Delivery(self.release, self.store, report, self.clock, self.stats).do(changes, self.source, FROM_HUB)

    def outputs(self, facts: Facts) -> Outputs:
        listing = facts.manifest.listing if facts.manifest else facts.listing
        if self.shard:
            listing = self.shard.share(listing)
        return Outputs.of(self.release, listing, self.stats)
