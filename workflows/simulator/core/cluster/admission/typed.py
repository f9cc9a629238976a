"""Built-in kinds against their types, as the official client knows them from the OpenAPI document of Kubernetes.

https://github.com/kubernetes-client/python, generated from `api/openapi-spec/swagger.json`
"""

import base64
import binascii
import functools
import importlib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from workflows.simulator.core.cluster.errors import ApiError, Cause, bad_request, required
from workflows.simulator.core.cluster.manifests import Manifest
from workflows.simulator.core.cluster.resources import EVENTS, SECRETS, Resource


def known_fields(resource: Resource, content: Manifest) -> Manifest:
    """`content` without unknown fields. Raises ApiError 400 for wrong types."""
    errors = _errors(resource, content)
    for error in errors:
        if error["type"] == "extra_forbidden":
            _remove(content, error["loc"])
    wrong = next((error for error in errors if error["type"] not in ("extra_forbidden", "missing")), None)
    if wrong:
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"{_spelled(wrong)}: {wrong['msg']}"
        )
    if resource == SECRETS:
        _check_base64(content.get("data") or {})
    return content


def refuse_unknown(resource: Resource, patch: Manifest) -> None:
    """Server-side apply is stricter: raises ApiError 500 for an unknown field or a wrong type, as real servers do."""
    for error in _errors(resource, patch):
        if error["type"] == "extra_forbidden":
            raise untyped(f"{_spelled(error)}: field not declared in schema")
        if error["type"] != "missing":
            raise untyped(f"{_spelled(error)}: {error['msg']}")


def untyped(why: str) -> ApiError:
    return ApiError(500, "", f"failed to create typed patch object: {why}")


def missing(resource: Resource, content: Manifest) -> Iterator[Cause]:
    """Fields that the kind requires and `content` lacks."""
    for error in _errors(resource, content):
        if error["type"] == "missing":
            yield required(_spelled(error).lstrip("."))


def _errors(resource: Resource, content: Manifest) -> list[ErrorDetails]:
    try:
        _model(resource).model_validate(content)
    except ValidationError as error:
        return [one for one in error.errors(include_url=False) if not _is_lenient(one)]
    return []


@functools.cache
def _model(resource: Resource) -> type[BaseModel]:
    name = "CoreV1Event" if resource == EVENTS else f"V1{resource.kind}"
    found: type[BaseModel] = getattr(importlib.import_module("kubernetes.client"), name)
    return found


def _is_lenient(error: ErrorDetails) -> bool:
    """Quantities may be numbers for the server; null is absence."""
    number = isinstance(error["input"], int | float) and not isinstance(error["input"], bool)
    quantity = error["type"] == "string_type" and {"limits", "requests", "capacity", "allocatable"} & set(error["loc"])
    return (number and bool(quantity)) or (error["input"] is None and error["type"] != "missing")


def _check_base64(data: dict[str, Any]) -> None:
    try:
        for value in data.values():
            base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise bad_request(
            'Secret in version "v1" cannot be handled as a Secret: v1.Secret.Data: decode base64: illegal base64 data'
        ) from error


def _remove(content: Any, location: tuple[int | str, ...]) -> None:
    *parents, last = location
    for key in parents:
        content = content[key]
    content.pop(last, None)


def _spelled(error: ErrorDetails) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
