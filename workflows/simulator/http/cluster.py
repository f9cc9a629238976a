"""The embedded cluster: an API server, its controllers, and pods that really serve on loopback."""

from pathlib import Path

from workflows.simulator.core.cluster.controllers.control_plane import ControlPlane
from workflows.simulator.core.cluster.controllers.operator_style import V06, OperatorStyle
from workflows.simulator.core.cluster.controllers.timing import ClusterTiming
from workflows.simulator.core.cluster.seed import Seed, plant
from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.api_server import ApiServer, Denied, nothing_denied
from workflows.simulator.http.port_forward import Forward
from workflows.simulator.http.server import LOOPBACK
from workflows.simulator.runtime import Address, ContainerRuntime


class EmbeddedCluster:
    """Serves from `start` to `stop`; its objects are kept in `folder`, and survive kill -9 at any moment."""

    def __init__(  # noqa: PLR0913  # keywords: one for each thing that a rehearsal varies
        self,
        folder: Path,
        runtime: ContainerRuntime,
        buckets: Path,
        *,
        port: int = 0,
        host: str = LOOPBACK,
        operator: OperatorStyle = V06,
        seed: Seed | None = None,
        timing: ClusterTiming | None = None,
        denied: Denied | None = None,
        faults: RequestFaults | None = None,
    ) -> None:
        """`buckets` is the state folder of the embedded bucket; `denied` decides on refusals with 403.

        Raises PortInUseError, and JournalError for a folder that another kind of program wrote.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._store = ClusterStore(folder / "objects.db")
        self._seed = seed or Seed(operator=operator)
        control_plane = ControlPlane(
            self._store, runtime, buckets, folder / "pods", timing or ClusterTiming(), self._seed.operator
        )
        self._control_plane = control_plane
        self._api = ApiServer(
            self._store,
            port=port,
            host=host,
            proxy_target=self._proxy_target,
            denied=denied or nothing_denied,
            pod_log=self._control_plane.pod_log,
            faults=faults,
        )
        self._forwards: list[Forward] = []
        self.kubeconfig = folder / "kubeconfig"

    @property
    def url(self) -> str:
        return self._api.url

    @property
    def store(self) -> ClusterStore:
        """The objects themselves, for tests behind the API."""
        return self._store

    def start(self) -> None:
        """Recover the pods that ran before, then answer. The first start makes the objects of a healthy cluster."""
        plant(self._store, self._seed)
        self._control_plane.start()
        self._api.write_kubeconfig(self.kubeconfig)
        self._api.start()

    def stop(self) -> None:
        """Stop listening and end all containers; the objects stay for the next start."""
        for forward in self._forwards:
            forward.stop()
        self._api.stop()
        self._control_plane.stop()
        self._store.close()

    def service_address(self, namespace: str, name: str, port: int) -> Address | None:
        """Where a ready pod behind a Service really listens now; None without one."""
        return self._control_plane.network.service_address(namespace, name, port)

    def expose(self, namespace: str, service: str, service_port: int, port: int = 0) -> str:
        """URL on this machine that leads to a Service, also to one that comes later. Raises PortInUseError."""

        def target() -> Address | None:
            return self.service_address(namespace, service, service_port)

        forward = Forward(target, port)
        self._forwards.append(forward)
        host, chosen = forward.address
        return f"http://{host}:{chosen}"

    def _proxy_target(self, kind: str, namespace: str, name: str, port: int) -> Address | None:
        if kind == "pods":
            return self._control_plane.network.pod_address(namespace, name, port)
        return self._control_plane.network.service_address(namespace, name, port)
