"""What the embedded API server is made of; its handlers share it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from workflows.rehearsal.cluster.proxy import ProxyTarget
from workflows.rehearsal.cluster.store import Store
from workflows.rehearsal.cluster.writes import Writes
from workflows.rehearsal.faults import Faults

Denied = Callable[[str, str, str, str], bool]
"""(verb, resource as in RBAC rules such as `pods/log`, namespace, name) -> whether the API refuses it with 403."""

PodLog = Callable[[str, str, str, bool], str | None]
"""(namespace, pod, container, previous) -> its log; None if that container has not started, or there was none."""


@dataclass(frozen=True)
class Served:
    store: Store
    writes: Writes
    proxy_target: ProxyTarget
    denied: Denied
    pod_log: PodLog
    faults: Faults
    token: str
    reviewed: Denied | None = None  # what access reviews answer; None: as `denied` decides
    stopping: threading.Event = field(default_factory=threading.Event)
