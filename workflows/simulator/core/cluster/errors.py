"""Refusals of the API server, in the words and reasons of Kubernetes.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/ and
https://github.com/kubernetes/apimachinery/blob/master/pkg/api/errors/errors.go
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workflows.simulator.core.cluster.resources import Resource


class ApiError(Exception):
    """A request that is refused; `body` is the `Status` object of the response."""

    def __init__(self, status: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}

    def body(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.status,
        }
        return {key: value for key, value in status.items() if value or key == "metadata"}


@dataclass(frozen=True)
class Cause:
    """One field that is wrong. `reason` is FieldValueInvalid, FieldValueRequired, FieldValueForbidden ..."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def required(field: str, message: str = "") -> Cause:
    return Cause(field, "Required value" + (f": {message}" if message else ""), "FieldValueRequired")


def invalid_value(field: str, found: str, message: str) -> Cause:
    return Cause(field, f"Invalid value: {found}: {message}")


def forbidden_value(field: str, message: str) -> Cause:
    return Cause(field, f"Forbidden: {message}", "FieldValueForbidden")


def unsupported(field: str, found: str, allowed: Sequence[str]) -> Cause:
    choices = ", ".join(f'"{choice}"' for choice in allowed)
    return Cause(field, f'Unsupported value: "{found}": supported values: {choices}', "FieldValueNotSupported")


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', _details(resource, name))


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(resource, name))


def stale(resource: Resource, name: str) -> ApiError:
    return conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    named = f' "{name}"' if name else ""
    return ApiError(403, "Forbidden", f"{resource.qualified}{named} is forbidden: {why}", _details(resource, name))


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> ApiError:
    text = str(causes[0]) if len(causes) == 1 else f"[{', '.join(str(cause) for cause in causes)}]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    details: dict[str, Any] = {"name": name, "group": resource.group, "kind": resource.kind}
    details["causes"] = [{"reason": one.reason, "message": one.message, "field": one.field} for one in causes]
    return ApiError(
        422, "Invalid", f'{kind} "{name}" is invalid: {text}', {key: value for key, value in details.items() if value}
    )


def _details(resource: Resource, name: str) -> dict[str, Any]:
    details = {"name": name, "group": resource.group, "kind": resource.plural}
    return {key: value for key, value in details.items() if value}
