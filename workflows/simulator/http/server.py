"""The HTTP/1.1 server of every embedded service: Werkzeug's requests and responses, one thread for each connection.

Werkzeug's own handler closes a connection after one response. The clients of hub, bucket and API server keep theirs.
"""

import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from werkzeug import Request, Response
from werkzeug.exceptions import ClientDisconnected, HTTPException
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

LOOPBACK = "127.0.0.1"
App = Callable[[Request], Response]
_SO_MAX_PACING_RATE = 47  # of Linux alone; https://man7.org/linux/man-pages/man8/tc-fq.8.html
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class PortInUseError(Exception):
    """Another program listens on the port, or this machine has no such address."""


class HangUp(Exception):  # it ends a connection as planned
    """Ends the connection before a response, or in the middle of its body; with `reset`, as a crash does."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self.reset = reset


def text(body: str | bytes, status: int = 200, content_type: str = "text/plain", **headers: str) -> Response:
    """Underscores in the names of `headers` become dashes."""
    return Response(
        body, status, {name.replace("_", "-"): value for name, value in headers.items()}, None, content_type
    )


def json_reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, dict(headers or {}), None, "application/json")


def target_of(request: Request) -> str:
    """Path and query as the client sent them."""
    return str(request.environ["RAW_URI"])


def connection_of(request: Request) -> socket.socket:
    found: socket.socket = request.environ["werkzeug.socket"]
    return found


class _Connection(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # status line and headers leave in one segment
    disable_nagle_algorithm = True
    timeout = 120  # seconds an idle connection may stay open
    server: "_Threads"

    def run_wsgi(self) -> None:
        request = Request(self.make_environ(), populate_request=False)  # which would make a cycle with its socket
        try:
            try:
                response = self.server.service(request)
            except HTTPException as error:
                if isinstance(error, ClientDisconnected):
                    raise
                response = Response.from_app(error.get_response(), request.environ)
            self._send(request, response)
            self._drain(request)
        except (HangUp, ClientDisconnected) as end:
            self.close_connection = True
            if isinstance(end, HangUp) and end.reset:
                self._reset()

    def finish(self) -> None:
        """Close both streams, also of a client that closed its connection before the last byte was written."""
        with suppress(OSError):
            super().finish()
        self.rfile.close()

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  # the signature of Werkzeug
        """The output of a rehearsal belongs to the steps."""

    def _send(self, request: Request, response: Response) -> None:
        blocks, status, headers = response.get_wsgi_response(request.environ)
        code, _, phrase = status.partition(" ")
        names = {name.lower() for name, _ in headers}
        chunked = "content-length" not in names and request.method != "HEAD" and int(code) not in _BODILESS
        self.send_response_only(int(code), phrase)
        for name, value in headers:
            self.send_header(name, value)
        if "date" not in names:
            self.send_header("Date", self.date_time_string())
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for block in blocks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if chunked and block else block)
                self.wfile.flush()
            if chunked:
                self.end_chunks()
            self.wfile.flush()
        finally:
            response.close()

    def end_chunks(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def _drain(self, request: Request) -> None:
        """The rest of an unread body would be taken for the next request."""
        while request.stream.read(1 << 20):
            pass

    def _reset(self) -> None:
        """Close without an orderly end; bytes on their way are lost."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.wfile.close()
        self.connection.close()


class _Threads(ThreadedWSGIServer):
    def __init__(self, host: str, port: int, service: App) -> None:
        self.service = service
        self._open: set[socket.socket] = set()
        with socket.create_server((host, port), backlog=128) as listener:
            super().__init__(host, port, _no_wsgi, _Connection, fd=listener.fileno())

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that closes its connection in the middle is part of a rehearsal."""

    def close_connections(self) -> None:
        for request in list(self._open):
            self.shutdown_request(request)


def _no_wsgi(_environ: Any, _start: Any) -> Any:
    raise NotImplementedError("connections call `service`")


class LoopbackServer:
    """Serves `service` from `start` to `stop`; port 0 takes any free one.

    Another `host` is an address of this machine that containers and pods reach, too. `rate` limits each connection in
    the kernel, in bytes a second; 0 is no limit. Raises PortInUseError.
    """

    def __init__(self, service: App, port: int = 0, host: str = LOOPBACK, *, rate: int = 0) -> None:
        self._host = host
        try:
            self._server = _Threads(host, port, service)
        except OSError as error:
            raise PortInUseError(
                f"cannot listen on {host}:{port}: {error.strerror}. Next: stop the program that uses the port, "
                "or choose another port; the host must be an address of this machine"
            ) from error
        if rate:  # connections inherit it from the socket that accepts them
            self._server.socket.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, rate)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        return self._server.port

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
