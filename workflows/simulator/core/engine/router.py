"""One simulated router (sglang-router 0.3.2, prefill-decode mode): its known workers, and the pair for a request."""

import random
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from workflows.simulator.core.engine.calls import Caller, HttpAnswer, UnreachableError
from workflows.simulator.core.engine.flags import RouterFlags

REQUEST_SECONDS = 300.0
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})


@dataclass
class KnownWorker:
    """A worker of the router's arguments. It is not listed until its first health check succeeds."""

    url: str
    role: str
    bootstrap_port: int | None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    model_name: str = ""
    registered: bool = False
    healthy: bool = False
    streak: int = 0  # checks in a row that disagree with `healthy`
    failures: int = 0  # requests in a row
    open_until: float = 0.0  # the circuit breaker lets no request through before

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
            "model_id": self.model_name,
            "worker_type": self.role,
            "is_healthy": self.healthy,
            **port,
        }


class NoWorkersError(Exception):
    """No worker of one role is available."""


@dataclass(frozen=True)
class Pair:
    prefill: KnownWorker
    decode: KnownWorker
    body: dict[str, Any]  # of the request to both


class Router:
    def __init__(self, flags: RouterFlags, caller: Caller) -> None:
        self.flags = flags
        self.caller = caller
        self.workers = [KnownWorker(url, "prefill", port) for url, port in flags.prefill]
        self.workers += [KnownWorker(url, "decode", None) for url in flags.decode]
        self._lock = threading.Lock()
        self._turn = {"prefill": 0, "decode": 0}
        self._random = random.Random(0)  # noqa: S311  # a repeatable rehearsal, not a secret

    def registered(self) -> list[KnownWorker]:
        return [worker for worker in self.workers if worker.registered]

    def ready(self) -> bool:
        return {worker.role for worker in self.registered() if worker.healthy} >= {"prefill", "decode"}

    def watch(self, stopped: threading.Event, every: float) -> None:
        """Check the health of all workers, and register new ones, until `stopped`."""
        while not stopped.is_set():
            for worker in self.workers:
                if self.flags.check_health or not worker.registered:
                    self._check(worker)
            stopped.wait(every)

    def _check(self, worker: KnownWorker) -> None:
        well = self._is_up(worker)
        if well and not worker.registered:
            self._register(worker)
            return
        worker.streak = 0 if well == worker.healthy else worker.streak + 1
        needed = self.flags.successes_until_healthy if well else self.flags.failures_until_unhealthy
        if worker.registered and worker.streak >= needed:
            worker.healthy, worker.streak = well, 0

    def _is_up(self, worker: KnownWorker) -> bool:
        try:
            with self.caller.ask("GET", worker.url + self.flags.health_endpoint) as reply:
                return reply.status == HTTPStatus.OK
        except UnreachableError:
            return False

    def _register(self, worker: KnownWorker) -> None:
        try:
            with self.caller.ask("GET", f"{worker.url}/model_info") as reply:
                worker.model_name = reply.json()["served_model_name"]
        except (UnreachableError, ValueError):
            return
        worker.healthy = worker.registered = True

    def ask(self, path: str, body: Mapping[str, Any], stack: ExitStack) -> HttpAnswer:
        """Both halves of one request at the same time, with retries; the answer is decode's, open as long as `stack`.

        Raises NoWorkersError, and UnreachableError of the last attempt.
        """
        left = self.flags.retries
        while True:
            pair = self._pair(body)
            self._ask_prefill(pair, path)
            try:
                reply = stack.enter_context(self.caller.ask("POST", pair.decode.url + path, pair.body, REQUEST_SECONDS))
            except UnreachableError:
                self._count(False, pair.prefill, pair.decode)
                if not left:
                    raise
            else:
                well = reply.status not in _RETRIED
                self._count(well, pair.prefill, pair.decode)
                if well or not left:
                    return reply
                stack.close()
            left -= 1

    def _pair(self, body: Mapping[str, Any]) -> Pair:
        """One prefill and one decode. Raises NoWorkersError."""
        prefill, decode = self._pick("prefill"), self._pick("decode")
        room = random.SystemRandom().getrandbits(63)
        added = {"bootstrap_host": prefill.host, "bootstrap_port": prefill.bootstrap_port, "bootstrap_room": room}
        return Pair(prefill, decode, {**body, **added})

    def _pick(self, role: str) -> KnownWorker:
        with self._lock:
            now = time.monotonic()
            available = [worker for worker in self.workers if worker.role == role and worker.available(now)]
            if not available:
                raise NoWorkersError(f"No available {role} workers (all circuits open or unhealthy)")
            if self.flags.policy[role] == "round_robin":
                self._turn[role] += 1
                return available[(self._turn[role] - 1) % len(available)]
            return self._random.choice(available)

    def _ask_prefill(self, pair: Pair, path: str) -> None:
        """Its answer is not passed on; its effect shows in decode's."""

        def ask() -> None:
            try:
                with self.caller.ask(
                    "POST", pair.prefill.url + path, {**pair.body, "stream": False}, REQUEST_SECONDS
                ) as reply:
                    reply.read()
            except UnreachableError:
                self._count(False, pair.prefill)

        threading.Thread(target=ask, daemon=True).start()

    def _count(self, well: bool, *workers: KnownWorker) -> None:
        with self._lock:
            for worker in workers:
                worker.failures = 0 if well else worker.failures + 1
                if worker.failures >= self.flags.failures_until_open:
                    worker.failures, worker.open_until = 0, time.monotonic() + self.flags.open_seconds
