"""The controllers of the embedded cluster without its API, with containers that are toys on real sockets."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from werkzeug import Request, Response

from workflows.simulator.core.cluster.controllers.control_plane import ControlPlane
from workflows.simulator.core.cluster.controllers.operator_style import V06, OperatorStyle
from workflows.simulator.core.cluster.controllers.timing import FAST, ClusterTiming
from workflows.simulator.core.cluster.resources import (
    EVENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    Resource,
)
from workflows.simulator.core.cluster.seed import Secret, Seed, plant
from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.http.server import LoopbackServer, json_reply
from workflows.simulator.runtime import Address, Container, Dial, Exit

PATIENCE = 30.0  # seconds; far longer than any wait takes on an idle machine
ABSENT_IMAGE = "registry.example.com/absent:0.5.23"
CRASHING_IMAGE = "registry.example.com/crashing:0.5.23"
NEVER_READY_IMAGE = "registry.example.com/never-ready:0.5.23"
ACCESS_KEY = {"akId": "toy-id", "akSecret": "toy-secret"}


class Toy:
    """A container that serves its own name on each of its ports, unless its image is one of the faulty ones."""

    def __init__(self, container: Container, dial: Dial, may_end: threading.Event) -> None:
        self.container = container
        self.dial = dial
        self.stopped = False
        self._may_end = may_end
        crashes = container.image == CRASHING_IMAGE
        self._exit = Exit(3, "Error") if crashes else None
        self.asked = 0
        self._servers = {} if crashes else {port: LoopbackServer(self._serve) for port in container.ports}
        for server in self._servers.values():
            server.start()

    def _serve(self, _request: Request) -> Response:
        self.asked += 1
        return json_reply({"pod": self.container.pod}, 503 if self.container.image == NEVER_READY_IMAGE else 200)

    def address(self, port: int) -> Address | None:
        server = self._servers.get(port)
        return ("127.0.0.1", server.port) if server and not self.stopped else None

    def crash(self) -> None:
        self.stop()
        self._exit = Exit(1, "Error")

    def exited(self) -> Exit | None:
        return self._exit

    def log(self) -> str:
        return f"{self.container.name} starts\nthe last line\n"

    def stop(self) -> None:
        self._may_end.wait(PATIENCE)
        if not self.stopped:
            self.stopped = True
            for server in self._servers.values():
                server.stop()


class ToyRuntime:
    """Keeps every container it started, in order."""

    def __init__(self) -> None:
        self.started: list[Toy] = []
        self.may_end = threading.Event()
        self.may_end.set()
        self._lock = threading.Lock()

    def start(self, container: Container, dial: Dial) -> Toy:
        if container.image == ABSENT_IMAGE:
            raise LookupError(f"{container.image}: not found")
        toy = Toy(container, dial, self.may_end)
        with self._lock:
            self.started.append(toy)
        return toy

    def of(self, pod: str) -> list[Toy]:
        return [toy for toy in self.started if toy.container.pod == pod]


class ToyCluster:
    def __init__(
        self, folder: Path, timing: ClusterTiming = FAST, operator: OperatorStyle = V06, gpu_nodes: int = 3
    ) -> None:
        self.folder = folder
        self.buckets = folder / "bucket"
        self.store = ClusterStore(folder / "cluster" / "objects.db")
        self.runtime = ToyRuntime()
        seed = Seed(operator, gpu_nodes, ("slipway",), (Secret("default", "oss-key", ACCESS_KEY),))
        plant(self.store, seed)
        self.control_plane = ControlPlane(self.store, self.runtime, self.buckets, folder / "pods", timing, operator)

    def __enter__(self) -> Self:
        self.control_plane.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.control_plane.stop()
        self.store.close()

    def kind(self, api_version: str, kind: str) -> Resource:
        resource = self.store.registry.kind(api_version, kind)
        assert resource is not None
        return resource

    def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return self.store.create(self.kind(manifest["apiVersion"], manifest["kind"]), manifest)

    @contextmanager
    def ends_held(self) -> Iterator[None]:
        """No container ends within the block: a terminating pod stays visible for as long as a test needs."""
        self.runtime.may_end.clear()
        try:
            yield
        finally:
            self.runtime.may_end.set()

    def pods(self, **labels: str) -> dict[str, dict[str, Any]]:
        """Pods of the namespace default, by name."""
        return {pod["metadata"]["name"]: pod for pod in self.store.select(PODS, "default", labels)}

    def events(self, reason: str) -> list[str]:
        return [event["message"] for event in self.store.select(EVENTS) if event["reason"] == reason]

    def until(self, holds: Callable[[], Any], what: str = "") -> Any:
        """Wait for changes until `holds` gives something true, and return that."""
        wake_up = self.store.subscribe()
        deadline = time.monotonic() + PATIENCE
        while not (found := holds()):
            left = deadline - time.monotonic()
            assert left > 0, f"not within {PATIENCE} s: {what or holds}"
            wake_up.wait(min(left, 0.2))
        return found

    def volume(self, *, bucket: str = "toys", path: str = "/models/toy", name: str = "llm-model") -> None:
        """A volume over a prefix of the bucket and the claim that binds it; the prefix holds one file."""
        folder = self.buckets / "objects" / bucket / path.strip("/")
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        self.claim(bucket=bucket, path=path, name=name)

    def claim(self, *, bucket: str = "toys", path: str = "/models/toy", name: str = "llm-model") -> None:
        source = {
            "driver": "ossplugin.csi.alibabacloud.com",
            "volumeHandle": name,
            "volumeAttributes": {"bucket": bucket, "path": path},
            "nodePublishSecretRef": {"name": "oss-key", "namespace": "default"},
        }
        shared = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
        self.store.create(
            PERSISTENT_VOLUMES,
            {
                "metadata": {"name": name},
                "spec": {
                    **shared,
                    "capacity": {"storage": "30Gi"},
                    "claimRef": {"namespace": "default", "name": name},
                    "csi": source,
                },
            },
        )
        spec = {**shared, "volumeName": name, "resources": {"requests": {"storage": "30Gi"}}}
        self.store.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})


@contextmanager
def toy_cluster(folder: Path, **options: Any) -> Iterator[ToyCluster]:
    with ToyCluster(folder, **options) as cluster:
        yield cluster


def worker_template(image: str = "registry.example.com/toy:1", *, port: int = 8000, gpus: int = 2) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 2}
    resources = {"nvidia.com/gpu": str(gpus), "aliyun/erdma": "1", "cpu": "12", "memory": "48Gi"} if gpus else {}
    return {
        "metadata": {"labels": {"app": "sglang-pd"}},
        "spec": {
            "volumes": [
                {"name": "model", "persistentVolumeClaim": {"claimName": "llm-model"}},
                {"name": "dshm", "emptyDir": {"medium": "Memory"}},
            ]
            if gpus
            else [],
            "containers": [
                {
                    "name": "engine",
                    "image": image,
                    "command": ["engine"],
                    "args": ["--host", "$(POD_IP)", "--unknown", "$(NOPE)"],
                    "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "ports": [{"name": "http", "containerPort": port}],
                    "startupProbe": {**probe, "failureThreshold": 180},
                    "readinessProbe": {**probe, "failureThreshold": 3},
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "resources": {"limits": resources, "requests": resources},
                    "volumeMounts": [{"name": "model", "mountPath": "/models/toy", "readOnly": True}] if gpus else [],
                }
            ],
        },
    }


def group(prefill: int = 2, image: str = "registry.example.com/toy:1") -> dict[str, Any]:
    """A 2P1D group in the shape of the reference deployment, in the v1alpha1 form."""

    def role(name: str, replicas: int, template: dict[str, Any], **more: Any) -> dict[str, Any]:
        template["metadata"]["labels"] |= {"pd-role": name}
        workload = {"apiVersion": "apps/v1", "kind": "StatefulSet"}
        return {"name": name, "replicas": replicas, "workload": workload, "template": template, **more}

    router = role("router", 1, worker_template(gpus=0), dependencies=["decode", "prefill"])
    return {
        "apiVersion": "workloads.x-k8s.io/v1alpha1",
        "kind": "RoleBasedGroup",
        "metadata": {"name": "sglang-pd", "namespace": "default"},
        "spec": {
            "roles": [
                role("prefill", prefill, worker_template(image)),
                role("decode", 1, worker_template(image)),
                router,
            ]
        },
    }


def is_ready(manifest: Mapping[str, Any] | None) -> bool:
    conditions = ((manifest or {}).get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def image_of(pod: Mapping[str, Any]) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def waiting_reason(pod: Mapping[str, Any]) -> str:
    statuses = pod["status"].get("containerStatuses") or [{}]
    return str((statuses[0].get("state") or {}).get("waiting", {}).get("reason", ""))
