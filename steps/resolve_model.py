"""Pin the model: list its files at the hub, and let one digest stand for all of them.

Every name of the release derives from the document and this digest. The step also reads the release record: its
counter, by which later tasks see whether another run promoted a release in the meantime, and the overrides in force
(`steps.document.overrides`), under which all tasks of the run read the document. It changes nothing.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from steps.document.overrides import OverridesText, Resolved, Wanted, as_text
from steps.document.schema import ModelService
from steps.errors import Blocked
from steps.model import Listing, ModelDigest
from steps.objects import record
from steps.objects.record import Record
from steps.ports.kubernetes import Cluster
from steps.ports.modelscope import ModelSource
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report, size
from steps.rollout import inherited_overrides

CONFIG: Final = "config.json"

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)\.(safetensors|bin)")


@dataclass(frozen=True)
class Facts:
    listing: Listing
    record: Record = field(default_factory=Record)


@dataclass(frozen=True)
class Outputs:
    model_digest: ModelDigest
    model_bytes: int
    weight_bytes: int  # loaded into GPU memory
    file_count: int
    record_counter: int  # of the release record; 0 if there is none
    overrides: OverridesText  # in force for this run: inherited, and its own
    difference: str  # what of it is not as in the document, in words

    @property
    def verdict(self) -> str:
        return self.difference


@dataclass(frozen=True)
class ResolveModel:
    wanted: Wanted
    source: Callable[[ModelService], ModelSource]  # of the model that a service names
    cluster: Cluster

    @property
    def deadline(self) -> float:
        """The step does not wait."""
        return 0.0

    def observe(self, _past: Past[Facts]) -> Facts:
        found = record.read(self.cluster.get(record.record_ref(self.wanted.resolve().service)))
        service = inherited_overrides.resolve(self.wanted, found).service
        return Facts(self.source(service).listing(), found)  # the record first: a later promotion is newer

    def plan(self, facts: Facts) -> Plan:
        return plan(self._resolved(facts).service, facts) + Plan(ok=self._difference(facts))

    def apply(self, changes: tuple[Change, ...], _report: Report) -> None:
        raise Blocked(f"resolve-model changes nothing, and was asked for {len(changes)} changes")

    def outputs(self, facts: Facts) -> Outputs:
        listing = facts.listing
        return Outputs(
            model_digest=listing.digest,
            model_bytes=listing.size,
            weight_bytes=listing.weight_bytes,
            file_count=len(listing.files),
            record_counter=facts.record.counter,
            overrides=as_text(self._resolved(facts).overrides),
            difference="; ".join(self._difference(facts)),
        )

    def _resolved(self, facts: Facts) -> Resolved:
        return inherited_overrides.resolve(self.wanted, facts.record)

    def _difference(self, facts: Facts) -> tuple[str, ...]:
        return inherited_overrides.explained(self.wanted, facts.record)


def plan(service: ModelService, facts: Facts) -> Plan:
    """The files, or the reason why they cannot be served."""
    listing, model = facts.listing, f"{service.model.id}@{service.model.revision}"
    if not listing.files:
        return Plan(failed=(f"{model} has no files at the hub. Next: check model.id and model.revision",))
    faults = (*_wrong_digest(service, listing, model), *_incomplete(listing, model))
    if faults:
        return Plan(failed=faults)
    files = "1 file" if len(listing.files) == 1 else f"{len(listing.files)} files"
    broken = record.mending(service, facts.record)
    kept = (f"{model}: {files}, {size(listing.size)}", f"model digest {listing.digest}", broken)
    return Plan(ok=tuple(filter(None, kept)))


def _wrong_digest(service: ModelService, listing: Listing, model: str) -> tuple[str, ...]:
    expected = service.model.digest
    if expected in (None, listing.digest):
        return ()
    fault = (
        f"{model} has the digest {listing.digest}, expected {expected}: it was changed at the hub. "
        "Next: look at what changed there; to accept it, set model.digest to the digest found"
    )
    return (fault,)


def _incomplete(listing: Listing, model: str) -> tuple[str, ...]:
    paths = {file.path for file in listing.files}
    faults = []
    if not listing.weight_bytes:
        faults.append(
            f"{model} has no weights: no file ends in .safetensors, .bin or .pt. "
            "Next: check that model.id names a model with its weights, not an adapter or a dataset"
        )
    if CONFIG not in paths:
        faults.append(
            f"{model} has no {CONFIG}, from which the engine learns what it loads. "
            "Next: check that model.id names a model in the format of transformers"
        )
    missing = _missing_shards(paths)
    if missing:
        faults.append(
            f"{model} lacks {len(missing)} of its numbered weight files, the first is {missing[0]}. "
            "Next: wait until its owner has uploaded all of them, or choose another revision"
        )
    return tuple(faults)


def _missing_shards(paths: set[str]) -> list[str]:
    """Files of a series such as model-00001-of-00017.safetensors that are not there."""
    series: dict[tuple[str, int, int, str], set[int]] = defaultdict(set)
    for path in paths:
        if match := _SHARD.fullmatch(path):
            width = len(match["number"])
            series[match["stem"], int(match["count"]), width, match[4]].add(int(match["number"]))
    return sorted(
        f"{stem}-{number:0{width}}-of-{count:0{width}}.{suffix}"
        for (stem, count, width, suffix), found in series.items()
        for number in range(1, count + 1)
        if number not in found
    )
