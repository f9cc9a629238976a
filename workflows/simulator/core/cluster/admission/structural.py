"""Custom resources against the schema of their CRD: prune, default, validate.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
CEL rules (`x-kubernetes-validations`) are not evaluated here.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from workflows.simulator.core.cluster.errors import Cause, invalid_value, required, unsupported

Schema = Mapping[str, Any]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"

_TYPES: Mapping[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}


def pruned(value: Any, schema: Schema) -> Any:
    """`value` without the fields that the schema does not know."""
    if isinstance(value, list):
        items = schema.get("items")
        if not isinstance(items, Mapping):
            return value
        # On a list, it holds for the maps in it, as on spec.roles of RBG.
        inherited = {_PRESERVE: True} if schema.get(_PRESERVE) else {}
        return [pruned(item, {**items, **inherited}) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties") or {}
    others = schema.get("additionalProperties")
    open_ended = bool(schema.get(_PRESERVE)) or others is True
    always = {"apiVersion", "kind", "metadata"} if schema.get("x-kubernetes-embedded-resource") else set()
    kept = {}
    for key, inner in value.items():
        if key in properties:
            kept[key] = pruned(inner, properties[key])
        elif isinstance(others, Mapping):
            kept[key] = pruned(inner, others)
        elif open_ended or key in always:
            kept[key] = inner
    return kept


def defaulted(value: Any, schema: Schema) -> Any:
    """`value` with the defaults of the schema where a field is absent, or null where null is not allowed."""
    if isinstance(value, list):
        items = schema.get("items")
        return [defaulted(item, items) for item in value] if isinstance(items, Mapping) else value
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties") or {}
    others = schema.get("additionalProperties")
    filled = {key: inner for key, inner in value.items() if inner is not None or not _drops_null(properties.get(key))}
    for key, inner in properties.items():
        if key not in filled and "default" in inner:
            filled[key] = inner["default"]
    return {key: defaulted(inner, _known(properties, others, key)) for key, inner in filled.items()}


def _known(properties: Schema, others: Any, key: str) -> Schema:
    found: Any = properties.get(key, others)
    return found if isinstance(found, Mapping) else {}


def _drops_null(schema: Schema | None) -> bool:
    """A null gives way to the default, unless null is a value here."""
    return schema is not None and "default" in schema and not schema.get("nullable")


def schema_errors(value: Any, schema: Schema, path: str = "") -> Iterator[Cause]:
    """Violations of the schema, worded as by the API server."""
    if value is None:
        if not schema.get("nullable") and schema.get("type"):
            yield _wrong_type(path, value, schema["type"])
        return
    if not _has_type(value, schema):
        expected = "integer or string" if schema.get("x-kubernetes-int-or-string") else schema.get("type", "")
        yield _wrong_type(path, value, expected)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield unsupported(path, str(value), [str(one) for one in schema["enum"]])
    for check in (_of_text, _of_number, _of_list, _of_map, _of_logic):
        yield from check(value, schema, path)


def _has_type(value: Any, schema: Schema) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return isinstance(value, int | str) and not isinstance(value, bool)
    expected = schema.get("type")
    if not expected:
        return True
    if isinstance(value, bool):
        return bool(expected == "boolean")
    return isinstance(value, _TYPES[expected])


def _wrong_type(path: str, value: Any, expected: str) -> Cause:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    found = names.get(type(value), "null")
    # Of a wrong type the server shows the type, never the value.
    return Cause(
        path,
        f'Invalid value: "{found}": {path} in body must be of type {expected}: "{found}"',
        "FieldValueTypeInvalid",
    )


def _of_text(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    if not isinstance(value, str):
        return
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield invalid_value(path, f'"{value}"', f"{path} in body should match '{schema['pattern']}'")
    if len(value) < schema.get("minLength", 0):
        yield invalid_value(path, f'"{value}"', f"{path} in body should be at least {schema['minLength']} chars long")
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield invalid_value(path, f'"{value}"', f"{path} in body should be at most {schema['maxLength']} chars long")


def _of_number(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if "minimum" in schema and value < schema["minimum"]:
        yield invalid_value(path, str(value), f"{path} in body should be greater than or equal to {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        yield invalid_value(path, str(value), f"{path} in body should be less than or equal to {schema['maximum']}")


def _of_list(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    if not isinstance(value, list):
        return
    if len(value) < schema.get("minItems", 0):
        yield invalid_value(path, str(len(value)), f"{path} in body should have at least {schema['minItems']} items")
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        yield Cause(path, f"Too many: {len(value)}: must have at most {schema['maxItems']} items", "FieldValueTooMany")
    items = schema.get("items")
    if isinstance(items, Mapping):
        for number, item in enumerate(value):
            yield from schema_errors(item, items, f"{path}[{number}]")
    yield from _duplicates(value, schema, path)


def _duplicates(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    seen: list[Any] = []
    for number, item in enumerate(value):
        name = {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item
        if schema.get("x-kubernetes-list-type") in ("map", "set") and name in seen:
            yield Cause(f"{path}[{number}]", f"Duplicate value: {name}", "FieldValueDuplicate")
        seen.append(name)


def _of_map(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    if not isinstance(value, dict):
        return
    properties = schema.get("properties") or {}
    others = schema.get("additionalProperties")
    for key in schema.get("required") or ():
        if key not in value:
            yield required(_join(path, key))
    for key, inner in value.items():
        known = properties.get(key, others)
        if isinstance(known, Mapping):
            yield from schema_errors(inner, known, _join(path, key))


def _of_logic(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    for part in schema.get("allOf") or ():
        yield from schema_errors(value, part, path)
    choices: Mapping[str, tuple[Callable[[int], bool], str]] = {
        "anyOf": (lambda fitting: fitting >= 1, "at least one schema (anyOf)"),
        "oneOf": (lambda fitting: fitting == 1, "one and only one schema (oneOf)"),
    }
    for word, (accepts, wish) in choices.items():
        parts = schema.get(word)
        if parts and not accepts(sum(not any(schema_errors(value, part, path)) for part in parts)):
            yield invalid_value(path, '""', f'"{path}" must validate {wish}')
    if "not" in schema and not any(schema_errors(value, schema["not"], path)):
        yield invalid_value(path, '""', f'"{path}" must not validate the schema (not)')


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
