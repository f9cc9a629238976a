"""Differences between a live object and the same object after a server-side apply, for people.

The dry run of the server includes defaults, webhooks and immutable fields, as in Cluster API: https://github.com/kubernetes-sigs/cluster-api/pull/6710
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from steps.kinds import HASH_LABEL, Manifest

ABSENT = object()
HIDDEN = "(hidden)"
_SERVER_OWNED = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"  # contains a whole Secret if kubectl applied one
_LONGEST_VALUE = 60  # characters of a value in a reason
_MOST_SHOWN = 3  # differences in a reason


@dataclass(frozen=True)
class Difference:
    steps: tuple[str, ...]  # keys from the top; an item of a list by its name
    path: str  # for people: spec.roles[prefill].replicas
    before: Any
    after: Any

    def __str__(self) -> str:
        before, after = _shown(self.before), _shown(self.after)
        if len(before) > _LONGEST_VALUE or len(after) > _LONGEST_VALUE:
            return f"{self.path} differs"
        return f"{self.path}: {before} -> {after}"


def differences(live: Manifest, preview: Manifest) -> list[Difference]:
    """All changes of an apply; an empty list if the object is as wanted."""
    found = list(_walk((), "", comparable(live), comparable(preview)))
    if live.get("kind") == "Secret":
        return [replace(difference, before=HIDDEN, after="another value") for difference in found]
    return found


def reason(found: list[Difference]) -> str:
    """One line: the first differences, and the number of the others.

    The hash label differs whenever its template does, so it is shown only if it is the only difference.
    """
    shown_first = [difference for difference in found if HASH_LABEL not in difference.path] or found
    shown = "; ".join(str(difference) for difference in shown_first[:_MOST_SHOWN])
    rest = len(shown_first) - _MOST_SHOWN
    return f"{shown}; and {rest} more" if rest > 0 else shown


def comparable(manifest: Manifest) -> Manifest:
    """The declared part of an object."""
    found: Manifest = copy.deepcopy({key: value for key, value in manifest.items() if key != "status"})
    for field in _SERVER_OWNED:
        found["metadata"].pop(field, None)
    return found


def presentable(manifest: Manifest | None, *, than: Manifest | None = None) -> Manifest | None:
    """An object for people: without the fields of the server, and without the values of a Secret.

    A hidden value that differs from the one in `than` is marked: a rotated key would show no difference otherwise.
    """
    if manifest is None:
        return None
    found = comparable(manifest)
    if found.get("kind") == "Secret":
        found["metadata"].get("annotations", {}).pop(_LAST_APPLIED, None)
        others = (than or manifest).get("data") or {}
        found["data"] = {
            key: HIDDEN if others.get(key) == value else f"{HIDDEN[:-1]}, another value)"
            for key, value in (found.get("data") or {}).items()
        }
    return found


def _walk(steps: tuple[str, ...], path: str, before: Any, after: Any) -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            shown = f"[{key}]" if "/" in key or "." in key else f".{key}" if path else key
            yield from _walk((*steps, key), path + shown, before.get(key, ABSENT), after.get(key, ABSENT))
    elif _named_items(before) and _named_items(after):
        yield from _walk_named(steps, path, before, after)
    elif before != after:
        yield Difference(steps, path, before, after)


def _walk_named(steps: tuple[str, ...], path: str, before: list[Any], after: list[Any]) -> Iterator[Difference]:
    """Lists of named items are compared by name, as the server merges them."""
    old, new = {item["name"]: item for item in before}, {item["name"]: item for item in after}
    for name in [*old, *(name for name in new if name not in old)]:
        yield from _walk((*steps, name), f"{path}[{name}]", old.get(name, ABSENT), new.get(name, ABSENT))


def _named_items(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    names = [item.get("name") if isinstance(item, dict) else None for item in value]
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    return value if isinstance(value, str) else json.dumps(value, default=str)
