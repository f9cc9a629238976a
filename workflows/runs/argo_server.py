"""Argo Server's REST API: JSON over HTTP with a bearer token.

https://argo-workflows.readthedocs.io/en/latest/swagger/
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import requests

from steps.errors import Blocked, StepError, TransientError
from steps.kinds import FIELD_MANAGER, Manifest
from steps.reconcile.retry_policy import RetryPolicy

TIMEOUT = (5.0, 30.0)  # seconds to connect, and between two reads
RETRIES = RetryPolicy(attempts=6, longest_pause=4.0)
PAGE = 100  # runs in one answer


class ArgoServer:
    def __init__(self, url: str, token: str, *, verify: bool = True) -> None:
        """`token` may begin with `Bearer ` or `Basic `, as in the ARGO_TOKEN of Argo's command line."""
        self._url = url.rstrip("/")
        self._session = requests.Session()
        self._session.headers["User-Agent"] = FIELD_MANAGER
        if not verify:
            self._session.verify = False
        if token:
            scheme = "" if token.startswith(("Bearer ", "Basic ")) else "Bearer "
            self._session.headers["Authorization"] = f"{scheme}{token.strip()}"

    def get(self, path: str) -> Manifest | None:
        """None if the object does not exist."""
        return self._request("GET", path, absent=(HTTPStatus.NOT_FOUND,))

    def list(self, path: str) -> list[Manifest]:
        items: list[Manifest] = []
        more: str | None = None
        while more != "":
            query = {"listOptions.limit": str(PAGE), **({"listOptions.continue": more} if more else {})}
            page = self._request("GET", path, query=query) or {}
            items += page.get("items") or ()
            more = (page.get("metadata") or {}).get("continue", "")
        return items

    def create(self, path: str, content: Mapping[str, Any]) -> bool:
        """False if an object of that name exists, also from an attempt without an answer."""
        return self._request("POST", path, content, absent=(HTTPStatus.CONFLICT,)) is not None

    def _request(
        self,
        method: str,
        path: str,
        content: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        absent: tuple[HTTPStatus, ...] = (),
    ) -> Manifest | None:
        answer = RETRIES.run(lambda: self._once(method, path, content, query))
        found = _json(answer)
        if answer.ok and found is not None:
            return found
        if (answer.status_code in absent and found is not None) or _exists_already(found, absent):
            return None
        raise _refusal(method, path, answer, found)

    def _once(
        self, method: str, path: str, content: Mapping[str, Any] | None, query: Mapping[str, str] | None
    ) -> requests.Response:
        try:
            answer = self._session.request(method, self._url + path, params=query, json=content, timeout=TIMEOUT)
        except requests.exceptions.SSLError as error:
            raise Blocked(
                f"cannot speak TLS with Argo Server at {self._url}: {error}",
                "name a file with its certificate authority in REQUESTS_CA_BUNDLE, or use http (ARGO_SECURE=false)",
            ) from error
        except _NO_ADDRESS as error:
            raise Blocked(
                f"no address of an Argo Server: {self._url!r}", "such as https://argo.example:2746"
            ) from error
        except requests.RequestException as error:
            raise _no_answer(method, path, str(error)) from error
        if answer.status_code in _AGAIN or (answer.ok and _json(answer) is None):
            raise _no_answer(method, path, f"HTTP {answer.status_code}: {answer.text[:200]}")
        return answer


_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)
_AGAIN = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
# The error of an expression of `workflows.argo.events` that refuses a payload; Argo Server answers it with 500.
_REFUSED_PAYLOAD = re.compile(r"invalid operation: int\((.*?)\)(?: \(\d+:\d+\)|\]?$)", re.DOTALL)


def _json(answer: requests.Response) -> dict[str, Any] | None:
    try:
        found = answer.json()
    except requests.exceptions.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _exists_already(found: Mapping[str, Any] | None, absent: tuple[HTTPStatus, ...]) -> bool:
    """The answer to a failed event is 500 with the errors of all bindings that failed."""
    return HTTPStatus.CONFLICT in absent and "already exists" in str((found or {}).get("message", ""))


def _no_answer(method: str, path: str, reason: str) -> TransientError:
    return TransientError(f"no answer from Argo Server to {method} {path}: {reason}", "run it again")


def _refusal(method: str, path: str, answer: requests.Response, found: Mapping[str, Any] | None) -> StepError:
    status = answer.status_code
    message = str((found or {}).get("message") or answer.text[:300] or "no message").strip()
    sentence = _REFUSED_PAYLOAD.search(message)
    if sentence:
        return Blocked(f"the event binding refuses the payload: {sentence[1]}", "correct the payload and send it again")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _no_answer(method, path, f"HTTP {status}: {message}")
    hint = {
        401: "put a valid token into ARGO_TOKEN (kubectl create token slipway-ci-SERVICE -n NAMESPACE --duration=1h)",
        403: "grant it to the account of the token (docs/permissions.md, account slipway-ci-SERVICE)",
        404: "check --argo-server and --namespace",
    }.get(status, "read the message; the template may be for another version of Argo")
    return Blocked(f"Argo Server refuses {method} {path}: HTTP {status}: {message}", hint)
