"""One simulated router (sglang-router 0.3.2, prefill-decode mode): which workers it knows, and which pair it takes."""

import http
import json
import random
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from workflows.simulator.core.engine.flags import RouterFlags
from workflows.simulator.core.engine.metrics import MetricsRegistry
from workflows.simulator.http.client import Caller, Reply, UnreachableError

SAME_PREFIX = 128  # characters that the cache_aware policy compares
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})


@dataclass
class KnownWorker:
    """A worker that the router was told of. It is not listed until it first was healthy."""

    url: str
    role: str
    bootstrap_port: int | None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    metadata: dict[str, str] = field(default_factory=dict)
    registered: bool = False
    healthy: bool = False
    streak: int = 0  # checks in a row that disagree with `healthy`
    failures: int = 0  # requests in a row
    open_until: float = 0.0  # the circuit breaker lets nothing through before
    taken: int = 0

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def available(self, now: float) -> bool:
        return self.registered and self.healthy and now >= self.open_until

    def listed(self) -> dict[str, Any]:
        port = {"bootstrap_port": self.bootstrap_port} if self.role == "prefill" else {}
        return {
            "id": self.id,
            "url": self.url,
            "model_id": self.metadata.get("served_model_name", ""),
            "priority": 50,
            "cost": 1.0,
            "worker_type": self.role,
            "is_healthy": self.healthy,
            "load": 0,
            "connection_mode": "HTTP",
            **port,
            "metadata": self.metadata,
            "disable_health_check": False,
        }


class NoWorkersError(Exception):
    """Nobody of one role is available."""


@dataclass(frozen=True)
class Pair:
    prefill: KnownWorker
    decode: KnownWorker
    bodies: tuple[dict[str, Any], ...] = ()


class Router:
    def __init__(self, flags: RouterFlags, caller: Caller) -> None:
        self.flags = flags
        self.caller = caller
        self.metrics = MetricsRegistry()
        self.workers = [KnownWorker(url, "prefill", port) for url, port in flags.prefill]
        self.workers += [KnownWorker(url, "decode", None) for url in flags.decode]
        self._lock = threading.Lock()
        self._turn = {"prefill": 0, "decode": 0}
        self._affinity: dict[tuple[str, str], KnownWorker] = {}
        self._random = random.Random(0)  # noqa: S311  # a repeatable rehearsal, not a secret

    def registered(self) -> list[KnownWorker]:
        return [worker for worker in self.workers if worker.registered]

    def counts(self) -> tuple[int, int]:
        """Healthy workers, and all that are listed."""
        listed = self.registered()
        return sum(worker.healthy for worker in listed), len(listed)

    def ready(self) -> bool:
        return {worker.role for worker in self.registered() if worker.healthy} >= {"prefill", "decode"}

    def watch(self, stopped: threading.Event, every: float) -> None:
        """Look for unknown workers, and after known ones, until `stopped`."""
        while not stopped.is_set():
            for worker in self.workers:
                if self.flags.check_health or not worker.registered:
                    self._check(worker)
            stopped.wait(every)

    def _check(self, worker: KnownWorker) -> None:
        well = self._answers(worker)
        if well and not worker.registered:
            self._register(worker)
            return
        worker.streak = 0 if well == worker.healthy else worker.streak + 1
        needed = self.flags.successes_until_healthy if well else self.flags.failures_until_unhealthy
        if worker.registered and worker.streak >= needed:
            worker.healthy, worker.streak = well, 0
        if worker.registered:
            self.metrics.set("smg_worker_health", float(worker.healthy), {"worker": worker.url})

    def _answers(self, worker: KnownWorker) -> bool:
        try:
            reply = self.caller.get(worker.url + self.flags.health_endpoint)
        except UnreachableError:
            return False
        return reply.status == http.HTTPStatus.OK

    def _register(self, worker: KnownWorker) -> None:
        try:
            model = self.caller.get(f"{worker.url}/model_info").json()
            server = self.caller.get(f"{worker.url}/server_info").json()
        except (UnreachableError, ValueError):
            return
        worker.metadata = {
            "architectures": json.dumps(model["architectures"], separators=(",", ":")),
            "load_balance_method": server["load_balance_method"],
            "tp_size": str(server["tp_size"]),
            "served_model_name": model["served_model_name"],
            "dp_size": str(server["dp_size"]),
            "model_type": model["model_type"],
            "model_path": model["model_path"],
            "disaggregation_mode": model["disaggregation_mode"],
        }
        worker.healthy = worker.registered = True

    def pair(self, body: Mapping[str, Any]) -> Pair:
        """One prefill and one decode, and the body for both. Raises NoWorkersError."""
        prefill, decode = self._pick("prefill", body), self._pick("decode", body)
        room = random.SystemRandom().getrandbits(63)
        told = {"bootstrap_host": prefill.host, "bootstrap_port": prefill.bootstrap_port, "bootstrap_room": room}
        return Pair(prefill, decode, ({**body, **told},))

    def _pick(self, role: str, body: Mapping[str, Any]) -> KnownWorker:
        with self._lock:
            now = time.monotonic()
            available = [worker for worker in self.workers if worker.role == role and worker.available(now)]
            if not available:
                raise NoWorkersError(f"No available {role} workers (all circuits open or unhealthy)")
            worker = self._by_policy(role, available, body)
            worker.taken += 1
        labels = {
            "worker_type": role,
            "connection_mode": "http",
            "model": str(body.get("model", "default")),
            "policy": self.flags.policy[role],
        }
        self.metrics.add("smg_worker_selection_total", 1.0, labels)
        return worker

    def _by_policy(self, role: str, available: Sequence[KnownWorker], body: Mapping[str, Any]) -> KnownWorker:
        policy = self.flags.policy[role]
        if policy == "round_robin":
            self._turn[role] += 1
            return available[(self._turn[role] - 1) % len(available)]
        if policy == "cache_aware":
            prefix = (role, json.dumps(body.get("messages") or body.get("text"))[:SAME_PREFIX])
            known = self._affinity.get(prefix)
            least = min(available, key=lambda worker: worker.taken)
            self._affinity[prefix] = known if known in available and known is not None else least
            return self._affinity[prefix]
        return self._random.choice(available)

    def ask(self, path: str, body: Mapping[str, Any], timeout: float) -> Reply:
        """Both halves of one request at the same time, with retries. Raises NoWorkersError."""
        for attempt in range(self.flags.retries + 1):
            pair = self.pair(body)
            reply = self._ask_pair(pair, path, timeout)
            self._remember(pair, well=reply.status not in _RETRIED)
            if reply.status not in _RETRIED or attempt == self.flags.retries:
                break
        return reply

    def _ask_pair(self, pair: Pair, path: str, timeout: float) -> Reply:
        self.ask_prefill(pair, path, timeout)
        try:
            return self.caller.post(pair.decode.url + path, pair.bodies[0], timeout)
        except UnreachableError as error:
            return Reply(500, {}, str(error).encode())

    def ask_prefill(self, pair: Pair, path: str, timeout: float) -> None:
        """Its answer is not passed on; what it did shows in decode's."""
        body = {**pair.bodies[0], "stream": False}

        def ask() -> None:
            try:
                self.caller.post(pair.prefill.url + path, body, timeout)
            except UnreachableError:
                self._remember(Pair(pair.prefill, pair.prefill), well=False)

        threading.Thread(target=ask, daemon=True).start()

    def _remember(self, pair: Pair, *, well: bool) -> None:
        with self._lock:
            for worker in {pair.prefill.id: pair.prefill, pair.decode.id: pair.decode}.values():
                outcome = {"worker": worker.url, "outcome": "success" if well else "failure"}
                self.metrics.add("smg_worker_cb_outcomes_total", 1.0, outcome)
                worker.failures = 0 if well else worker.failures + 1
                if worker.failures >= self.flags.failures_until_open:
                    worker.failures, worker.open_until = 0, time.monotonic() + self.flags.open_seconds
