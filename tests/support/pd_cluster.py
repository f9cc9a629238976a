"""The pods of a PD group as a cluster shows them, and a route to them on loopback."""

from collections.abc import Mapping
from dataclasses import dataclass

from steps.adapters.sglang.routes import DirectRoute
from steps.kinds import Kind, Manifest, Ref
from steps.objects.pod_template import router_template, worker_template
from steps.objects.services import release_service
from steps.ports.kubernetes import Permission
from steps.ports.sglang import Server
from tests.support.pd_group import PdGroup


@dataclass(frozen=True)
class PdCluster:
    """Pods and Service of a group; no other objects exist, and none may be changed."""

    pd: PdGroup

    def select(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None, part: object = None
    ) -> list[Manifest]:
        assert kind.kind == "Pod"
        pods = [self._pod(name) for name in sorted(self.pd.containers)]
        return [pod for pod in pods if (labels or {}).items() <= pod["metadata"]["labels"].items()]

    def get(self, ref: Ref) -> Manifest | None:
        service = release_service(self.pd.release)
        return service if Ref.of(service) == ref else None

    def pod_log(self, namespace: str, pod: str, container: str, *, previous: bool = False, lines: int = 20) -> str:
        return self.pd.containers[pod.removeprefix(f"{self.pd.release.group}-")].log()

    def preview(self, wanted: Manifest) -> Manifest:
        raise AssertionError("a read-only step previews nothing")

    def apply(self, wanted: Manifest) -> None:
        raise AssertionError("a read-only step applies nothing")

    def delete(self, ref: Ref, uid: str) -> None:
        raise AssertionError("a read-only step deletes nothing")

    def serves(self, kind: Kind) -> bool:
        return True

    def allows(self, permission: Permission) -> bool:
        return True

    def _pod(self, name: str) -> Manifest:
        release, role = self.pd.release, name.partition("-")[0]
        template = (
            router_template(release, [], [])
            if role == "router"
            else worker_template(release, "prefill" if role == "prefill" else "decode")
        )
        metadata = {"name": self.pd.pod(name), "namespace": release.service.namespace, "uid": f"uid-{name}"}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**metadata, "labels": template["metadata"]["labels"]},
            "spec": template["spec"],
            "status": {"podIP": self.pd.ip(name)},
        }


@dataclass(frozen=True)
class LoopbackRoute(DirectRoute):
    """As from a pod of the cluster: a worker by its IP, the router by the name of its Service."""

    pd: PdGroup | None = None

    def url(self, server: Server, path: str) -> str:
        assert self.pd
        host = server.host if server.kind == "pods" else self.pd.pod("router-0")
        try:
            address = self.pd.dial(host, server.port)
        except (LookupError, ConnectionRefusedError):
            address = ("127.0.0.1", 1)
        return f"http://{address[0]}:{address[1]}{path}"
