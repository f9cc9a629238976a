"""A cluster client without writes, with a preview that is computed here.

The preview of the server is a server-side apply with dryRun=All, and needs the permission to write. Here the result is
predicted from the live object, by the rules of server-side apply: the declared fields are merged into it. In doubt the
prediction differs from the live object, which costs time and does no harm.
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from steps.errors import Blocked
from steps.kinds import FIELD_MANAGER, Kind, Manifest, Ref
from steps.ports.kubernetes import Cluster, Labels, Permission, Reduce

Fields = Mapping[str, Any]  # in the notation of fieldsV1: {"f:spec": {"f:ports": {'k:{"port":80}': {"f:name": {}}}}}


class ReadOnlyCluster:
    """Implements `steps.ports.kubernetes.Cluster` with the permissions to get and list alone."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def get(self, ref: Ref) -> Manifest | None:
        return self._cluster.get(ref)

    def select(self, kind: Kind, namespace: str = "", labels: Labels = None, part: Reduce = None) -> list[Manifest]:
        return self._cluster.select(kind, namespace, labels, part)

    def preview(self, wanted: Manifest) -> Manifest:
        live = self._cluster.get(Ref.of(wanted))
        return wanted if live is None else predicted(live, wanted)

    def apply(self, wanted: Manifest) -> None:
        _refuse("apply", Ref.of(wanted))

    def delete(self, ref: Ref, uid: str) -> None:
        _refuse(f"delete the object {uid},", ref)

    def serves(self, kind: Kind) -> bool:
        return self._cluster.serves(kind)

    def allows(self, permission: Permission) -> bool:
        return self._cluster.allows(permission)

    def pod_log(self, namespace: str, pod: str, container: str, *, previous: bool = False, lines: int = 20) -> str:
        return self._cluster.pod_log(namespace, pod, container, previous=previous, lines=lines)


def predicted(live: Manifest, wanted: Manifest) -> Manifest:
    """The live object after an apply of `wanted`, as far as it can be predicted without the server.

    Declared fields have the wanted value. Fields that Slipway declared before and declares no more are removed. Fields
    of other managers and defaults of the server stay. A value that the server writes in another form differs.
    """
    entries = live["metadata"].get("managedFields") or []
    mine: Fields | None = None
    for entry in filter(_is_ours, entries):
        mine = _union(mine or {}, entry.get("fieldsV1") or {})
    others = tuple(entry["fieldsV1"] for entry in entries if entry.get("fieldsV1") and not _is_ours(entry))
    found: Manifest = _applied(live, wanted, mine, others)
    return found


def _applied(live: Any, wanted: Any, mine: Fields | None, others: tuple[Fields, ...]) -> Any:
    """`mine`: the fields below that Slipway declared before; empty for one atomic value, None without any."""
    if isinstance(wanted, dict | list) and any(not fields for fields in others):
        return wanted  # another manager owns this as one value, so an apply would replace it as well
    if isinstance(wanted, dict) and mine is not None and not mine:
        return wanted  # so does Slipway, as with the selector of a Service since Kubernetes 1.21
    mine = mine or {}
    if isinstance(live, dict) and isinstance(wanted, dict):
        kept = {key: value for key, value in live.items() if key in wanted or f"f:{key}" not in mine}
        below = {key: (mine.get(f"f:{key}"), _below(others, f"f:{key}")) for key in wanted}
        # A field that Slipway still owns although it is absent is one that the server drops: an operator that stores
        # another version of its kind may have no place for it. A client that removes a field removes its ownership too.
        lost = {key for key in wanted if key not in live and f"f:{key}" in mine}
        return kept | {
            key: _applied(live[key], value, *below[key]) if key in live else value
            for key, value in wanted.items()
            if key not in lost
        }
    if isinstance(live, list) and isinstance(wanted, list):
        return _applied_list(live, wanted, mine, others)
    return wanted


def _applied_list(live: list[Any], wanted: list[Any], mine: Fields, others: tuple[Fields, ...]) -> list[Any]:
    """Lists with owned items by key are merged by key, as the server does; all others are replaced as a whole.

    An item of a replaced list may have more fields than declared: the defaults of the server.
    """
    elements = {element: json.loads(element[2:]) for element in mine if element.startswith("k:")}
    if not elements:
        same_length = len(live) == len(wanted)
        return [_applied(*pair, None, ()) for pair in zip(live, wanted, strict=True)] if same_length else wanted
    found, left = [], list(wanted)
    for item in live:
        element = next((name for name, keys in elements.items() if _has(item, keys)), "")
        keys = {key: item.get(key) for key in next(iter(elements.values()))}
        declared = next((one for one in left if _has(one, keys)), None)
        if declared is not None:
            left.remove(declared)
            found.append(_applied(item, declared, mine.get(element), _below(others, element)))
        elif not element:
            found.append(item)
    return found + left


def _has(item: Any, keys: Mapping[str, Any]) -> bool:
    """A key that is absent in an item has its default, such as the protocol of a port."""
    return isinstance(item, dict) and all(item.get(key, value) == value for key, value in keys.items())


def _below(trees: tuple[Fields, ...], element: str) -> tuple[Fields, ...]:
    return tuple(fields[element] for fields in trees if element in fields)


def _union(one: Fields, other: Fields) -> Fields:
    return {key: _union(one.get(key) or {}, other.get(key) or {}) for key in {**one, **other}}


def _is_ours(entry: Mapping[str, Any]) -> bool:
    return (entry.get("manager"), entry.get("operation")) == (FIELD_MANAGER, "Apply")


def _refuse(verb: str, ref: Ref) -> NoReturn:
    raise Blocked(f"asked to {verb} {ref} with a read-only client", "this is a bug in Slipway: report it")
