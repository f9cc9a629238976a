"""Shows a Service of the embedded cluster on a port of this machine, as `kubectl port-forward` does."""

import selectors
import socket
import socketserver
import threading
from collections.abc import Callable

from workflows.simulator.http.server import PortInUseError
from workflows.simulator.runtime import Address

_CHUNK = 1 << 16
_DIAL_SECONDS = 5.0


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


class Forward:
    """Listens on loopback from construction to `stop`; each connection goes to where `target` points then."""

    def __init__(self, target: Callable[[], Address | None], port: int = 0) -> None:
        """Raises PortInUseError."""

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                address = target()
                if address is not None:
                    _join(self.request, address)

        try:
            self._server = _Server(("127.0.0.1", port), Handler)
        except OSError as error:
            raise PortInUseError(
                f"cannot listen on 127.0.0.1:{port}: {error.strerror}. Next: stop the program that uses the port, "
                "or choose another port"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def address(self) -> Address:
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _join(client: socket.socket, address: Address) -> None:
    """Carry bytes both ways until both sides have closed."""
    try:
        with socket.create_connection(address, _DIAL_SECONDS) as server, selectors.DefaultSelector() as selector:
            server.settimeout(None)
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while selector.get_map():
                for key, _ in selector.select():
                    _carry(selector, key)
    except OSError:
        # Either side hung up; the other sees its connection closed, as through a real proxy.
        return


def _carry(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    source, sink = key.fileobj, key.data
    assert isinstance(source, socket.socket)
    content = source.recv(_CHUNK)
    if content:
        sink.sendall(content)
        return
    selector.unregister(source)
    sink.shutdown(socket.SHUT_WR)
