"""Server-side apply: merge the declared fields of a manager into the live object, and remove those no longer declared.

https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from dataclasses import replace
from typing import Any

from workflows.simulator.core.cluster.errors import ApiError
from workflows.simulator.core.cluster.fields.field_sets import Path, fields, spelled, with_parents, without
from workflows.simulator.core.cluster.fields.ownership import Owner, changed, managed_fields, owners
from workflows.simulator.core.cluster.fields.shapes import Shape
from workflows.simulator.core.cluster.manifests import Manifest


def apply(live: Manifest | None, wanted: Manifest, shape: Shape, applier: Owner, *, force: bool) -> Manifest:
    """The object after `applier` applied `wanted`, with its new managedFields.

    Raises ApiError 409 for a change of fields of other owners, unless `force` takes them over.
    """
    wanted = _without_nulls(wanted)
    declared = fields(wanted, shape)
    known = owners(live)
    own = next((one for one in known if one.identity == applier.identity), None)
    others = [one for one in known if one.identity != applier.identity]
    before = fields(live or {}, shape)
    merged = merged_into(live or {}, wanted, shape)
    written, _ = changed(before, fields(merged, shape))
    if not force:
        _refuse_conflicts(others, written)
    others = [one.without(written) for one in others]
    result = _take_back(merged, shape, own, set(declared), others)
    gone = set(fields(merged, shape)) - set(fields(result, shape))
    mine = replace(applier, paths=frozenset(declared))
    if own and own.paths == mine.paths and not written and not gone:
        mine = own  # without a change the time of the entry stays, so that the write is no write
    kept = [one.without(gone) for one in others]
    result["metadata"] = {
        **result["metadata"],
        "managedFields": managed_fields([one for one in (*kept, mine) if one.paths]),
    }
    return result


def merged_into(live: Any, wanted: Any, shape: Shape) -> Any:
    """`wanted` over `live`: maps by key, keyed lists by item, other values replaced."""
    if isinstance(live, dict) and isinstance(wanted, dict) and shape.merges_keys:
        return {
            **live,
            **{key: merged_into(live.get(key), value, shape.field(key)) for key, value in wanted.items()},
        }
    if isinstance(wanted, list) and shape.list_type != "atomic":
        return _merged_list(live if isinstance(live, list) else [], wanted, shape)
    if isinstance(wanted, dict) and shape.merges_keys:
        return {key: merged_into(None, value, shape.field(key)) for key, value in wanted.items()}
    return wanted


def _merged_list(live: list[Any], wanted: list[Any], shape: Shape) -> list[Any]:
    """Items that both have follow the order of `wanted`; the others of `live` keep their places."""
    old = {shape.element(item): item for item in live}
    new = {shape.element(item): merged_into(old.get(shape.element(item)), item, shape.items) for item in wanted}
    if len(new) < len(wanted):
        raise ApiError(500, "", "failed to create typed patch object: duplicate entries for key in a list")
    result: list[Any] = []
    waiting = list(new)
    for name, item in old.items():
        if name not in new:
            result.append(item)
            continue
        while waiting:
            first = waiting.pop(0)
            result.append(new[first])
            if first in old:
                break
    return result + [new[name] for name in waiting]


def _take_back(merged: Manifest, shape: Shape, own: Owner | None, declared: set[Path], others: list[Owner]) -> Manifest:
    """Remove fields that this manager applied last time, does not declare now, and no other manager owns."""
    if own is None:
        return dict(merged)
    still_owned = with_parents(declared).union(*(with_parents(one.paths) for one in others))
    doomed = {path for path in with_parents(own.paths) - still_owned if path != ("f:metadata",)}
    return without(merged, shape, doomed)


def _refuse_conflicts(others: list[Owner], written: set[Path]) -> None:
    conflicts = [(one, path) for one in others for path in sorted(one.paths & written)]
    if not conflicts:
        return
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {_called(one)}", "field": spelled(path)}
        for one, path in conflicts
    ]
    if len(conflicts) == 1:
        one, path = conflicts[0]
        message = f"Apply failed with 1 conflict: conflict with {_called(one)}: {spelled(path)}"
    else:
        lines = [
            f"conflicts with {_called(one)}:" + "".join(f"\n- {spelled(path)}" for path in sorted(one.paths & written))
            for one in others
            if one.paths & written
        ]
        message = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    raise ApiError(409, "Conflict", message, {"causes": causes})


def _called(owner: Owner) -> str:
    using = f" using {owner.api_version}" if owner.operation == "Update" else ""
    return f'"{owner.manager}"{using}'


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
