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
        """`token` may begin with `Bearer ` or `Basic `, as the Argo command line wants it in ARGO_TOKEN."""
        self._url = url.rstrip("/")
        self._session = requests.Session()
        self._session.headers["User-Agent"] = FIELD_MANAGER
        if not verify:
            self._session.verify = False
        if token:
            scheme = "" if token.startswith(("Bearer ", "Basic ")) else "Bearer "
            self._session.headers["Authorization"] = f"{scheme}{token.strip()}"

    def get(self, path: str) -> Manifest | None:
        """None if there is no such object."""
        return self._ask("GET", path, absent=(HTTPStatus.NOT_FOUND,))

    def list(self, path: str) -> list[Manifest]:
        items: list[Manifest] = []
        more: str | None = None
        while more != "":
            query = {"listOptions.limit": str(PAGE), **({"listOptions.continue": more} if more else {})}
            page = self._ask("GET", path, query=query) or {}
            items += page.get("items") or ()
            more = (page.get("metadata") or {}).get("continue", "")
        return items

    def create(self, path: str, content: Mapping[str, Any]) -> bool:
        """False if an object of that name is there already, also from an attempt whose answer was lost."""
        return self._ask("POST", path, content, absent=(HTTPStatus.CONFLICT,)) is not None

    def _ask(
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
# How an expression of `workflows.argo.events` refuses a payload; Argo Server answers it with 500.
_REFUSED_PAYLOAD = re.compile(r"invalid operation: int\((.*?)\)(?: \(\d+:\d+\)|\]?$)", re.DOTALL)


def _json(answer: requests.Response) -> dict[str, Any] | None:
    try:
        found = answer.json()
    except requests.exceptions.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _exists_already(found: Mapping[str, Any] | None, absent: tuple[HTTPStatus, ...]) -> bool:
    """What a failed event answers is 500 with the words of every binding that failed."""
    return HTTPStatus.CONFLICT in absent and "already exists" in str((found or {}).get("message", ""))


def _no_answer(method: str, path: str, what: str) -> TransientError:
    return TransientError(f"no answer from Argo Server to {method} {path}: {what}", "run it again")


def _refusal(method: str, path: str, answer: requests.Response, found: Mapping[str, Any] | None) -> StepError:
    status = answer.status_code
    words = str((found or {}).get("message") or answer.text[:300] or "no words").strip()
    sentence = _REFUSED_PAYLOAD.search(words)
    if sentence:
        return Blocked(f"the event binding refuses the payload: {sentence[1]}", "correct the payload and send it again")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _no_answer(method, path, f"HTTP {status}: {words}")
    hint = {
        401: "put a valid token into ARGO_TOKEN (kubectl create token slipway-ci-SERVICE -n NAMESPACE --duration=1h)",
        403: "grant it to the account of the token (docs/permissions.md, account slipway-ci-SERVICE)",
        404: "check --argo-server and --namespace",
    }.get(status, "read its words; the template may be of another Argo")
    return Blocked(f"Argo Server refuses {method} {path}: HTTP {status}: {words}", hint)
