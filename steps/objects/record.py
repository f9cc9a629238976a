"""The release record: a ConfigMap that says which release takes the traffic, and how it looked when it was proved.

It is what a failed rollout is put back from, so it holds whole manifests, never a recipe to render them again.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from steps.engine.errors import Blocked
from steps.objects.kinds import CONFIG_MAP, owned_metadata
from steps.ports import Manifest, Ref
from steps.release import Release, record_name
from steps.service import ModelService

PROMOTED_AT = "promotedAt"
NOW = "(the time of the promotion)"  # stands in a plan for what only the doing knows


@dataclass(frozen=True)
class Entry:
    """One release that was proved."""

    release: str
    group: str
    model_digest: str
    image: str
    volume: str
    objects: tuple[Manifest, ...]  # the group and its Services, as they were applied

    @classmethod
    def of(cls, release: Release, objects: list[Manifest]) -> "Entry":
        return cls(
            release=release.id,
            group=release.group,
            model_digest=release.model_digest,
            image=release.service.serving.image,
            volume=release.volume_name,
            objects=tuple(json.loads(json.dumps(objects))),
        )


@dataclass(frozen=True)
class Record:
    current: Entry | None = None
    previous: Entry | None = None
    promoted_at: str = ""

    @property
    def volumes(self) -> frozenset[str]:
        """Volumes that a promotion or a way back still needs."""
        return frozenset(entry.volume for entry in (self.current, self.previous) if entry)


def record_ref(service: ModelService) -> Ref:
    return Ref(CONFIG_MAP, record_name(service), service.namespace)


def promoted(record: Record, entry: Entry) -> Record:
    """The record after a promotion: the same record if nothing about the current release changed.

    A release that was scaled stays current, so what was there before it stays `previous`.
    """
    if record.current == entry:
        return record
    was_other = record.current is not None and record.current.release != entry.release
    return replace(record, current=entry, previous=record.current if was_other else record.previous, promoted_at=NOW)


def read(live: Manifest | None) -> Record:
    """The record in a ConfigMap; empty if there is none yet. Raises Blocked for one that cannot be read."""
    if live is None:
        return Record()
    data = live.get("data") or {}
    try:
        return Record(
            current=_entry(data.get("current")),
            previous=_entry(data.get("previous")),
            promoted_at=data.get(PROMOTED_AT, ""),
        )
    except (ValueError, TypeError, LookupError) as error:
        ref = Ref.of(live)
        raise Blocked(
            f"the release record {ref} cannot be read: {error}",
            f"restore it, or delete it (kubectl delete configmap {ref.name} -n {ref.namespace}): the next run then "
            "writes it anew, but a failed run before that has nothing to be put back from",
        ) from error


def record(service: ModelService, content: Record) -> Manifest:
    metadata = owned_metadata(service, record_name(service), service.namespace)
    entries = {"current": content.current, "previous": content.previous}
    data = {name: _text(entry) for name, entry in entries.items() if entry}
    if content.promoted_at:
        data[PROMOTED_AT] = content.promoted_at
    return {"apiVersion": CONFIG_MAP.api_version, "kind": CONFIG_MAP.kind, "metadata": metadata, "data": data}


def stamped(manifest: Manifest, moment: str) -> Manifest:
    """The record with the time of its promotion in it, if it is one that still has to be stamped."""
    data = manifest.get("data") or {}
    return {**manifest, "data": {**data, PROMOTED_AT: moment}} if data.get(PROMOTED_AT) == NOW else manifest


def _text(entry: Entry) -> str:
    return json.dumps(asdict(entry), sort_keys=True, indent=1)


def _entry(text: str | None) -> Entry | None:
    if not text:
        return None
    found: dict[str, Any] = json.loads(text)
    return Entry(**{**found, "objects": tuple(found["objects"])})
