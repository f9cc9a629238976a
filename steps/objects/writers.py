"""Who wrote an object last, read from its managedFields.

https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

from typing import Any

from steps.ports import Manifest
from steps.release import FIELD_MANAGER


def last_writer(live: Manifest | None) -> str:
    """The newest writer that is not Slipway, with what it used and when; empty if there is none.

    Writes of the status do not count: controllers make them all the time, and they undo nothing.
    """
    entries = (live or {}).get("metadata", {}).get("managedFields") or []
    others = [entry for entry in entries if _is_other(entry)]
    if not others:
        return ""
    newest = max(others, key=lambda entry: str(entry.get("time", "")))
    when = f" at {newest['time']}" if newest.get("time") else ""
    return f"{newest['manager']} ({newest.get('operation', 'Update')}{when})"


def _is_other(entry: dict[str, Any]) -> bool:
    return bool(entry.get("manager")) and entry["manager"] != FIELD_MANAGER and entry.get("subresource") != "status"
