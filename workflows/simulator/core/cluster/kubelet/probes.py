"""Probes of a container, over its real sockets.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

import http.client
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

from workflows.simulator.core.cluster.controllers.timing import ClusterTiming
from workflows.simulator.runtime import Address, Running

_LONGEST_TIMEOUT = 3.0  # seconds; a probe that hangs must not hold back the end of a rehearsal
_GOOD = range(200, 400)


class Probe:
    """Asks in its period, and counts as Kubernetes does; `passing` is None until it knows.

    It fails only after `patience` seconds without a success: its period is far shorter than in a real cluster, and a
    busy machine is slow.
    """

    def __init__(self, spec: Mapping[str, Any], port: int, timing: ClusterTiming, patience: float) -> None:
        self._spec = spec
        self._patience = patience
        self._good = time.monotonic()
        self._port = port
        self._period = max(timing.shortest_period, float(spec.get("periodSeconds", 10)) * timing.probe_scale)
        self._due = time.monotonic() + float(spec.get("initialDelaySeconds", 0)) * timing.probe_scale
        self._asked: Future[bool] | None = None
        self._successes = 0
        self._failures = 0
        self.passing: bool | None = None

    def sync(self, running: Running, pool: Executor, wake: Callable[[], None]) -> float | None:
        """Take an answer, ask again when it is time; seconds until then, None while an answer is under way."""
        if self._asked is not None:
            if not self._asked.done():
                return None
            self._count(self._asked.result())
            self._asked = None
        left = self._due - time.monotonic()
        if left > 0:
            return left
        self._due = time.monotonic() + self._period
        self._asked = pool.submit(self._ask, running)
        self._asked.add_done_callback(lambda _answer: wake())
        return None

    def _count(self, good: bool) -> None:
        self._successes = self._successes + 1 if good else 0
        self._failures = 0 if good else self._failures + 1
        self._good = time.monotonic() if good else self._good
        if self._successes >= int(self._spec.get("successThreshold", 1)):
            self.passing = True
        is_over = time.monotonic() - self._good >= self._patience
        if is_over and self._failures >= int(self._spec.get("failureThreshold", 3)):
            self.passing = False

    def _ask(self, running: Running) -> bool:
        if "exec" in self._spec:
            return True  # a rehearsal runs no commands inside containers
        address = running.address(self._port)
        if address is None:
            return False
        timeout = min(float(self._spec.get("timeoutSeconds", 1)), _LONGEST_TIMEOUT)
        try:
            if "httpGet" in self._spec:
                return _get(address, str(self._spec["httpGet"].get("path") or "/"), timeout) in _GOOD
            socket.create_connection(address, timeout).close()
        except (OSError, http.client.HTTPException):
            return False
        return True


def _get(address: Address, path: str, timeout: float) -> int:
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request("GET", path, headers={"User-Agent": "kube-probe/1.30", "Connection": "close"})
        return connection.getresponse().status
    finally:
        connection.close()


class Probes:
    """The three probes of one run of a container."""

    def __init__(self, container: Mapping[str, Any], timing: ClusterTiming) -> None:
        self._startup = _probe(container, "startupProbe", timing, timing.patience)
        self._readiness = _probe(container, "readinessProbe", timing, 0.0)  # it kills no container
        self._liveness = _probe(container, "livenessProbe", timing, timing.patience)

    @property
    def started(self) -> bool:
        return self._startup is None or self._startup.passing is True

    @property
    def ready(self) -> bool:
        return self.started and (self._readiness is None or self._readiness.passing is True)

    @property
    def failed(self) -> str:
        """Name of the probe that wants the container killed, if one does."""
        if self._startup and self._startup.passing is False:
            return "Startup"
        return "Liveness" if self._liveness and self._liveness.passing is False else ""

    def sync(self, running: Running, pool: Executor, wake: Callable[[], None]) -> float | None:
        if not self.started and self._startup:
            left = self._startup.sync(running, pool, wake)
            if not self.started:
                return left
        probes = [probe for probe in (self._readiness, self._liveness) if probe]
        waits = [probe.sync(running, pool, wake) for probe in probes]
        return min((wait for wait in waits if wait is not None), default=None)


def _probe(container: Mapping[str, Any], name: str, timing: ClusterTiming, patience: float) -> Probe | None:
    spec = container.get(name)
    if not spec:
        return None
    target = spec.get("httpGet") or spec.get("tcpSocket") or spec.get("grpc") or {}
    return Probe(spec, container_port(container, target.get("port", 0)), timing, patience)


def container_port(container: Mapping[str, Any], port: int | str) -> int:
    """A port by number or by the name that the container gives it; 0 if it has no such name."""
    named = {one.get("name"): one["containerPort"] for one in container.get("ports") or []}
    return int(port) if str(port).isdigit() else int(named.get(port, 0))
