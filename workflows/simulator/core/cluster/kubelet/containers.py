"""One container of one pod: start, crash, back-off, restart."""

import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from workflows.simulator.core.cluster.controllers.timing import ClusterTiming
from workflows.simulator.core.cluster.controllers.view import timestamp
from workflows.simulator.core.cluster.kubelet.environment import ConfigError
from workflows.simulator.core.cluster.kubelet.probes import Probes
from workflows.simulator.core.cluster.store import Manifest
from workflows.simulator.runtime import Exit, Running

_MESSAGE_BYTES = 2048  # https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
_MESSAGE_LINES = 80
_LONG_ENOUGH = 60.0  # seconds; after this long a restart begins with a fresh back-off

_POLL = 0.2  # seconds between two checks of a running container

Start = Callable[[], Running]
Record = Callable[[str, str, str], None]  # type, reason and message of an event


@dataclass(frozen=True)
class Terminated:
    code: int
    reason: str
    message: str
    started: float  # seconds since 1970
    finished: float

    def manifest(self) -> Manifest:
        state = {
            "exitCode": self.code,
            "reason": self.reason,
            "startedAt": timestamp(self.started),
            "finishedAt": timestamp(self.finished),
        }
        return {"terminated": state | ({"message": self.message} if self.message else {})}


class ContainerWorker:
    def __init__(self, spec: Mapping[str, Any], timing: ClusterTiming, before: Mapping[str, Any] | None = None) -> None:
        """`before` is the status of an earlier process: its container was lost with its node."""
        self.spec = spec
        self._timing = timing
        self._running: Running | None = None
        self._probes = Probes(spec, timing)
        self._image = ""
        self._started = 0.0
        self._crashes = 0
        self._retry = 0.0
        self._waiting = ("ContainerCreating", "")
        self._last: Terminated | None = None
        self.restarts = 0
        self.previous_log = ""
        if before:
            self.restarts = int(before.get("restartCount", 0))
            if "running" in before.get("state", {}) or before.get("lastState"):
                self._last = Terminated(255, "Unknown", "", time.time(), time.time())

    @property
    def running(self) -> Running | None:
        return self._running

    @property
    def ready(self) -> bool:
        return self._running is not None and self._probes.ready

    @property
    def has_run(self) -> bool:
        return self._running is not None or self._last is not None

    def sync(self, start: Callable[[], Start], pool: Executor, wake: Callable[[], None], record: Record) -> float:
        """Bring the container one step nearer to running; seconds until the next turn.

        `start` reads the configuration and raises ConfigError; its result starts the container and raises
        LookupError for an image that cannot be pulled.
        """
        if self._running is not None:
            self._check(self._running, record)
        if self._running is None:
            left = self._retry - time.monotonic()
            if left > 0:
                return left
            self._start(start, record)
        if self._running is None:
            return max(0.0, self._retry - time.monotonic())
        wait = self._probes.sync(self._running, pool, wake)
        # A container does not report its end.
        return _POLL if wait is None else min(wait, _POLL)

    def stop(self) -> None:
        running = self._running  # another thread may ask, while the loop takes note of its end
        if running is not None:
            running.stop()

    def status(self) -> Manifest:
        status: Manifest = {
            "name": self.spec["name"],
            "image": self.spec["image"],
            "imageID": image_id(self._image) if self._image else "",
            "restartCount": self.restarts,
            "ready": self.ready,
            "started": self._running is not None and self._probes.started,
            "state": self._state(),
            "lastState": self._last.manifest() if self._last else {},
        }
        return status

    def _state(self) -> Manifest:
        if self._running is not None:
            return {"running": {"startedAt": timestamp(self._started)}}
        reason, message = self._waiting
        return {"waiting": {"reason": reason} | ({"message": message} if message else {})}

    def _start(self, start: Callable[[], Start], record: Record) -> None:
        image, name = self.spec["image"], self.spec["name"]
        if self._waiting[0] == "ErrImagePull":
            # One turn later the failed pull shows as a back-off, until the next attempt.
            self._wait("ImagePullBackOff", f'Back-off pulling image "{image}"', self._timing.pull_backoff)
            return
        try:
            prepared = start()
        except ConfigError as error:
            self._wait("CreateContainerConfigError", str(error), self._timing.pull_backoff)
            record("Warning", "Failed", f"Error: {error}")
            return
        try:
            self._running = prepared()
        except LookupError as error:
            message = f'failed to pull and unpack image "{image}": {error.args[0] if error.args else "not found"}'
            self._wait("ErrImagePull", f"rpc error: code = NotFound desc = {message}", self._timing.shortest_period)
            record("Warning", "Failed", f'Failed to pull image "{image}": {message}')
            return
        self.restarts += 1 if self._last else 0
        self._image, self._started = image, time.time()
        self._probes = Probes(self.spec, self._timing)
        record("Normal", "Started", f"Started container {name}")

    def _wait(self, reason: str, message: str, seconds: float) -> None:
        self._waiting = reason, message
        self._retry = time.monotonic() + seconds

    def _check(self, running: Running, record: Record) -> None:
        ended = running.exited()
        if ended is None and self._probes.failed:
            record("Warning", "Unhealthy", f"{self._probes.failed} probe failed")
            record(
                "Normal",
                "Killing",
                f"Container {self.spec['name']} failed {self._probes.failed.lower()} probe, will be restarted",
            )
            running.stop()
            ended = Exit(137, "Error")
        if ended is None and self.spec["image"] != self._image:
            running.stop()
            ended = Exit(0, "Completed")
        if ended is not None:
            self._end(running, ended, record)

    def _end(self, running: Running, ended: Exit, record: Record) -> None:
        log = running.log()
        message = _tail(log) if self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError" else ""
        finished = time.time()
        self._last = Terminated(ended.code, ended.reason, message if ended.code else "", self._started, finished)
        self.previous_log = log
        self._running = None
        self._crashes = 1 if finished - self._started > _LONG_ENOUGH else self._crashes + 1
        name = self.spec["name"]
        if self._crashes == 1:
            # The first restart is at once.
            self._wait("ContainerCreating", "", 0.0)
            return
        seconds = min(self._timing.longest_crash_backoff, self._timing.crash_backoff * 2 ** (self._crashes - 2))
        shown = min(300, 10 * 2 ** (self._crashes - 2))
        self._wait("CrashLoopBackOff", f"back-off {shown}s restarting failed container={name}", seconds)
        record("Warning", "BackOff", f"Back-off restarting failed container {name}")


def image_id(image: str) -> str:
    """The digest of an image; that of one without a digest is made up from its name."""
    if "@sha256:" in image:
        return image
    return f"{image.rpartition(':')[0] or image}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def _tail(log: str) -> str:
    lines = "\n".join(log.splitlines()[-_MESSAGE_LINES:])
    return lines.encode()[-_MESSAGE_BYTES:].decode(errors="ignore")
