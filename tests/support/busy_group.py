"""A prefill/decode group that other clients use, in virtual time: seeded, in one thread, without a socket.

A request is taken apart into the moments at which the engine counts; those of other clients fall between any two calls
of the step, and between two moments of its own requests. Order and lags are those of sglang 0.5.23: a request counts as
arrived before anything is done with it; once the KV cache has moved, prefill counts it, then the request, then answers,
while decode goes on; a client that hangs up ends a transfer on both sides, each in its own time.
"""

import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

from steps.adapters.sglang import answers, metrics
from steps.ports import sglang as ports
from steps.sglang.flags import worker_args
from tests.support.pd_group import MODEL_PATH, PdGroup
from workflows.simulator.core.engine import loaded_model, server_info
from workflows.simulator.core.engine.counters import Counters
from workflows.simulator.core.engine.fake_model import generate, render, tokens
from workflows.simulator.core.engine.flags import parse_worker
from workflows.simulator.core.engine.kv_transfer import KvCache
from workflows.simulator.core.engine.worker import Identity, Worker
from workflows.simulator.faults.engine_faults import EngineFaults, EngineTiming
from workflows.simulator.http.client import HttpCaller
from workflows.simulator.http.engine import EngineContainer
from workflows.simulator.runtime import Container

CHAT = ("POST", "/v1/chat/completions")
LOOK = 0.01  # seconds that a reading of metrics takes
PATIENCE = 60.0  # seconds until this step's client gives up


@dataclass(frozen=True)
class Others:
    rate: float  # requests a second
    hang_up: float = 0.1  # share of them that do not wait for the end


@dataclass(frozen=True)
class Broken:
    down: frozenset[str] = frozenset()  # workers that cannot be reached
    hung: frozenset[str] = frozenset()  # prefill that accepts requests and never answers
    silent: frozenset[str] = frozenset()  # prefill that answers requests without KV transfer
    share: float = 1.0  # of the KV cache that is moved
    wrong: frozenset[str] = frozenset()  # decode with other weights, which its checksum does not show
    pairs: frozenset[tuple[str, str]] = frozenset()  # no transfer between them succeeds


@dataclass
class _Request:
    prefill: str
    decode: str
    prompt: str
    limit: int  # tokens
    prefill_ended: bool = False
    reply: ports.ChatResponse | ports.EngineError | None = None
    hung_up: bool = False

    @property
    def over(self) -> bool:
        return self.prefill_ended and self.reply is not None


@dataclass
class BusyGroup:
    """An Inference. `advance` lets time pass."""

    pd: PdGroup
    others: Others
    seed: int
    broken: Broken = Broken()
    now: float = 0.0
    workers: dict[str, Worker] = field(default_factory=dict)
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _read: dict[str, ports.Metrics] = field(default_factory=dict)  # until the worker counts again

    def __post_init__(self) -> None:
        self._random, self._order, self._turn = Random(self.seed), count(), count(self.seed)
        caller = HttpCaller(self.pd.dial)
        model = loaded_model.load(self.pd.model, MODEL_PATH)
        for role in ("prefill", "decode"):
            for number in range(self.pd.release.replicas[role]):
                name, flags = f"{role}-{number}", parse_worker(worker_args(self.pd.release.service, role))
                identity = Identity(self.pd.pod(name), "0.5.23")
                worker = Worker(identity, flags, model, caller, EngineFaults(), EngineTiming(), die=lambda _line: None)
                worker.warm_up()
                self.workers[name] = worker
                container = Container(self.pd.pod(name), "engine", "sglang", (), (), {}, {}, ())
                self.pd.containers[name] = EngineContainer(container, caller, EngineFaults(), EngineTiming())
        if self.others.rate:
            self._after(self._random.expovariate(self.others.rate), self._one_of_others)
        self.advance(self._random.uniform(0, 3))

    # time

    def advance(self, seconds: float) -> None:
        self._run(lambda: False, seconds)

    def _run(self, over: Callable[[], bool], seconds: float) -> None:
        """Let moments pass until it is over, `seconds` at most."""
        until = self.now + seconds
        while not over():
            if not self._events or self._events[0][0] > until:
                self.now = until
                return
            self.now, _, moment = heapq.heappop(self._events)
            moment()

    def _after(self, seconds: float, moment: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), moment))

    def _lag(self, most: float) -> float:
        return self._random.uniform(0, most)

    # requests

    def _one_of_others(self) -> None:
        words = "keel " * self._random.randint(1, 40)
        request = self._through_router(words, self._random.randint(1, 60))
        if self._random.random() < self.others.hang_up:
            self._after(self._lag(1.5), lambda: self._hang_up(request))
        self._after(self._random.expovariate(self.others.rate), self._one_of_others)

    def _through_router(self, prompt: str, limit: int) -> _Request:
        turn = next(self._turn)
        prefill, decode = (
            f"{role}-{turn % self.pd.release.replicas[role]}" for role in ("prefill", "decode")
        )  # round robin
        return self._ask(prefill, decode, prompt, limit)

    def _ask(self, prefill: str, decode: str, prompt: str, limit: int) -> _Request:
        request = _Request(prefill, decode, render([{"role": "user", "content": prompt}]), limit)
        self._after(self._lag(0.005), lambda: self._counters(decode).asked(*CHAT))
        self._after(self._lag(0.005), lambda: self._begin(request))
        return request

    def _begin(self, request: _Request) -> None:
        self._counters(request.prefill).asked(*CHAT)
        if request.prefill not in self.broken.hung:
            self._after(0.02 + self._lag(0.1), lambda: self._moved(request))

    def _moved(self, request: _Request) -> None:
        if request.hung_up:
            return
        if (request.prefill, request.decode) in self.broken.pairs:
            self._after(self._lag(0.05), lambda: self._fail(request))
            return
        self._after(self._lag(0.02), lambda: self._prefill_counts(request))
        self._after(0.005 * request.limit + self._lag(0.2), lambda: self._decode_ends(request))

    def _prefill_counts(self, request: _Request) -> None:
        worker = self.workers[request.prefill]
        cache = KvCache(worker.weights, tokens(request.prompt), worker.kv_bytes_per_token)
        if request.prefill not in self.broken.silent:
            self._counters(request.prefill).transferred(int(cache.size * self.broken.share))
        self._after(self._lag(0.01), lambda: self._prefill_ends(request))

    def _prefill_ends(self, request: _Request) -> None:
        request.prefill_ended = True
        prompt = len(tokens(request.prompt))
        self._counters(request.prefill).finished(prompt, 1, stream=False)

    def _decode_ends(self, request: _Request) -> None:
        if request.hung_up:
            return
        worker = self.workers[request.decode]
        intact = request.decode not in self.broken.wrong
        made = generate(worker.weights, request.prompt, request.limit, intact=intact)
        count = len(made.tokens)
        ended = self._counters(request.decode)
        ended.finished(made.prompt_tokens, count, stream=False)
        name = worker.flags.served_model_name
        request.reply = ports.ChatResponse(name, made.text, "", made.finish_reason, made.prompt_tokens, count)

    def _fail(self, request: _Request) -> None:
        for name in (request.decode, request.prefill):
            self._counters(name).failed("transfer")
        request.prefill_ended, request.reply = True, ports.EngineError(500, "KVTransferError")

    def _hang_up(self, request: _Request) -> None:
        """Each side notices in its own time, and counts as in tests/recorded/sglang/hang-up."""
        request.hung_up = True
        if request.reply is None:
            self._after(self._lag(1.0), lambda: self._aborts(request.decode, request))
        if not request.prefill_ended:
            self._after(self._lag(1.0), lambda: self._aborts(request.prefill, request))

    def _aborts(self, name: str, request: _Request) -> None:
        self._counters(name).aborted()
        what = self._random.choice(["transfer", "bootstrap", ""])
        if what and not request.prefill_ended:
            self._after(self._lag(0.5), lambda: self._counters(name).failed(what))
        prompt = len(tokens(request.prompt))
        self._after(self._lag(0.05), lambda: self._counters(name).finished(prompt, 1, stream=True))

    # the port

    def engine_info(self, worker: ports.Server) -> ports.EngineInfo:
        found = self._at(worker)
        told = (json.dumps(told(found)) for told in (server_info.model_info, server_info.server_info))
        return answers.engine_info(*told)

    def weights_checksum(self, worker: ports.Server) -> str | None:
        self._counters(self._name(worker)).asked("POST", "/weights_checker")
        return self._at(worker).weights

    def bootstrap_route(self, bootstrap: ports.Server) -> ports.BootstrapRoute:
        flags = self._at(bootstrap).flags
        return ports.BootstrapRoute(flags.tp_size, flags.page_size, flags.kv_cache_dtype)

    def metrics(self, server: ports.Server) -> ports.Metrics:
        self.advance(LOOK)
        worker, name = self._at(server), self._name(server)
        if name not in self._read:
            self._read[name] = metrics.parse(worker.counters.text())
        return self._read[name]

    def routed_workers(self, router: ports.Server) -> list[ports.RoutedWorker]:
        port = self.pd.release.service.serving.ports.bootstrap
        return [
            ports.RoutedWorker(f"http://{name}:8000", role, True, port if role == "prefill" else None, MODEL_PATH)
            for name in self.workers
            for role in [name.partition("-")[0]]
        ]

    def chat(self, server: ports.Server, chat_request: ports.ChatRequest) -> ports.ChatResponse | ports.EngineError:
        if server.kind == "pods":
            self._counters(self._name(server)).asked(*CHAT)
            return ports.EngineError(400, "Disaggregated request received without bootstrap room id")
        request = self._through_router(chat_request.prompt, chat_request.max_tokens)
        if request.decode in self.broken.down:
            raise ports.NotServing("the router has nobody to answer a chat")
        self._run(lambda: request.reply is not None, PATIENCE)
        return request.reply or self._gave_up(request)

    def chat_on_pair(
        self, prefill: ports.Server, decode: ports.Server, pairing: ports.Pairing, chat_request: ports.ChatRequest
    ) -> ports.ChatResponse | ports.EngineError:
        request = self._ask(self._name(prefill), self._name(decode), chat_request.prompt, chat_request.max_tokens)
        self._run(lambda: request.over, PATIENCE)
        return request.reply if request.over and request.reply else self._gave_up(request)

    def _gave_up(self, request: _Request) -> ports.EngineError:
        self._hang_up(request)
        return ports.EngineError(0, f"no end of the request within {PATIENCE:g} s")

    def _counters(self, name: str) -> Counters:
        """The counters of a worker, to be moved; an earlier reading of them is outdated."""
        self._read.pop(name, None)
        return self.workers[name].counters

    def _name(self, server: ports.Server) -> str:
        return server.name.removeprefix(f"{self.pd.release.group}-")

    def _at(self, server: ports.Server) -> Worker:
        name = self._name(server)
        if name in self.broken.down:
            raise ports.NotServing(f"{server} cannot be reached: Connection refused")
        return self.workers[name]


def busy(pd: PdGroup, rate: float, seed: int, broken: Broken | None = None, *, hang_up: float = 0.1) -> BusyGroup:
    fresh = replace(pd, containers={})
    return BusyGroup(fresh, Others(rate, hang_up), seed, broken or Broken())
