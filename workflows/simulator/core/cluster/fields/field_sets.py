"""Sets of fields, as server-side apply remembers them: paths in the notation of fieldsV1.

https://github.com/kubernetes-sigs/structured-merge-diff is the original.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from workflows.simulator.core.cluster.fields.shapes import Shape

Path = tuple[str, ...]  # ("f:spec", "f:ports", 'k:{"port":80,"protocol":"TCP"}', "f:name")

# Fields of the server, without a manager.
_UNOWNED: frozenset[Path] = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                "creationTimestamp",
                "deletionGracePeriodSeconds",
                "deletionTimestamp",
                "generation",
                "managedFields",
                "name",
                "namespace",
                "resourceVersion",
                "selfLink",
                "uid",
            )
        ),
    }
)


def fields(content: Mapping[str, Any], shape: Shape) -> dict[Path, Any]:
    """Every field of an object that can be owned, with its value; items of keyed lists are fields without value."""
    found: dict[Path, Any] = {}
    for key, value in content.items():
        _collect(value, shape.field(key), (f"f:{key}",), found)
    return {path: value for path, value in found.items() if path[:2] not in _UNOWNED and path not in _UNOWNED}


def _collect(value: Any, shape: Shape, path: Path, found: dict[Path, Any]) -> None:
    if isinstance(value, Mapping) and value and shape.merges_keys:
        for key, inner in value.items():
            _collect(inner, shape.field(key), (*path, f"f:{key}"), found)
    elif isinstance(value, list) and value and shape.list_type == "map":
        for item in value:
            inner_path = (*path, shape.element(item))
            found[inner_path] = None
            _collect(item, shape.items, inner_path, found)
    elif isinstance(value, list) and value and shape.list_type == "set":
        found |= {(*path, shape.element(item)): None for item in value}
    else:
        found[path] = value


def with_parents(paths: Iterable[Path]) -> set[Path]:
    return {path[:length] for path in paths for length in range(1, len(path) + 1)}


def without(content: dict[str, Any], shape: Shape, doomed: set[Path]) -> dict[str, Any]:
    """The object without these fields and those below them."""
    result: dict[str, Any] = _without(content, shape, (), doomed)
    return result


def _without(value: Any, shape: Shape, path: Path, doomed: set[Path]) -> Any:
    if isinstance(value, dict) and shape.merges_keys:
        return {
            key: _without(inner, shape.field(key), (*path, f"f:{key}"), doomed)
            for key, inner in value.items()
            if (*path, f"f:{key}") not in doomed
        }
    if isinstance(value, list) and shape.list_type != "atomic":
        kept = [(item, (*path, shape.element(item))) for item in value]
        return [_without(item, shape.items, inner, doomed) for item, inner in kept if inner not in doomed]
    return value


def to_fields_v1(paths: Iterable[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _without_leaf_dots(tree)


def _without_leaf_dots(tree: dict[str, Any]) -> dict[str, Any]:
    """A leaf is {}, only a member with members below it carries a dot."""
    return {
        key: ({} if set(inner) == {"."} else _without_leaf_dots(inner)) if key != "." else {}
        for key, inner in tree.items()
    }


def from_fields_v1(tree: Mapping[str, Any], path: Path = ()) -> set[Path]:
    found: set[Path] = set()
    for element, inner in tree.items():
        if element == ".":
            found.add(path)
        elif inner:
            found |= from_fields_v1(inner, (*path, element))
        else:
            found.add((*path, element))
    return found


def spelled(path: Path) -> str:
    """A path as people read it in conflicts: `.spec.ports[port=80,protocol="TCP"].name`."""
    return "".join(_spelled(element) for element in path)


def _spelled(element: str) -> str:
    kind, _, rest = element.partition(":")
    if kind == "f":
        return f".{rest}"
    if kind == "k":
        return "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(rest).items()) + "]"
    return f"[={rest}]"
