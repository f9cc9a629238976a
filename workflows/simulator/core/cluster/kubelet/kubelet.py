"""All kubelets of the embedded cluster in one: nodes differ in their capacity, not in their place."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from workflows.simulator.core.cluster.controllers.timing import ClusterTiming
from workflows.simulator.core.cluster.controllers.view import ClusterView, is_going
from workflows.simulator.core.cluster.kubelet.pod_worker import Host, PodWorker
from workflows.simulator.core.cluster.resources import PODS
from workflows.simulator.core.cluster.store import Manifest
from workflows.simulator.runtime import Address, Container, ContainerRuntime, Dial, Exit, Running

SIMULATED = "slipway/simulated"  # annotation of pods without processes
_THREADS = 8


class _Idle:
    """A container without a process."""

    def start(self, container: Container, dial: Dial) -> Running:
        del container, dial
        return self

    def address(self, port: int) -> Address | None:
        del port
        return None

    def exited(self) -> Exit | None:
        return None

    def log(self) -> str:
        return ""

    def stop(self) -> None:
        """No process to stop."""


class Kubelet:
    def __init__(
        self,
        runtime: ContainerRuntime,
        buckets: Path,
        folder: Path,
        timing: ClusterTiming,
        dial: Callable[[str], Dial],
        wake: Callable[[], None],
    ) -> None:
        """`buckets` is the state folder of the embedded bucket, `folder` holds the volumes of single pods."""
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="kubelet")
        self._host = Host(runtime, buckets, folder, timing, self._pool, wake, dial)
        self._workers: dict[str, PodWorker] = {}

    def reconcile(self, view: ClusterView) -> float | None:
        pods = {pod["metadata"]["uid"]: pod for pod in view.all(PODS) if pod["spec"].get("nodeName")}
        for uid in self._workers.keys() - pods.keys():
            self._forget(uid)
        waits = [self._sync(view, uid, pod) for uid, pod in pods.items()]
        return min((wait for wait in waits if wait is not None), default=None)

    def address(self, uid: str, port: int) -> Address | None:
        """The real address of a port of a pod; None while it is closed."""
        worker = self._workers.get(uid)
        return worker.address(port) if worker else None

    def log(self, uid: str, container: str, *, previous: bool = False) -> str | None:
        """The log of a container; None if it has not run, or not before."""
        workers = self._workers.get(uid)
        worker = workers.containers.get(container) if workers else None
        if worker is None:
            return None
        if previous:
            return worker.previous_log or None
        running = worker.running  # this thread is not the loop's
        return running.log() if running else worker.previous_log or None

    def is_up(self, uid: str) -> bool:
        """True if this very process runs all containers of a pod, and their probes pass."""
        worker = self._workers.get(uid)
        return worker is not None and all(container.ready for container in worker.containers.values())

    def stop(self) -> None:
        """Stop every container, as when the node is shut off; the objects stay as they are."""
        for worker in list(self._workers.values()):
            worker.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _sync(self, view: ClusterView, uid: str, pod: Manifest) -> float | None:
        worker = self._workers.get(uid)
        if worker is None:
            if is_going(pod):
                view.delete(PODS, pod, grace=0)
                return None
            worker = self._adopt(view, uid, pod)
        if is_going(pod):
            return worker.end(view, pod)
        wait = worker.sync(view, pod)
        return None if _is_simulated(pod) and self.is_up(uid) else wait

    def _adopt(self, view: ClusterView, uid: str, pod: Manifest) -> PodWorker:
        ip = (pod.get("status") or {}).get("podIP") or self._free_ip(view)
        runtime = _Idle() if _is_simulated(pod) else self._host.runtime
        worker = PodWorker(self._host, pod, ip, runtime)
        self._workers[uid] = worker
        return worker

    def _free_ip(self, view: ClusterView) -> str:
        taken = {(pod.get("status") or {}).get("podIP") for pod in view.all(PODS)}
        taken |= {worker.ip for worker in self._workers.values()}
        candidates = (f"10.244.{high}.{low}" for high in range(256) for low in range(2, 255))
        return next(address for address in candidates if address not in taken)

    def _forget(self, uid: str) -> None:
        """A pod was removed without waiting for its end."""
        self._pool.submit(self._workers.pop(uid).stop)
        shutil.rmtree(self._host.folder / uid, ignore_errors=True)


def _is_simulated(pod: Manifest) -> bool:
    return SIMULATED in (pod["metadata"].get("annotations") or {})
