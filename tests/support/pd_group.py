"""A prefill/decode group on loopback: containers of the embedded engine, and names by which they find each other."""

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from steps.adapters.sglang import metrics
from steps.release import Release
from steps.sglang.flags import WorkerRole, router_args, worker_args
from tests.support.samples import release
from workflows.simulator.core.hub import sample_model
from workflows.simulator.faults.engine_faults import EngineFaults, EngineTiming
from workflows.simulator.http.engine import EngineContainer, SglangRuntime
from workflows.simulator.runtime import Address, Container

FAST = EngineTiming(watch=0.02)
MODEL_PATH = "/models/tiny"


def write_model(folder: Path, *, seed: int = 0) -> Path:
    """A few kilobytes, instead of the model that may be there."""
    shutil.rmtree(folder, ignore_errors=True)
    return sample_model.write_model(folder, 4096, 2, seed)


@dataclass
class PdGroup:
    """Pods by their short names (`prefill-0`, `decode-0`, `router-0`), with the arguments of a release."""

    release: Release
    runtime: SglangRuntime
    model: Path
    containers: dict[str, EngineContainer] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return self.release.service.serving.ports.http

    def pod(self, name: str) -> str:
        return f"{self.release.group}-{name}"

    def ip(self, name: str) -> str:
        role, _, number = name.partition("-")
        return f"10.1.{('prefill', 'decode', 'router').index(role)}.{int(number) + 10}"

    def dial(self, host: str, port: int) -> Address:
        """As in a cluster: a pod by its name or its IP."""
        name = next((name for name in list(self.containers) if host in (self.pod(name), self.ip(name))), None)
        if name is None:
            raise LookupError(f"no such host: {host}")
        address = self.containers[name].address(port)
        if address is None:
            raise ConnectionRefusedError(f"{host}:{port}")
        return address

    def start(
        self,
        name: str,
        module: str,
        args: Iterable[str],
        *,
        image: str = "registry.example.com/llm/sglang:0.5.23",
        mounts: Mapping[str, Path] | None = None,
    ) -> EngineContainer:
        container = Container(
            pod=self.pod(name),
            name="engine",
            image=image,
            command=("python3", "-m", module),
            args=tuple(args),
            env={},
            mounts={MODEL_PATH: self.model} if mounts is None else mounts,
            ports=(self.port,),
        )
        self.containers[name] = self.runtime.start(container, self.dial)
        return self.containers[name]

    def start_worker(self, name: str, *more: str, **options: Any) -> EngineContainer:
        role: WorkerRole = "prefill" if name.startswith("prefill") else "decode"
        args = [*worker_args(self.release.service, role), *more]
        return self.start(name, "sglang.launch_server", args, **options)

    def start_router(self, *more: str) -> EngineContainer:
        urls = {
            role: [
                f"http://{self.pod(f'{role}-{number}')}:{self.port}" for number in range(self.release.replicas[role])
            ]
            for role in ("prefill", "decode")
        }
        args = [*router_args(self.release.service.serving, urls["prefill"], urls["decode"]), *more]
        return self.start("router-0", "sglang_router.launch_router", args, mounts={})

    def start_all(self, *, but: Mapping[str, Sequence[str]] | None = None) -> None:
        """Every pod of the release; `but` gives more arguments to some workers."""
        for role in ("prefill", "decode"):
            for number in range(self.release.replicas[role]):
                self.start_worker(f"{role}-{number}", *(but or {}).get(f"{role}-{number}", ()))
        self.start_router()

    def url(self, name: str, port: int = 0) -> str:
        host, real = self.dial(self.pod(name), port or self.port)
        return f"http://{host}:{real}"

    def serves(self) -> bool:
        """The router sees every worker."""
        if self.containers["router-0"].address(self.port) is None:
            return False
        found = requests.get(self.url("router-0") + "/readiness", timeout=30).json()
        expected = self.release.replicas["prefill"] + self.release.replicas["decode"]
        return bool(found.get("healthy_workers") == expected)

    def is_quiet(self) -> bool:
        """Every chat that a worker was asked for is over, and all that it moved is counted."""
        workers = [name for name in self.containers if not name.startswith("router")]
        return all(self._has_answered(name) for name in workers if self.containers[name].address(self.port))

    def _has_answered(self, name: str) -> bool:
        found = metrics.parse(requests.get(self.url(name) + "/metrics", timeout=30).text)
        counted = (
            found.total(f"sglang:http_{kind}_total", endpoint="/v1/chat/completions")
            for kind in ("requests", "responses")
        )
        return len(set(counted)) == 1

    def stop(self) -> None:
        for container in self.containers.values():
            container.stop()


def pd_group(folder: Path, faults: EngineFaults | None = None, *overrides: str, timing: EngineTiming = FAST) -> PdGroup:
    wanted = release(f"serving.modelPath={MODEL_PATH}", "serving.tensorParallel=1", *overrides, name="demo")
    return PdGroup(wanted, SglangRuntime(faults, timing), write_model(folder / "model"))


@contextmanager
def started_groups(folder: Path) -> Iterator[Callable[..., PdGroup]]:
    """Starts groups on request, each with a router that has found its workers."""
    groups: list[PdGroup] = []

    def started(
        faults: EngineFaults | None = None, *overrides: str, timing: EngineTiming = FAST, **options: Any
    ) -> PdGroup:
        pd = pd_group(folder, faults, *overrides, timing=timing)
        groups.append(pd)
        pd.start_all(**options)
        eventually(pd.serves, "the router sees every worker")
        return pd

    try:
        yield started
    finally:
        for pd in groups:
            pd.stop()


def eventually(true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Polls until it is true; the pause is short, and only a failing test reaches the bound."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        pause.wait(0.01)
    raise AssertionError(f"not within {seconds:g} s: {what}")
