"""The last writer of an object, from its managedFields.

https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from steps.kinds import FIELD_MANAGER, Manifest


def last_writer(live: Manifest, fields: Iterable[Sequence[str]] = ()) -> str:
    """The newest writer of these fields other than Slipway, with operation and time; empty without one.

    A field is its keys from the top, an item of a list by its name. If the fields have no owner (they were removed), it
    is the newest writer of the object. Writes of the status do not count: controllers make them all the time, and they
    undo no change.
    """
    others = [entry for entry in live["metadata"].get("managedFields") or [] if _is_other(entry)]
    paths = tuple(fields)
    owners = [entry for entry in others if any(owns(entry.get("fieldsV1") or {}, path) for path in paths)]
    if not others:
        return ""
    newest = max(owners or others, key=lambda entry: str(entry.get("time", "")))
    when = f" at {newest['time']}" if newest.get("time") else ""
    return f"{newest['manager']} ({newest.get('operation', 'Update')}{when})"


def owns(fields: dict[str, Any], path: Sequence[str]) -> bool:
    """Whether a set of fields in the FieldsV1 form contains a field, or an atomic parent of it."""
    at: dict[str, Any] | None = fields
    for step in path:
        if at is not fields and not {*(at or {})} - {"."}:
            return True  # an atomic value is owned as a whole
        at = _below(at or {}, step)
        if at is None:
            return False
    return True


def _below(fields: dict[str, Any], step: str) -> dict[str, Any] | None:
    if f"f:{step}" in fields:
        found: dict[str, Any] = fields[f"f:{step}"]
        return found
    items = (key for key in fields if key.startswith("k:"))
    return next((fields[key] for key in items if step in map(str, json.loads(key[2:]).values())), None)


def _is_other(entry: dict[str, Any]) -> bool:
    return bool(entry.get("manager")) and entry["manager"] != FIELD_MANAGER and entry.get("subresource") != "status"
