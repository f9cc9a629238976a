"""The proxy of the API server: HTTP to a pod or a Service, streamed both ways.

https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/
"""

import http.client
from collections.abc import Callable

from werkzeug import Request, Response

from workflows.simulator.core.cluster.errors import ApiError, bad_request
from workflows.simulator.core.cluster.manifests import Manifest
from workflows.simulator.http.server import target_of
from workflows.simulator.runtime import Address

ProxyTarget = Callable[[str, str, str, int], Address | None]
"""("pods" or "services", namespace, name, port) -> real address; None while the port is closed."""

ANSWER_SECONDS = 600.0  # silence of the pod
BLOCK = 1 << 16
# RFC 9110 7.6.1: these describe one connection only. Authorization is for the API server, never for the pod.
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
    """The port as a number: as given, by its name, or the first port. Raises ApiError 503 for an unknown name."""
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


def forward(address: Address, request: Request) -> Response:
    """The response of the server at `address`, block by block. Raises ApiError 503 if it does not answer."""
    path, _, query = target_of(request).partition("?")
    path = (path.partition("/proxy")[2] or "/") + (f"?{query}" if query else "")
    connection = http.client.HTTPConnection(*address, timeout=ANSWER_SECONDS)
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
    chunked = "chunked" in request.headers.get("Transfer-Encoding", "")
    body = iter(lambda: request.stream.read(BLOCK), b"") if chunked or request.content_length else None
    try:
        connection.request(request.method, path, body=body, headers=headers, encode_chunked=chunked)
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: {error}") from error
    kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP]
    # Blocks as soon as they arrive, so that a stream of tokens stays a stream.
    response = Response(iter(lambda: answer.read1(BLOCK), b""), answer.status, kept)
    response.call_on_close(connection.close)
    return response
