"""The proxy of the API server: HTTP to a pod or a Service, streamed both ways.

https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/
"""

import http.client
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import BufferedIOBase

from workflows.simulator.core.cluster.errors import ApiError, bad_request
from workflows.simulator.core.cluster.store import Manifest
from workflows.simulator.runtime import Address

ProxyTarget = Callable[[str, str, str, int], Address | None]
"""("pods" or "services", namespace, name, port) -> where it really listens; None while nothing does."""

ANSWER_SECONDS = 600.0  # that the pod may be silent
BLOCK = 1 << 16
# RFC 9110 7.6.1: these speak about one connection only. Authorization is for the API server, never for the pod.
_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade", "host", "authorization"),
    }
)


def split_name(text: str) -> tuple[str, str]:
    """`[scheme:]name[:port]` as name and port; the port may be empty or a name."""
    parts = text.split(":")
    if len(parts) > 2:  # noqa: PLR2004  # scheme, name, port
        parts = parts[1:]
    return parts[0], parts[1] if len(parts) > 1 else ""


def port_number(kind: str, content: Manifest, port: str) -> int:
    """The port as a number: as given, by its name, or the first there is. Raises ApiError 503 if there is none."""
    if port.isdigit():
        return int(port)
    if kind == "services":
        ports = {one.get("name", ""): int(one["port"]) for one in content["spec"].get("ports") or []}
    else:
        containers = content["spec"]["containers"]
        ports = {
            one.get("name", ""): int(one["containerPort"])
            for container in containers
            for one in container.get("ports") or []
        }
    if port and port not in ports:
        name = content["metadata"]["name"]
        raise ApiError(503, "ServiceUnavailable", f'no service port "{port}" found for service "{name}"')
    if not ports:
        raise bad_request(f"a port is required for {kind} {content['metadata']['name']}")
    return ports[port] if port else next(iter(ports.values()))


@contextmanager
def forward(
    address: Address, method: str, path: str, headers: list[tuple[str, str]], body: Iterator[bytes] | None
) -> Iterator[http.client.HTTPResponse]:
    """Send the request on. Raises ApiError 503 if the other side does not answer."""
    with closing(http.client.HTTPConnection(*address, timeout=ANSWER_SECONDS)) as connection:
        kept = {name: value for name, value in headers if name.lower() not in _HOP_BY_HOP}
        # Without a length the body goes on as it came: in chunks.
        chunked = body is not None and "content-length" not in {name.lower() for name in kept}
        try:
            connection.request(method, path, body=body, headers=kept, encode_chunked=chunked)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: {error}") from error
        with response:
            yield response


def end_to_end(response: http.client.HTTPResponse) -> list[tuple[str, str]]:
    return [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]


def blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Bytes as soon as they arrive, so that a stream of tokens stays a stream."""
    while block := response.read1(BLOCK):
        yield block


def counted(stream: BufferedIOBase, length: int) -> Iterator[bytes]:
    while length > 0 and (block := stream.read(min(length, BLOCK))):
        length -= len(block)
        yield block
