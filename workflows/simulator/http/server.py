"""What the embedded services share: an HTTP/1.1 server, on loopback unless told otherwise, in threads."""

import json
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOOPBACK = "127.0.0.1"
_SO_MAX_PACING_RATE = 47  # of Linux alone; https://man7.org/linux/man-pages/man8/tc-fq.8.html


class PortInUseError(Exception):
    """Another program listens on the port that was asked for, or this machine has no such address."""


class Handler(BaseHTTPRequestHandler):
    """One request; subclasses add do_GET and its siblings. Connections are kept alive."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # status line and headers leave in one segment
    disable_nagle_algorithm = True
    timeout = 120  # seconds an idle connection may stay open

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the signature of http.server
        """Say nothing: a rehearsal's output belongs to the steps."""

    def read_body(self) -> bytes:
        """The whole request body, also if it is chunked."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send_body(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        self.send_body(status, json.dumps(content).encode(), "application/json", headers)

    def _chunks(self) -> list[bytes]:
        chunks = []
        while length := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return chunks


class _Threads(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is what a rehearsal is for."""

    def close_connections(self) -> None:
        for request in list(self._open):
            self.shutdown_request(request)


class LoopbackServer:
    """Serves `handler` from `start` to `stop`; port 0 takes any free one.

    Another `host` is an address of this machine that containers and pods reach, too. `rate` is what the kernel lets
    through each connection, in bytes a second; 0 means as much as it can.
    """

    def __init__(
        self, handler: type[BaseHTTPRequestHandler], port: int = 0, host: str = LOOPBACK, *, rate: int = 0
    ) -> None:
        self._host = host
        try:
            self._server = _Threads((host, port), handler)
        except OSError as error:
            raise PortInUseError(
                f"cannot listen on {host}:{port}: {error.strerror}. Next: stop the program that uses the port, "
                "or choose another port; the host must be an address of this machine"
            ) from error
        if rate:  # connections have it from the socket that accepts them
            self._server.socket.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, rate)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, and drop the connections that are still open."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.close_connections()
        self._server.server_close()
