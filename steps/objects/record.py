"""The release record: a ConfigMap with the promoted release and its objects, as they were proved.

A rollback restores from it, so it holds whole manifests instead of the inputs to render them again. Its counter shows a
run that another run has promoted a release in the meantime (`steps.rollout.intent`).

A reader ignores unknown fields and defaults absent ones, for every value of `schema`, so it reads the record of an
older or newer Slipway. tests/recorded/records holds one of each schema.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from steps.document.overrides import OVERRIDES, InForce
from steps.document.schema import ModelService
from steps.errors import TransientError
from steps.kinds import CONFIG_MAP, ROLE_BASED_GROUP, Manifest, Ref
from steps.objects.metadata import owned_metadata
from steps.release import Release, record_name

SCHEMA = "1"
PROMOTED_AT = "promotedAt"
NOW = "(the time of the promotion)"  # placeholder in a plan


@dataclass(frozen=True)
class Entry:
    """One proved release."""

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
    counter: int = 0  # raised by one with each promotion that changes `current`
    run: str = ""  # the run that raised it, by its name as holder of the writer Lease
    overrides: tuple[InForce, ...] = ()  # of the promotion of `current`
    document: str = ""  # fingerprint of the document that they override; empty without overrides
    ignored: str = ""  # unreadable overrides, as part of a sentence
    broken: str = ""  # unreadable data of the ConfigMap, as part of a sentence; the other fields hold the rest
    source: Manifest | None = field(default=None, compare=False, repr=False)  # the ConfigMap that it was read from

    @property
    def volumes(self) -> frozenset[str]:
        """Volumes that a promotion or a rollback still needs."""
        return frozenset(entry.volume for entry in (self.current, self.previous) if entry)


def record_ref(service: ModelService) -> Ref:
    return Ref(CONFIG_MAP, record_name(service), service.namespace)


def promoted(
    record: Record, entry: Entry, run: str = "", overrides: tuple[InForce, ...] = (), document: str = ""
) -> Record:
    """The record after a promotion by `run`: the same record if neither the current release nor the overrides of this
    document changed.

    A release that was scaled stays current, so `previous` stays as well. A broken record is replaced.
    """
    fingerprint = document if overrides else ""
    same = (record.current, record.overrides, record.document) == (entry, overrides, fingerprint)
    if same and not record.broken:
        return record
    was_other = record.current is not None and record.current.release != entry.release
    previous = record.current if was_other else record.previous
    return Record(entry, previous, NOW, record.counter + 1, run, overrides, fingerprint)


def read(live: Manifest | None) -> Record:
    """The record in a ConfigMap; empty without one. Never raises: unreadable data is named in `broken`."""
    if live is None:
        return Record()
    data = live.get("data") or {}
    faults: list[str] = []
    current, previous = (_entry(data, name, faults) for name in ("current", "previous"))
    counter = _counter(data, faults)
    overrides, ignored = _overrides(data.get("overrides", ""))
    schema = data.get("schema", SCHEMA)
    newer = "" if schema == SCHEMA else f" (it has the schema {schema}, and this Slipway writes {SCHEMA})"
    return Record(
        current=current,
        previous=previous,
        promoted_at=data.get(PROMOTED_AT, ""),
        counter=counter,
        run=data.get("run", ""),
        overrides=overrides,
        document=data.get("document", "") if overrides else "",
        ignored=f"{Ref.of(live)} has overrides that are ignored: {ignored}" if ignored else "",
        broken=f"the release record {Ref.of(live)} cannot be read: {'; '.join(faults)}{newer}" if faults else "",
        source=live,
    )


def mending(service: ModelService, record: Record) -> str:
    """The broken data of a record and the way to restore it, for people; empty for a sound record."""
    if not record.broken:
        return ""
    ref = record_ref(service)
    return (
        f"{record.broken}. Next: no action for this run, since promote-release replaces it; for a rollback before "
        f"that, restore its data from a backup (kubectl edit configmap {ref.name} -n {ref.namespace})"
    )


def record(service: ModelService, content: Record) -> Manifest:
    """The ConfigMap. An unchanged record keeps its data, with fields of another schema."""
    metadata = owned_metadata(service, record_name(service), service.namespace)
    same = content.source is not None and read(content.source) == content
    data = (content.source or {}).get("data") or {} if same else _data(content)
    return {"apiVersion": CONFIG_MAP.api_version, "kind": CONFIG_MAP.kind, "metadata": metadata, "data": data}


def stamped(manifest: Manifest, moment: str, live: Manifest | None) -> Manifest:
    """The record of a promotion, for this version of `live` and no later one. A record without a promotion is returned
    unchanged.

    Raises TransientError if the counter of `live` is not the one that the promotion raised. The API server refuses
    (409) an apply with another resourceVersion than that of the object, but makes no comparison if the object is absent
    (tests/contract/test_cluster_contract.py): of two first promotions, the Lease alone stops one.
    """
    data, metadata = manifest["data"], manifest["metadata"]
    if data.get(PROMOTED_AT) != NOW:
        return manifest
    found = read(live).counter
    if found != int(data["counter"]) - 1:
        raise TransientError(
            f"{Ref.of(manifest)} was just written by another run: its counter is {found}, and this promotion "
            f"would raise it to {data['counter']}",
            "run it again",
        )
    version = {"resourceVersion": live["metadata"]["resourceVersion"]} if live else {}
    return {**manifest, "metadata": {**metadata, **version}, "data": {**data, PROMOTED_AT: moment}}


def _data(content: Record) -> dict[str, str]:
    entries = {"current": content.current, "previous": content.previous}
    written = {name: json.dumps(asdict(entry), sort_keys=True, indent=1) for name, entry in entries.items() if entry}
    overrides = {one.parameter: {"value": one.value, "run": one.run} for one in content.overrides}
    written |= {"overrides": json.dumps(overrides, sort_keys=True)} if overrides else {}
    texts = {PROMOTED_AT: content.promoted_at, "run": content.run, "document": content.document}
    filled = {name: text for name, text in texts.items() if text}
    return {"schema": SCHEMA, "counter": str(content.counter), **written, **filled}


def _counter(data: dict[str, str], faults: list[str]) -> int:
    text = data.get("counter", "0")
    if text.isascii() and text.isdecimal() and len(text) <= len(str(2**63)):
        return int(text)
    faults.append(f"data.counter is {text[:80]!r}, expected a whole number")
    return 0


def _overrides(text: str) -> tuple[tuple[InForce, ...], str]:
    """The sound overrides, and the errors of the others, which do not stop a run."""
    try:
        entries = dict(json.loads(text or "{}").items())
    except (ValueError, AttributeError, RecursionError) as error:
        return (), f"data.overrides: {error}"
    found, wrong = [], []
    for parameter, entry in entries.items():
        try:
            found.append(InForce(parameter, entry["value"], entry["run"]))
        except (ValueError, TypeError, LookupError) as error:
            wrong.append(f"{parameter}: {error}")
    places = {override.parameter: place for place, override in enumerate(OVERRIDES)}
    return tuple(sorted(found, key=lambda one: places[one.parameter])), "; ".join(wrong)


def _entry(data: dict[str, str], name: str, faults: list[str]) -> Entry | None:
    try:
        return _parsed(data[name]) if data.get(name) else None
    except (ValueError, RecursionError) as error:  # of truncated and of endlessly nested JSON
        faults.append(f"data.{name}: {error}")
        return None


def _parsed(text: str) -> Entry:
    """Raises ValueError for an entry without the data that a rollback needs: the release and its objects."""
    found = json.loads(text)
    objects = found.get("objects") if isinstance(found, dict) else None
    if not isinstance(objects, list) or not objects or not all(map(_is_object, objects)) or not _is_group(objects[0]):
        raise ValueError("the objects of the release are missing, a RoleBasedGroup first")
    texts = {name: found.get(name, "") for name in ("release", "group", "model_digest", "image", "volume")}
    malformed = (name for name, value in texts.items() if not isinstance(value, str))
    wrong = next(malformed, "" if texts["release"] else "release")
    if wrong:
        raise ValueError(f"{wrong} is {texts[wrong]!r}, expected a text")
    texts["group"] = texts["group"] or objects[0]["metadata"]["name"]
    return Entry(**texts, objects=tuple(objects))


def _is_object(found: Any) -> bool:
    if not isinstance(found, dict) or not isinstance(found.get("metadata"), dict):
        return False
    metadata = found["metadata"]
    names = (found.get("apiVersion"), found.get("kind"), metadata.get("name"), metadata.get("namespace", ""))
    return all(isinstance(name, str) for name in names)


def _is_group(found: Manifest) -> bool:
    spec = found.get("spec")
    return found["kind"] == ROLE_BASED_GROUP and isinstance(spec, dict) and isinstance(spec.get("roles"), list)
