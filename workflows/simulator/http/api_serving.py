"""What the embedded API server is made of; its handlers share it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.core.cluster.writes import Writes
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.api_proxy import ProxyTarget

Denied = Callable[[str, str, str, str], bool]
"""(verb, resource as in RBAC rules such as `pods/log`, namespace, name) -> whether the API refuses it with 403."""

PodLog = Callable[[str, str, str, bool], str | None]
"""(namespace, pod, container, previous) -> its log; None if that container has not started, or there was none."""


class OpenWatches:
    """Counts the watches that are being answered; each is a context."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def are_over(self, wait: float) -> bool:
        """Waits up to `wait` seconds for it."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._count, wait)


@dataclass(frozen=True)
class Served:
    store: ClusterStore
    writes: Writes
    proxy_target: ProxyTarget
    denied: Denied
    pod_log: PodLog
    faults: RequestFaults
    token: str
    reviewed: Denied | None = None  # what access reviews answer; None: as `denied` decides
    stopping: threading.Event = field(default_factory=threading.Event)
    watches: OpenWatches = field(default_factory=OpenWatches)
