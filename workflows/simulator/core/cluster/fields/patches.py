"""Two ways to describe a change: JSON Merge Patch and Strategic Merge Patch. Both leave their inputs alone.

RFC 7386 and https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from collections.abc import Mapping
from typing import Any

from workflows.simulator.core.cluster.errors import bad_request
from workflows.simulator.core.cluster.fields.shapes import Shape


def merge(live: Any, patch: Any) -> Any:
    """JSON Merge Patch: maps merge, null removes, other values replace."""
    if not isinstance(patch, dict):
        return patch
    result = dict(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic(live: Any, patch: Any, shape: Shape) -> Any:
    """Strategic Merge Patch, with the directives `$patch: delete` and `$patch: replace`."""
    if isinstance(patch, list) and shape.list_type == "map":
        return _strategic_list(live if isinstance(live, list) else [], patch, shape)
    if isinstance(patch, list) and shape.list_type == "set":
        old = live if isinstance(live, list) else []
        return [*old, *(item for item in patch if item not in old)]
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = strategic(result.get(key), value, shape.field(key))
    return result


def _strategic_list(live: list[Any], patch: list[Any], shape: Shape) -> list[Any]:
    key = str(shape.node["x-kubernetes-list-map-keys"][0])  # strategic merge knows one key only
    result = list(live)
    if {"$patch": "replace"} in patch:
        return [item for item in patch if "$patch" not in item]
    for item in patch:
        if not isinstance(item, Mapping) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        place = next((index for index, one in enumerate(result) if one.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            result = [one for one in result if one.get(key) != item[key]]
        elif place is None:
            result.append(strategic(None, item, shape.items))
        else:
            result[place] = strategic(result[place], item, shape.items)
    return result
