"""Admission of a sent object: known fields, defaults, validation."""

from itertools import chain
from typing import Any

from workflows.simulator.core.cluster.admission import typed
from workflows.simulator.core.cluster.admission.defaults import default
from workflows.simulator.core.cluster.admission.metadata_rules import metadata_errors
from workflows.simulator.core.cluster.admission.structural import defaulted, pruned, schema_errors
from workflows.simulator.core.cluster.admission.validation import rule_errors
from workflows.simulator.core.cluster.errors import bad_request, invalid
from workflows.simulator.core.cluster.manifests import Manifest
from workflows.simulator.core.cluster.resources import KindRegistry, Resource

_ROOT = ("apiVersion", "kind", "metadata")


def addressed(resource: Resource, namespace: str, name: str, content: Any) -> Manifest:
    """`content` with the names of the path it was sent to. Raises ApiError 400 where they contradict each other."""
    if not isinstance(content, dict) or not isinstance(content.get("metadata", {}), dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {resource.kind})")
    version, kind = content.get("apiVersion") or resource.api_version, content.get("kind") or resource.kind
    if version != resource.api_version:
        raise bad_request(
            f"the API version in the data ({version}) does not match the expected API version ({resource.api_version})"
        )
    if kind != resource.kind:
        raise bad_request(
            f'{kind} in version "{resource.version}" cannot be handled as a {resource.kind}: unknown conversion'
        )
    metadata = dict(content.get("metadata") or {})
    if resource.namespaced:
        if metadata.get("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        metadata["namespace"] = namespace
    if name and metadata.get("name", name) != name:
        raise bad_request(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
    if name:
        metadata["name"] = name
    return {**content, "apiVersion": version, "kind": kind, "metadata": metadata}


def admit(registry: KindRegistry, resource: Resource, content: Manifest, live: Manifest | None) -> Manifest:
    """`content`, which replaces `live`, as it may be stored. Raises ApiError 400 or 422."""
    schema = registry.schema(resource)
    metadata = content["metadata"]
    wrong = [*metadata_errors(resource, metadata)]
    if schema is None:
        content = typed.known_fields(resource, content)
        default(resource, content, live)
        wrong += typed.missing(resource, content)
        wrong += [one for one in rule_errors(resource, content, live) if one.field not in {w.field for w in wrong}]
    else:
        content = _custom(content, schema)
        wrong += schema_errors({key: value for key, value in content.items() if key not in _ROOT}, _open_root(schema))
    if wrong:
        raise invalid(resource, metadata.get("name", ""), wrong)
    return content


def undeclared(registry: KindRegistry, resource: Resource, patch: Manifest) -> None:
    """Server-side apply refuses undeclared fields: raises ApiError 500, as real servers do."""
    schema = registry.schema(resource)
    if schema is None:
        typed.refuse_unknown(resource, patch)
        return
    kept = _custom_pruned(patch, schema)
    unknown = next(chain(_lost(patch, kept, "")), None)
    if unknown:
        raise typed.untyped(f"{unknown}: field not declared in schema")


def _custom(content: Manifest, schema: Any) -> Manifest:
    kept = _custom_pruned(content, schema)
    filled: Manifest = defaulted(kept, _open_root(schema))
    return filled


def _custom_pruned(content: Manifest, schema: Any) -> Manifest:
    kept: Manifest = pruned(content, {**schema, "x-kubernetes-embedded-resource": True})
    return kept | {key: content[key] for key in _ROOT if key in content}


def _open_root(schema: Any) -> dict[str, Any]:
    """The schema without the fields that every object has."""
    properties = {key: value for key, value in (schema.get("properties") or {}).items() if key not in _ROOT}
    required = [key for key in schema.get("required") or () if key not in _ROOT]
    return {**schema, "properties": properties, "required": required}


def _lost(before: Any, after: Any, path: str) -> Any:
    """Paths of fields that `after` lacks."""
    if isinstance(before, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{path}.{key}"
            else:
                yield from _lost(value, after[key], f"{path}.{key}")
    elif isinstance(before, list):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _lost(old, new, f"{path}[{number}]")
