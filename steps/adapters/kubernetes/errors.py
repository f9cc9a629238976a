"""What an unwelcome answer of the API server means for a step.

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
class Attempt:
    """What was asked, in the words of RBAC."""

    verb: str
    resource: str  # `plural.group`, or a path for what is no resource
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        name = f" {self.name}" if self.name else ""
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{name}{where}"


def body_of(error: ApiException) -> dict[str, Any]:
    """The `Status` object of a refusal, or nothing if a proxy or a plain-text handler answered."""
    try:
        found = json.loads(error.body or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def is_absent(attempt: Attempt, error: ApiException) -> bool:
    """True only if the API server says that this very object does not exist."""
    body = body_of(error)
    details = body.get("details") or {}
    plural = attempt.resource.partition(".")[0].partition("/")[0]
    return body.get("reason") == "NotFound" and (details.get("kind"), details.get("name")) == (plural, attempt.name)


def is_no_log(attempt: Attempt, error: ApiException) -> bool:
    """The pod is gone, its container has not started, or there was no container before this one."""
    return is_absent(attempt, error) or error.status == HTTPStatus.BAD_REQUEST


def is_not_served(error: ApiException) -> bool:
    """For the list of kinds of one group and version; the API server answers in plain text if there is none."""
    return bool(error.status == HTTPStatus.NOT_FOUND)


def is_conflict(error: ApiException) -> bool:
    return bool(error.status == HTTPStatus.CONFLICT)


def exists_already(error: ApiException) -> bool:
    return bool(body_of(error).get("reason") == "AlreadyExists")


def refusal(attempt: Attempt, error: ApiException) -> StepError:
    """The error of the step for an answer that is no success. Total: every status has its meaning."""
    status = int(error.status or 0)
    words = str(body_of(error).get("message") or error.reason or "no words").strip()
    if status in _MEANING:
        return _MEANING[status](attempt, words)
    if words.startswith(_UNTYPED):
        return _invalid(attempt, words)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return no_answer(attempt, f"HTTP {status}: {words}")
    return Blocked(
        f"the API server refuses to {attempt}: HTTP {status}: {words}", "read its words; the object may be wrong"
    )


def no_answer(attempt: Attempt, what: str) -> TransientError:
    return TransientError(f"no answer from the API server when asked to {attempt}: {what}", "run it again")


def no_json(attempt: Attempt, found: object) -> TransientError:
    return no_answer(attempt, f"something that is not JSON came back: {str(found)[:200]!r}")


def _untrusted(_attempt: Attempt, words: str) -> Blocked:
    return Blocked(
        f"cannot speak TLS with the API server: {' '.join(words.split())}",
        "check certificate-authority and server in the kubeconfig",
    )


def _unknown_caller(attempt: Attempt, words: str) -> Blocked:
    return Blocked(
        f"the API server does not accept our credentials to {attempt}: HTTP 401: {words}",
        "renew the token or certificate of the kubeconfig, or of the service account",
    )


# An apply of what does not exist yet needs `create` beside `patch`. If that is what is missing, a newer server says it
# (as 1.33 does); an older one gives no reason, or the authorizer's complaint about roles that it could not read.
# https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/create.go, withAuthorization
_NO_REASON = re.compile(r"is forbidden:\s*(RBAC: .*)?$")
_MAY_NOT_CREATE = " cannot create resource "


def _not_allowed(attempt: Attempt, words: str) -> Blocked:
    if attempt.verb == "patch" and _NO_REASON.search(words):
        return _no_right(replace(attempt, verb="create"), f"{words} it does not exist yet, so it would be created")
    if attempt.verb == "patch" and _MAY_NOT_CREATE in words:
        return _no_right(replace(attempt, verb="create"), words)
    if " cannot " in words:
        return _no_right(attempt, words)
    # Not a matter of rights: a quota, an admission policy, or a namespace that is being deleted.
    return Blocked(f"the cluster refuses to {attempt}: {words}", "its words say which rule; make room or ask its owner")


def _no_right(attempt: Attempt, words: str) -> Blocked:
    return Blocked(
        f"not allowed to {attempt}: {words}",
        f"grant `{attempt.verb}` on `{attempt.resource}` to the account that runs the steps (docs/permissions.md)",
    )


def _missing(attempt: Attempt, words: str) -> Blocked:
    if words.startswith("namespaces "):
        return Blocked(
            f"cannot {attempt}: the namespace {attempt.namespace} does not exist",
            f"create it, or correct metadata.namespace in the document (kubectl create namespace {attempt.namespace})",
        )
    return Blocked(
        f"cannot {attempt}: not found: {words}", "check that the kind is served (kubectl api-resources) and try again"
    )


def _invalid(attempt: Attempt, words: str) -> Blocked:
    return Blocked(
        f"the API server finds the object invalid and does not {attempt}: {words}",
        "if a field is immutable, an object of this name was made otherwise: look at it, delete it if nothing uses it",
    )


def _contradicted(attempt: Attempt, words: str) -> TransientError:
    return TransientError(f"somebody else changed it at the same time, cannot {attempt}: {words}", "run it again")


def _too_busy(attempt: Attempt, words: str) -> TransientError:
    return no_answer(attempt, f"it is too busy (HTTP 429): {words}")


def _expired(attempt: Attempt, words: str) -> TransientError:
    return no_answer(attempt, f"its answer expired while being read (HTTP 410): {words}")


# What server-side apply says of a field that the kind does not have, or of a wrong type: with status 500, though no
# retry will help. staging/src/k8s.io/apimachinery/pkg/util/managedfields/internal/structuredmerge.go
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
