"""One pod on its node: volumes, containers, conditions, end."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from workflows.simulator.core.cluster.controllers.timing import ClusterTiming
from workflows.simulator.core.cluster.controllers.view import ClusterView, condition
from workflows.simulator.core.cluster.kubelet.containers import ContainerWorker
from workflows.simulator.core.cluster.kubelet.environment import expand_all, variables
from workflows.simulator.core.cluster.kubelet.mounts import MountError, mounted, of_container
from workflows.simulator.core.cluster.resources import PODS
from workflows.simulator.core.cluster.store import Manifest, now
from workflows.simulator.runtime import Address, Container, ContainerRuntime, Dial, Running

SOURCE = "kubelet"
_POLL = 0.5  # seconds between two checks of a terminating pod; the end of its containers triggers one, too


@dataclass(frozen=True)
class Host:
    """Common to all pods."""

    runtime: ContainerRuntime
    buckets: Path
    folder: Path  # of the volumes that belong to a pod alone
    timing: ClusterTiming
    pool: Executor
    wake: Callable[[], None]
    dial: Callable[[str], Dial]  # cluster DNS as a namespace sees it


class PodWorker:
    def __init__(self, host: Host, pod: Manifest, ip: str, runtime: ContainerRuntime) -> None:
        self.ip = ip
        self.key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._host = host
        self._runtime = runtime
        self._folder = host.folder / pod["metadata"]["uid"]
        self._volumes: dict[str, Path] | None = None
        self._mount_again = 0.0
        self._ending: Future[None] | None = None
        before = {one["name"]: one for one in (pod.get("status") or {}).get("containerStatuses") or []}
        self.containers = {
            spec["name"]: ContainerWorker(spec, host.timing, before.get(spec["name"]))
            for spec in pod["spec"]["containers"]
        }

    def address(self, port: int) -> Address | None:
        """Where a port of the pod really listens."""
        running = [worker.running for worker in self.containers.values()]
        found = (one.address(port) for one in running if one is not None)
        return next((address for address in found if address), None)

    def sync(self, view: ClusterView, pod: Manifest) -> float | None:
        """Bring the pod one step nearer to serving; seconds until the next turn."""
        wait = self._mount(view, pod)
        if wait is None:
            specs = {spec["name"]: spec for spec in pod["spec"]["containers"]}
            waits = []
            for name, worker in self.containers.items():
                worker.spec = specs[name]
                waits.append(
                    worker.sync(
                        partial(self._prepare, view, pod, worker.spec),
                        self._host.pool,
                        self._host.wake,
                        lambda kind, reason, message: view.event(pod, reason, message, kind=kind, source=SOURCE),
                    )
                )
            wait = min(waits)
        view.write_status(PODS, pod, self._status(pod))
        return wait

    def end(self, view: ClusterView, pod: Manifest) -> float | None:
        """Stop the containers, then let the object go."""
        if self._ending is None:
            self._ending = self._host.pool.submit(self.stop)
            self._ending.add_done_callback(lambda _done: self._host.wake())
        elif self._ending.done():
            self._ending.result()
            view.delete(PODS, pod, grace=0)
            return None
        return _POLL

    def stop(self) -> None:
        for worker in self.containers.values():
            worker.stop()

    def _mount(self, view: ClusterView, pod: Manifest) -> float | None:
        """None once all volumes are mounted, else seconds to the next attempt."""
        if self._volumes is not None:
            return None
        left = self._mount_again - time.monotonic()
        if left > 0:
            return left
        try:
            self._volumes = mounted(view, pod, self._host.buckets, self._folder)
        except MountError as error:
            self._mount_again = time.monotonic() + self._host.timing.mount_retry
            view.event(pod, "FailedMount", str(error), source=SOURCE)
            return self._host.timing.mount_retry
        return None

    def _prepare(self, view: ClusterView, pod: Manifest, spec: Mapping[str, Any]) -> Callable[[], Running]:
        metadata = pod["metadata"]
        env = variables(view, pod, spec, self.ip)
        container = Container(
            pod=metadata["name"],
            name=spec["name"],
            image=spec["image"],
            command=expand_all(spec.get("command"), env),
            args=expand_all(spec.get("args"), env),
            env=env,
            mounts=of_container(spec, self._volumes or {}),
            ports=tuple(int(port["containerPort"]) for port in spec.get("ports") or []),
        )
        dial = self._host.dial(metadata["namespace"])
        return lambda: self._runtime.start(container, dial)

    def _status(self, pod: Manifest) -> Manifest:
        before = pod.get("status") or {}
        workers = self.containers.values()
        unready = [name for name, worker in self.containers.items() if not worker.ready]
        status = {**before, "phase": "Running" if all(worker.has_run for worker in workers) else "Pending"}
        status["startTime"] = before.get("startTime") or now()
        if self._volumes is not None:
            status |= {"podIP": self.ip, "podIPs": [{"ip": self.ip}]}
        status["containerStatuses"] = [worker.status() for worker in workers]
        why = ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]") if unready else ("", "")
        for name, value, reason, message in (
            ("PodReadyToStartContainers", self._volumes is not None, "", ""),
            ("Initialized", True, "", ""),
            ("ContainersReady", not unready, *why),
            ("Ready", not unready, *why),
        ):
            status["conditions"] = condition(status, name, value, reason, message)
        return status
