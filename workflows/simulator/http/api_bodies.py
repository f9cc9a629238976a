"""Answers that are no single JSON object: watches, logs, and whatever a proxied server says."""

import http.client
import json
import select
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

from workflows.simulator.core.cluster.errors import ApiError, bad_request, not_found
from workflows.simulator.core.cluster.store import Manifest
from workflows.simulator.core.cluster.targets import Target
from workflows.simulator.http import api_proxy
from workflows.simulator.http.api_serving import Served
from workflows.simulator.http.server import Handler


class BodyHandler(Handler):
    """One request; `query` and `body` are read before anything is answered."""

    served: ClassVar[Served]
    query: dict[str, str]
    body: bytes

    def stream_json(self, lines: Iterable[Mapping[str, Any] | None]) -> None:
        """One JSON object a line, each as soon as it is there; ends early if the client hangs up."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for line in lines:
            if line is not None:
                self._chunk(json.dumps(line, separators=(",", ":")).encode() + b"\n")
            elif self._is_alone():
                self.close_connection = True
                return
        self._last_chunk()

    def pod_log(self, target: Target) -> None:
        pod = self._living(target)
        name = self._container(pod)
        previous = self.query.get("previous") in ("1", "true", "True")
        text = self.served.pod_log(target.namespace, target.name, name, previous)
        if text is None:
            raise bad_request(
                f'previous terminated container "{name}" in pod "{target.name}" not found'
                if previous
                else f'container "{name}" in pod "{target.name}" is waiting to start: ContainerCreating'
            )
        if "tailLines" in self.query:
            wanted = int(self.query["tailLines"])
            text = "".join(text.splitlines(keepends=True)[-wanted:]) if wanted else ""
        self.send_body(200, text.encode(), "text/plain")

    def proxy(self, target: Target) -> None:
        kind = target.resource.plural
        name, port = api_proxy.split_name(target.name)
        content = self._living(Target(target.resource, target.namespace, name))
        number = api_proxy.port_number(kind, content, port)
        address = self.served.proxy_target(kind, target.namespace, name, number)
        if address is None:
            raise ApiError(503, "ServiceUnavailable", f'no endpoints available for {kind[:-1]} "{name}" port {number}')
        parts = urlsplit(self.path)
        path = (parts.path.partition("/proxy")[2] or "/") + (f"?{parts.query}" if parts.query else "")
        with api_proxy.forward(address, self.command, path, list(self.headers.items()), self._sent()) as response:
            self._relay(response)

    def _relay(self, response: http.client.HTTPResponse) -> None:
        headers = api_proxy.end_to_end(response)
        bodiless = self.command == "HEAD" or response.status in (204, 304)
        sized = bodiless or any(name.lower() == "content-length" for name, _ in headers)
        self.send_response_only(response.status, response.reason)
        for name, value in headers:
            self.send_header(name, value)
        if not sized:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for block in api_proxy.blocks(response):
            if sized:
                self.wfile.write(block)
                self.wfile.flush()
            else:
                self._chunk(block)
        if not sized:
            self._last_chunk()

    def _sent(self) -> Iterator[bytes] | None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return iter([self.read_body()])
        length = int(self.headers.get("Content-Length") or 0)
        return api_proxy.counted(self.rfile, length) if length else None

    def _living(self, target: Target) -> Manifest:
        live = self.served.store.get(target.resource, target.name, target.namespace)
        if live is None:
            raise not_found(target.resource, target.name)
        return live

    def _container(self, pod: Manifest) -> str:
        names = [one["name"] for kind in ("initContainers", "containers") for one in pod["spec"].get(kind) or []]
        main = [one["name"] for one in pod["spec"]["containers"]]
        wanted = self.query.get("container", "")
        name = pod["metadata"]["name"]
        if wanted and wanted not in names:
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        if not wanted and len(main) > 1:
            raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{' '.join(main)}]")
        return wanted or str(main[0])

    def _chunk(self, block: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
        self.wfile.flush()

    def _last_chunk(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _is_alone(self) -> bool:
        """Whether the client hung up while nothing was to be said."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
