"""An embedded ModelScope hub. It serves models from plain folders, `folder/<owner>/<name>/`: edit a file there, and
the next listing shows another revision of the model.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from workflows.simulator.core.hub.links import Links
from workflows.simulator.core.hub.repository import Repositories
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.hub_bodies import BodyHandler
from workflows.simulator.http.hub_cdn import Blobs, CdnHandler
from workflows.simulator.http.hub_gateway import GatewayHandler
from workflows.simulator.http.server import LOOPBACK, LoopbackServer

InternalLink = Literal["serves", "refuses", "crawls", "unreachable", "absent"]
REMEMBERED: Final = 20_000  # requests


@dataclass(frozen=True)
class RecordedRequest:
    """A request that the hub or its CDN got."""

    method: str
    target: str  # path and query
    headers: Mapping[str, str]
    client_port: int  # the same for all requests of one connection

    def __str__(self) -> str:
        return f"{self.method} {self.target}"


class Hub:
    """Gateway and CDN on two ports, as they are two hosts in the real service.

    `private` maps models to the token that may read them. `link_seconds` is the life of a link. A client that names its
    region gets an internal link, which behaves as `internal_link` says. `rate` is what one connection to the CDN gets,
    in bytes a second; 0 means as much as it can.
    """

    def __init__(  # noqa: PLR0913  # keywords: one for each thing that a rehearsal varies
        self,
        folder: Path,
        *,
        port: int = 0,
        host: str = LOOPBACK,
        faults: RequestFaults | None = None,
        private: Mapping[str, str] | None = None,
        link_seconds: float = 1800.0,
        internal_link: InternalLink = "serves",
        rate: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.requests: deque[RecordedRequest] = deque(maxlen=REMEMBERED)
        self._stopping = threading.Event()
        repositories = Repositories(folder)
        shared: dict[str, Any] = {
            "faults": faults or RequestFaults(),
            "stopping": self._stopping,
            "blobs": Blobs(repositories, Links(link_seconds, clock)),
            "internal_link": internal_link,
        }
        gateway = self._bound(GatewayHandler, shared | {"repositories": repositories, "private": private or {}})
        self._gateway = LoopbackServer(gateway, port, host)  # first, because its port may be in use
        self._cdn = LoopbackServer(self._bound(CdnHandler, shared), host=host, rate=rate)
        # A port that is taken but not listened on: whoever connects is refused, and nobody else can get it.
        self._closed = socket.socket()
        self._closed.bind((host, 0))
        gateway.cdn_url = self._cdn.url
        gateway.unreachable_url = f"http://{host}:{self._closed.getsockname()[1]}"

    @property
    def url(self) -> str:
        return self._gateway.url

    @property
    def cdn_url(self) -> str:
        return self._cdn.url

    def start(self) -> None:
        self._cdn.start()
        self._gateway.start()

    def stop(self) -> None:
        self._stopping.set()
        self._gateway.stop()
        self._cdn.stop()
        self._closed.close()

    def received(self, part: str) -> list[RecordedRequest]:
        """The requests so far whose method and target contain `part`."""
        return [request for request in list(self.requests) if part in str(request)]

    def _bound(self, handler: type[BodyHandler], attributes: Mapping[str, Any]) -> Any:
        requests = self.requests

        class Bound(handler):  # type: ignore[valid-type,misc]  # http.server makes a handler for each connection itself
            def parse_request(self) -> bool:
                parsed = super().parse_request()
                if parsed:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    requests.append(RecordedRequest(self.command, self.path, headers, self.client_address[1]))
                return bool(parsed)

        for name, value in attributes.items():
            setattr(Bound, name, value)
        return Bound
