"""Two routes to a server inside the cluster: direct, or through the proxy of the API server."""

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from steps.adapters.kubernetes.access import ApiAccess
from steps.ports.sglang import Server


class Route(Protocol):
    """The URL and the settings of an HTTP client for a server."""

    @property
    def verify(self) -> bool | str: ...

    @property
    def cert(self) -> tuple[str, str] | None: ...

    @property
    def headers(self) -> dict[str, str]: ...

    def url(self, server: Server, path: str) -> str: ...


@dataclass(frozen=True)
class DirectRoute:
    """Pod IP or Service DNS name, from a pod of the same cluster."""

    verify: bool | str = True
    cert: tuple[str, str] | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {}

    def url(self, server: Server, path: str) -> str:
        host = f"[{server.host}]" if ":" in server.host else server.host
        return f"http://{host}:{server.port}{path}"


@dataclass(frozen=True)
class ApiServerRoute:
    """The proxy of the API server, with a kubeconfig and permissions on pods/proxy and services/proxy.

    https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/#manually-constructing-apiserver-proxy-urls
    """

    access: ApiAccess

    @property
    def verify(self) -> bool | str:
        return self.access.verify

    @property
    def cert(self) -> tuple[str, str] | None:
        return self.access.cert

    @property
    def headers(self) -> dict[str, str]:
        return self.access.headers

    def url(self, server: Server, path: str) -> str:
        namespace, name = quote(server.namespace), quote(server.name)
        return f"{self.access.url}/api/v1/namespaces/{namespace}/{server.kind}/{name}:{server.port}/proxy{path}"
