"""How embedded servers call each other: by the names and ports of the cluster, through `Dial`."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from workflows.simulator.runtime import Dial


class UnreachableError(Exception):
    """No such name, nobody listens, or the connection broke."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]  # lower-case names
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Caller:
    """Calls servers of the cluster. Times are seconds."""

    dial: Dial
    timeout: float = 30.0

    def get(self, url: str) -> Reply:
        with self.open("GET", url) as response:
            return _read(response)

    def post(self, url: str, body: Any, timeout: float) -> Reply:
        with self.open("POST", url, json.dumps(body).encode(), timeout) as response:
            return _read(response)

    @contextmanager
    def open(
        self, method: str, url: str, body: bytes | None = None, timeout: float | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """The response before its body is read. Raises UnreachableError."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            host, port = self.dial(parts.hostname or "", parts.port or 80)
        except (LookupError, OSError) as error:
            raise UnreachableError(f"error sending request for url ({url}): {error}") from error
        connection = http.client.HTTPConnection(host, port, timeout=timeout or self.timeout)
        try:
            connection.request(method, target, body, {"Content-Type": "application/json"} if body else {})
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"error sending request for url ({url}): {error}") from error
        finally:
            connection.close()


def _read(response: http.client.HTTPResponse) -> Reply:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, response.read())
