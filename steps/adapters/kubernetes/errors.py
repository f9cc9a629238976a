"""Errors of the API server, as errors of a step.

Reasons: https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/types.go (StatusReason)
"""

import json
import re
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from kubernetes.client import ApiException

from steps.errors import Blocked, StepError, TransientError


@dataclass(frozen=True)
class ApiRequest:
    """A request in the words of RBAC."""

    verb: str
    resource: str  # `plural.group`, or a path
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        name = f" {self.name}" if self.name else ""
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{name}{where}"


def body_of(error: ApiException) -> dict[str, Any]:
    """The `Status` object of a refusal; empty if a proxy or a plain-text handler answered."""
    try:
        found = json.loads(error.body or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def is_absent(request: ApiRequest, error: ApiException) -> bool:
    """Whether the API server reports that exactly this object does not exist."""
    body = body_of(error)
    details = body.get("details") or {}
    plural = request.resource.partition(".")[0].partition("/")[0]
    return body.get("reason") == "NotFound" and (details.get("kind"), details.get("name")) == (plural, request.name)


def is_no_log(request: ApiRequest, error: ApiException) -> bool:
    """The pod is gone, its container has not started, or there was no container before this one."""
    return is_absent(request, error) or error.status == HTTPStatus.BAD_REQUEST


def is_not_served(error: ApiException) -> bool:
    """For the kinds of one group and version; the API server answers in plain text for an absent one."""
    return bool(error.status == HTTPStatus.NOT_FOUND)


def is_conflict(error: ApiException) -> bool:
    return bool(error.status == HTTPStatus.CONFLICT)


def exists_already(error: ApiException) -> bool:
    return bool(body_of(error).get("reason") == "AlreadyExists")


def refusal(request: ApiRequest, error: ApiException) -> StepError:
    """The error of the step for each status that is no success."""
    status = int(error.status or 0)
    message = str(body_of(error).get("message") or error.reason or "no message").strip()
    if status in _MEANING:
        return _MEANING[status](request, message)
    if message.startswith(_UNTYPED):
        return _invalid(request, message)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return no_answer(request, f"HTTP {status}: {message}")
    return Blocked(
        f"the API server refuses to {request}: HTTP {status}: {message}", "read its message; the object may be wrong"
    )


def no_answer(request: ApiRequest, reason: str) -> TransientError:
    return TransientError(f"no answer from the API server when asked to {request}: {reason}", "run it again")


def no_json(request: ApiRequest, found: object) -> TransientError:
    return no_answer(request, f"the answer is not JSON: {str(found)[:200]!r}")


def _untrusted(_request: ApiRequest, message: str) -> Blocked:
    return Blocked(
        f"no TLS connection to the API server: {' '.join(message.split())}",
        "check certificate-authority and server in the kubeconfig",
    )


def _unknown_caller(request: ApiRequest, message: str) -> Blocked:
    return Blocked(
        f"the API server does not accept our credentials to {request}: HTTP 401: {message}",
        "renew the token or certificate of the kubeconfig, or of the service account",
    )


# An apply of an absent object needs `create` beside `patch`. Without `create`, a newer server (as 1.33) reports it; an
# older one gives no reason, or the authorizer's error about unreadable roles.
# https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/create.go, withAuthorization
_NO_REASON = re.compile(r"is forbidden:\s*(RBAC: .*)?$")
_MAY_NOT_CREATE = " cannot create resource "


def _not_allowed(request: ApiRequest, message: str) -> Blocked:
    if request.verb == "patch" and _NO_REASON.search(message):
        return _no_right(replace(request, verb="create"), f"{message} it does not exist yet, so it would be created")
    if request.verb == "patch" and _MAY_NOT_CREATE in message:
        return _no_right(replace(request, verb="create"), message)
    if " cannot " in message:
        return _no_right(request, message)
    # Not a missing permission: a quota, an admission policy, or a namespace in deletion.
    return Blocked(
        f"the cluster refuses to {request}: {message}", "the message names the rule; make room or ask its owner"
    )


def _no_right(request: ApiRequest, message: str) -> Blocked:
    return Blocked(
        f"not allowed to {request}: {message}",
        f"grant `{request.verb}` on `{request.resource}` to the account that runs the steps (docs/permissions.md)",
    )


def _missing(request: ApiRequest, message: str) -> Blocked:
    if message.startswith("namespaces "):
        return Blocked(
            f"cannot {request}: the namespace {request.namespace} does not exist",
            f"create it, or correct metadata.namespace in the document (kubectl create namespace {request.namespace})",
        )
    return Blocked(
        f"cannot {request}: not found: {message}", "check that the kind is served (kubectl api-resources) and try again"
    )


def _invalid(request: ApiRequest, message: str) -> Blocked:
    return Blocked(
        f"the API server finds the object invalid and does not {request}: {message}",
        "if a field is immutable, another object of this name exists: check it, and delete it if it is not in use",
    )


def _contradicted(request: ApiRequest, message: str) -> TransientError:
    return TransientError(f"another client changed it at the same time, cannot {request}: {message}", "run it again")


def _too_busy(request: ApiRequest, message: str) -> TransientError:
    return no_answer(request, f"it is too busy (HTTP 429): {message}")


def _expired(request: ApiRequest, message: str) -> TransientError:
    return no_answer(request, f"its answer expired while being read (HTTP 410): {message}")


# The message of server-side apply for an unknown field or a wrong type: with status 500, although no retry helps.
# staging/src/k8s.io/apimachinery/pkg/util/managedfields/internal/structuredmerge.go
_UNTYPED = "failed to create typed patch object"

_MEANING = {
    0: _untrusted,
    401: _unknown_caller,
    403: _not_allowed,
    404: _missing,
    408: _too_busy,
    409: _contradicted,
    410: _expired,
    422: _invalid,
    429: _too_busy,
}
