"""The HTTP side of the embedded Kubernetes API."""

import json
from pathlib import Path

from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.core.cluster.writes import Writes
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.api_handler import ApiHandler
from workflows.simulator.http.api_proxy import ProxyTarget
from workflows.simulator.http.api_serving import Denied, PodLog, Served
from workflows.simulator.http.server import LOOPBACK, LoopbackServer

_LAST_WORDS = 10.0  # seconds that all watches together have to say that they end


def _nothing_listens(_kind: str, _namespace: str, _name: str, _port: int) -> None:
    return None


def _everything_allowed(_verb: str, _resource: str, _namespace: str, _name: str) -> bool:
    return False


def _no_log(_namespace: str, _pod: str, _container: str, _previous: bool) -> None:
    return None


class ApiServer:
    """Serves a store on loopback, from `start` to `stop`."""

    def __init__(  # noqa: PLR0913  # keywords: one for each thing that a rehearsal varies
        self,
        store: ClusterStore,
        *,
        port: int = 0,
        host: str = LOOPBACK,
        proxy_target: ProxyTarget = _nothing_listens,
        denied: Denied = _everything_allowed,
        pod_log: PodLog = _no_log,
        faults: RequestFaults | None = None,
        token: str = "",
        reviewed: Denied | None = None,
    ) -> None:
        """With `token`, clients without it get 401. `reviewed` answers access reviews where they differ from `denied`.

        Raises PortInUseError.
        """
        self._served = Served(
            store, Writes(store), proxy_target, denied, pod_log, faults or RequestFaults(), token, reviewed
        )
        handler = type("BoundApiHandler", (ApiHandler,), {"served": self._served})
        self._server = LoopbackServer(handler, port, host)

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        """Stop answering; watches end in good order, but for those whose client does not read."""
        self._served.stopping.set()
        self._served.store.log.wake()
        self._served.watches.are_over(_LAST_WORDS)
        self._server.stop()

    def write_kubeconfig(self, path: Path) -> None:
        """A kubeconfig that leads here, complete or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        name = "slipway-embedded"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url}}],
            "users": [{"name": name, "user": {"token": self._served.token} if self._served.token else {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        }
        draft = path.with_name(path.name + ".draft")
        draft.write_text(json.dumps(config, indent=2), encoding="utf-8")
        draft.replace(path)
