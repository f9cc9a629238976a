"""Three ways to describe a change: JSON Patch, JSON Merge Patch, Strategic Merge Patch. All leave their inputs alone.

RFC 6902, RFC 7386 and https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from collections.abc import Callable, Mapping
from typing import Any

from workflows.simulator.core.cluster.errors import ApiError, bad_request
from workflows.simulator.core.cluster.fields.shapes import Shape


def merge(live: Any, patch: Any) -> Any:
    """JSON Merge Patch: maps merge, null removes, everything else replaces."""
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


def json_patch(live: Any, operations: Any) -> Any:
    """JSON Patch. Raises ApiError 422 for an operation that does not fit the object, 400 for one that is none."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    result = live
    for operation in operations:
        result = _operate(result, operation)
    return result


def _operate(content: Any, operation: Mapping[str, Any]) -> Any:
    try:
        do, path = operation["op"], _pointer(operation["path"])
        if do in ("move", "copy"):
            source = _pointer(operation["from"])
            value = _at(content, source)
            content = _edited(content, source, _remove) if do == "move" else content
        else:
            value = operation["value"] if do != "remove" else None
        if do == "test":
            if _at(content, path) != value:
                raise _unfit(f"testing value {operation['path']} failed: test failed")
            return content
        edits: Mapping[str, Callable[[Any, str], Any]] = {
            "remove": _remove,
            "replace": lambda parent, key: _put(_remove(parent, key), key, value),
        }
        edit = edits.get(do, lambda parent, key: _put(parent, key, value))
        return _edited(content, path, edit)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _unfit(f"the operation {dict(operation)} does not fit: {error!r}") from error


def _unfit(message: str) -> ApiError:
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {message}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"{text!r} is no JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _at(content: Any, path: list[str]) -> Any:
    for key in path:
        content = content[int(key)] if isinstance(content, list) else content[key]
    return content


def _edited(content: Any, path: list[str], edit: Callable[[Any, str], Any]) -> Any:
    """A copy of `content` along `path`, whose last container is replaced by `edit(container, last key)`."""
    key, *rest = path
    if not rest:
        return edit(content, key)
    if isinstance(content, list):
        index = int(key)
        return [*content[:index], _edited(content[index], rest, edit), *content[index + 1 :]]
    return {**content, key: _edited(content[key], rest, edit)}


def _put(parent: Any, key: str, value: Any) -> Any:
    if isinstance(parent, list):
        index = len(parent) if key == "-" else int(key)
        if index > len(parent):
            raise IndexError(index)
        return [*parent[:index], value, *parent[index:]]
    return {**parent, key: value}


def _remove(parent: Any, key: str) -> Any:
    if isinstance(parent, list):
        index = int(key)
        _ = parent[index]
        return [*parent[:index], *parent[index + 1 :]]
    _ = parent[key]
    return {name: value for name, value in parent.items() if name != key}
