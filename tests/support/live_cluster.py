"""Steps against the embedded cluster: the real adapter over HTTP, controllers that act, containers that are toys."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from steps.adapters.kubernetes.cluster import connect
from steps.create_volume import CreateVolume
from steps.document.schema import ModelService
from steps.errors import TransientError
from steps.kinds import FIELD_MANAGER, Manifest, Ref
from steps.ports.kubernetes import Cluster
from steps.ports.oss import AccessKey
from steps.ports.sglang import ChatRequest, ChatResponse, EngineError, RoutedWorker, Server
from steps.promote_release import PromoteRelease
from steps.reconcile.converge import Outcome, Step, check, converge
from steps.release import Release
from steps.report.run_end import RunEnd
from steps.roll_back import RollBack
from steps.roll_out_service import RollOutService
from steps.transfer.manifest import ModelManifest
from tests.support.argo_cluster import Attempt, nodes
from tests.support.fakes import FakeClock, RecordingReport, stored
from tests.support.samples import service
from tests.support.toy_cluster import PATIENCE, ToyRuntime
from workflows.simulator.core.cluster.controllers.operator_style import V06, OperatorStyle
from workflows.simulator.core.cluster.controllers.timing import FAST, ClusterTiming
from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.http.cluster import EmbeddedCluster

KEY = AccessKey("dummy-id", "dummy-secret")
SABOTEUR = "saboteur"
WOOD = ChatResponse("qwen3-32b", "Wood.", "", "stop", 4, 3)
QUIET = 0.05  # seconds without a change after which time passes


class ClusterClock(FakeClock):
    """Time passes while no object changes: as long as controllers are at work, no deadline comes nearer."""

    def __init__(self, store: ClusterStore) -> None:
        super().__init__()
        self._wake_up = store.subscribe()
        self.frozen = False  # no object will ever change, so waiting is pointless
        self.runs_once: Callable[[], bool] = lambda: True

    def sleep(self, seconds: float) -> None:
        if self.frozen or (not self._wake_up.wait(QUIET) and self.runs_once()):
            super().sleep(seconds)


@dataclass
class Engine:
    """The part of an engine that roll-back asks; the containers of this cluster are toys."""

    reply: ChatResponse | EngineError = WOOD
    asked: list[str] = field(default_factory=list)  # names of the Services

    def routed_workers(self, router: Server) -> list[RoutedWorker]:
        return [RoutedWorker("http://worker", "prefill", True, None, "qwen3-32b")]

    def chat(self, router: Server, chat_request: ChatRequest) -> ChatResponse | EngineError:
        self.asked.append(router.name)
        return self.reply

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"roll-back does not ask for {name}")


@dataclass
class LiveCluster:
    """An embedded cluster, and the port through which steps see it."""

    embedded: EmbeddedCluster
    port: Cluster
    bucket: Path
    clock: ClusterClock = field(init=False)
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        self.clock = ClusterClock(self.embedded.store)

    def store(self, release: Release) -> Release:
        """Put the files of a release into the bucket, so that its volume can be mounted."""
        self._folder(release).mkdir(parents=True, exist_ok=True)
        return release

    def manifest(self, release: Release) -> Callable[[], ModelManifest | None]:
        """Reads the manifest, which is there where the files are."""
        return lambda: stored(release)() if self._folder(release).exists() else None

    def volume(self, release: Release) -> CreateVolume:
        return CreateVolume(self.store(release), self.port, KEY, self.manifest(release))

    def rollout(self, release: Release) -> RollOutService:
        return RollOutService(release, self.port)

    def promotion(self, release: Release) -> PromoteRelease:
        return PromoteRelease(release, self.port, self.clock, release.id)

    def way_back(self, after: str = "", run: str = "nightly-7", of: ModelService | None = None) -> RollBack:
        """The exit handler of a run that failed in the task `after`; without one, a rollback by hand."""
        end = RunEnd.of(run if after else "", "Failed" if after else "")
        tasks = {"create-volume": (Attempt(),), after: (Attempt("Failed", "it failed", ""),)}
        status = {"phase": "Running", "nodes": nodes(run, tasks, root="Failed")}
        inference: Any = self.engine
        return RollBack(
            of or service(),
            self.port,
            inference,
            end,
            lambda: {"metadata": {"name": run}, "status": status} if after else None,
        )

    def run(self, step: Step[Any], once: Callable[[], bool] = lambda: True) -> tuple[RecordingReport, Outcome]:
        """No time passes before `once` holds, so that a short deadline finds the cluster in its final state."""
        report = RecordingReport()
        self.clock.runs_once = once
        return report, converge(step, report, self.clock)

    def check(self, step: Step[Any]) -> RecordingReport:
        report = RecordingReport()
        check(step, report)
        return report

    def serve(self, release: Release) -> Release:
        """Take a release all the way to the traffic."""
        for step in (self.volume(release), self.rollout(release), self.promotion(release)):
            self.run(step)
        return release

    def _folder(self, release: Release) -> Path:
        return self.bucket / release.service.store.bucket / release.prefix

    def patch(self, ref: Ref, change: dict[str, Any], by: str = SABOTEUR) -> None:
        """A merge patch by another manager."""
        resource = self.embedded.store.registry.kind(ref.kind.api_version, ref.kind.kind)
        assert resource is not None
        group = f"apis/{resource.group}" if resource.group else "api"
        space = f"/namespaces/{ref.namespace}" if ref.namespace else ""
        answer = requests.patch(
            f"{self.embedded.url}/{group}/{resource.version}{space}/{resource.plural}/{ref.name}",
            params={"fieldManager": by},
            json=change,
            headers={"Content-Type": "application/merge-patch+json"},
            timeout=30,
        )
        assert answer.ok, answer.text

    def objects(self) -> dict[str, Manifest]:
        """The objects that Slipway wrote, without the fields of controllers."""
        found = {}
        for resource in self.embedded.store.registry.all():
            for one in self.embedded.store.select(resource):
                if any(entry["manager"] == FIELD_MANAGER for entry in one["metadata"].get("managedFields") or []):
                    metadata = {key: one["metadata"].get(key) for key in ("uid", "generation", "labels", "annotations")}
                    name = f"{resource.version}/{resource.kind}/{one['metadata']['name']}"
                    found[name] = {**{key: one[key] for key in one if key != "status"}, "metadata": metadata}
        return found

    def names(self, kind: str) -> list[str]:
        """Names of our objects of a kind."""
        return sorted({path.split("/")[-1] for path in self.objects() if path.split("/")[1] == kind})

    def settle(self, holds: Callable[[], bool]) -> None:
        """Wait for controllers."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"the cluster did not settle within {PATIENCE} s"
            self.clock.sleep(0.0)

    def freeze(self) -> None:
        """No controller acts any more; the API goes on."""
        self.clock.frozen = True
        self.embedded._control_plane.stop()


@contextmanager
def live_cluster(
    folder: Path, operator: OperatorStyle = V06, timing: ClusterTiming = FAST, **options: Any
) -> Iterator[LiveCluster]:
    embedded = EmbeddedCluster(
        folder / "cluster", ToyRuntime(), folder / "bucket", timing=timing, operator=operator, **options
    )
    embedded.start()
    try:
        yield LiveCluster(embedded, connect(embedded.kubeconfig), folder / "bucket" / "objects")
    finally:
        embedded.stop()


class KilledAfter:
    """The port of a process that is killed after a number of writes."""

    def __init__(self, live: LiveCluster, writes: int) -> None:
        self._port, self._left = live.port, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def apply(self, wanted: Manifest) -> None:
        self._die()
        self._port.apply(wanted)

    def delete(self, ref: Ref, uid: str) -> None:
        self._die()
        self._port.delete(ref, uid)

    def _die(self) -> None:
        if not self._left:
            raise TransientError("killed")
        self._left -= 1
