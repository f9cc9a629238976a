"""The owners of fields: metadata.managedFields, updated with every write.

https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from workflows.simulator.core.cluster.fields.field_sets import Path, fields, from_fields_v1, to_fields_v1
from workflows.simulator.core.cluster.fields.shapes import Shape
from workflows.simulator.core.cluster.manifests import Manifest


@dataclass(frozen=True)
class Owner:
    """One entry of managedFields."""

    manager: str
    operation: Literal["Apply", "Update"]
    api_version: str
    subresource: str
    time: str
    paths: frozenset[Path]

    @property
    def identity(self) -> tuple[str, ...]:
        """An applier is known by its name alone, an updater also by the version that it writes."""
        version = self.api_version if self.operation == "Update" else ""
        return self.manager, self.operation, self.subresource, version

    def without(self, paths: set[Path]) -> "Owner":
        return replace(self, paths=self.paths - paths)


def owners(content: Mapping[str, Any] | None) -> list[Owner]:
    entries = (content or {"metadata": {}})["metadata"].get("managedFields") or []
    return [
        Owner(
            manager=entry.get("manager", ""),
            operation=entry.get("operation", "Update"),
            api_version=entry.get("apiVersion", ""),
            subresource=entry.get("subresource", ""),
            time=entry.get("time", ""),
            paths=frozenset(from_fields_v1(entry.get("fieldsV1") or {})),
        )
        for entry in entries
    ]


def managed_fields(all_owners: list[Owner]) -> list[Manifest]:
    entries = []
    for owner in sorted(all_owners, key=lambda one: (one.operation, one.time, one.manager, one.subresource)):
        entry = {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": owner.api_version,
            "time": owner.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields_v1(owner.paths),
        }
        entries.append(entry | ({"subresource": owner.subresource} if owner.subresource else {}))
    return entries


def changed(before: Mapping[Path, Any], after: Mapping[Path, Any]) -> tuple[set[Path], set[Path]]:
    """Fields that were added or have another value, and fields that are gone."""
    written = {path for path, value in after.items() if path not in before or before[path] != value}
    return written, set(before) - set(after)


def recorded(before: Manifest | None, after: Manifest, shape: Shape, writer: Owner) -> list[Manifest]:
    """The managedFields after `writer` wrote `after` as a whole; its `paths` are filled in here."""
    known = owners(before)
    written, removed = changed(fields(before or {}, shape), fields(after, shape))
    if not written and not removed:
        return managed_fields(known)
    lost = written | removed
    own = next((one for one in known if one.identity == writer.identity), None)
    mine = replace(writer, paths=((own.paths if own else frozenset()) - removed) | written)
    others = [one.without(lost) for one in known if one.identity != writer.identity]
    return managed_fields([one for one in (*others, mine) if one.paths])
