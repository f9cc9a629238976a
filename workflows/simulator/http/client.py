"""Calls between embedded servers over sockets: by the names and ports of the cluster, through `Dial`."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from workflows.simulator.core.engine.calls import HttpAnswer, UnreachableError
from workflows.simulator.runtime import Dial

_BLOCK = 1 << 16


@dataclass(frozen=True)
class HttpCaller:
    dial: Dial

    @contextmanager
    def ask(self, method: str, url: str, body: Any = None, timeout: float = 30.0) -> Iterator[HttpAnswer]:
        parts = urlsplit(url)
        sent = None if body is None else json.dumps(body)
        connection = None
        try:
            host, port = self.dial(parts.hostname or "", parts.port or 80)
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request(method, target, sent, {"Content-Type": "application/json"} if sent else {})
            response = connection.getresponse()
            blocks = iter(lambda: response.read1(_BLOCK), b"")
            yield HttpAnswer(response.status, response.getheader("Content-Type", ""), blocks)
        except (LookupError, OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"error sending request for url ({url}): {error}") from error
        finally:
            if connection:
                connection.close()
