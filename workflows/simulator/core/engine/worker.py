"""One simulated SGLang worker: its model, its requests, its counters. `http.worker` serves it."""

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from workflows.simulator.core.engine.calls import Caller, UnreachableError
from workflows.simulator.core.engine.counters import Counters
from workflows.simulator.core.engine.fake_model import Generation, generate, tokens
from workflows.simulator.core.engine.flags import WorkerFlags
from workflows.simulator.core.engine.kv_transfer import KV_PATH, KvCache, Rooms
from workflows.simulator.core.engine.loaded_model import LoadedModel
from workflows.simulator.faults.engine_faults import EngineFaults, EngineTiming

WARM_UP_PROMPT = 4  # tokens
WARM_UP_ANSWER = 8  # tokens


class RequestError(Exception):
    """The request ends with an HTTP error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class GenerateRequest:
    prompt: str
    limit: int  # tokens
    stream: bool
    room: int | None
    host: str | None
    port: int | None
    id: str

    @classmethod
    def of(cls, body: Mapping[str, Any], prompt: str) -> "GenerateRequest":
        room, host, port = (body.get(f"bootstrap_{name}") for name in ("room", "host", "port"))
        limit = int(body.get("max_completion_tokens") or body.get("max_tokens") or 256)
        return cls(prompt, limit, bool(body.get("stream")), room, host, port, uuid.uuid4().hex)


@dataclass(frozen=True)
class Identity:
    pod: str
    version: str  # of SGLang


class Worker:
    def __init__(
        self,
        identity: Identity,
        flags: WorkerFlags,
        model: LoadedModel,
        caller: Caller,
        faults: EngineFaults,
        timing: EngineTiming,
        die: Callable[[str], None],
    ) -> None:
        self.pod = identity.pod
        self.version = identity.version
        self.flags = flags
        self.model = model
        self.timing = timing
        self.rooms = Rooms()
        self.status = "starting"
        self.counters = Counters(flags, model)
        self._caller = caller
        self._faults = faults
        self._die = die
        self._running = threading.Semaphore(64)

    @property
    def weights(self) -> str:
        """Digest of the weights that it serves."""
        wrong = self._faults.names(self._faults.wrong_weights, self.pod)
        return self.model.digest[::-1] if wrong else self.model.digest

    @property
    def context_length(self) -> int:
        override = json.loads(self.flags.model_override).get("max_position_embeddings")
        return self.flags.context_length or override or self.model.context_length

    @property
    def kv_bytes_per_token(self) -> int:
        return self.model.kv_bytes_per_token(self.flags.tp_size)

    def is_silent(self) -> bool:
        return self._faults.names(self._faults.no_transfer, self.pod)

    def broken_with(self, decode: str) -> bool:
        return self._faults.breaks(self.pod, decode)

    def topology(self) -> dict[str, Any] | None:
        """The facts that a decode worker compares in the handshake; None until this worker is ready."""
        if self.status == "starting":
            return None
        flags = self.flags
        return {
            "attn_tp_size": flags.tp_size,
            "page_size": flags.page_size,
            "kv_cache_dtype": flags.kv_cache_dtype,
            "prefill_http_port": flags.port,
        }

    def warm_up(self) -> None:
        """One request that the engine sends itself; it moves no KV cache, and the worker is ready after it."""
        made = 1 if self.flags.mode == "prefill" else WARM_UP_ANSWER
        self.counters.finished(WARM_UP_PROMPT, made, stream=False)
        self.status = "ready"

    def answer(self, request: GenerateRequest) -> Generation:
        """Raises RequestError."""
        count = len(tokens(request.prompt))
        if count >= self.context_length:
            raise RequestError(
                400,
                f"The input ({count} tokens) is longer than the model's context length ({self.context_length} tokens).",
            )
        if self.flags.mode != "null" and request.room is None:
            raise RequestError(
                400,
                f"Invalid request: Disaggregated request received without bootstrap room id. req.rid='{request.id}'",
            )
        work = {"prefill": self._prefill, "decode": self._decode}.get(self.flags.mode, self._alone)
        with self._running:
            generation = work(request)
        self.counters.finished(count, len(generation.tokens), stream=request.stream)
        return generation

    def _alone(self, request: GenerateRequest) -> Generation:
        return generate(self.weights, request.prompt, request.limit)

    def _prefill(self, request: GenerateRequest) -> Generation:
        assert request.room is not None
        if not self.is_silent():
            cache = KvCache(self.weights, tokens(request.prompt), self.kv_bytes_per_token)
            self.rooms.offer(request.room, cache, self.flags.tp_size)
            failure = self.rooms.close(request.room, self.timing.transfer)
            if failure:
                self.counters.failed("transfer")
                raise RequestError(500, f"KVTransferError(bootstrap_room={request.room}): {failure}")
            self.counters.transferred(cache.size)
        return generate(self.weights, request.prompt, 1)

    def _decode(self, request: GenerateRequest) -> Generation:
        # Without a port from the router, each worker takes its own: sglang 0.5.23, srt/disaggregation/common/conn.py.
        source = f"http://{request.host}:{request.port or self.flags.bootstrap_port}"
        self._compare(self._shake_hands(source, request))
        intact = self._receive(source, request)
        return generate(self.weights, request.prompt, request.limit, intact=intact)

    def _shake_hands(self, source: str, request: GenerateRequest) -> Mapping[str, Any]:
        """The topology of prefill, asked for until it is there."""
        route = f"{source}/route?prefill_dp_rank=-1&prefill_cp_rank=-1&target_tp_rank=-1&target_pp_rank=-1"
        until = time.monotonic() + self.timing.handshake
        pause = threading.Event()
        while True:
            try:
                with self._caller.ask("GET", route) as reply:
                    if reply.status == HTTPStatus.OK:
                        topology: Mapping[str, Any] = reply.json()
                        return topology
                    why = f"{reply.status} {reply.read().decode()}"
            except UnreachableError as error:
                why = str(error)
            if time.monotonic() > until:
                self.counters.failed("bootstrap")
                raise RequestError(
                    500, f"Could not fetch prefill server info from bootstrap_addr: {source} ({why}). {request.id}"
                )
            pause.wait(self.timing.handshake / 15)

    def _compare(self, topology: Mapping[str, Any]) -> None:
        for name, own in {"page_size": self.flags.page_size, "kv_cache_dtype": self.flags.kv_cache_dtype}.items():
            if topology[name] != own:
                message = f"RuntimeError: {name} mismatch: prefill server has {topology[name]}, decode server has {own}"
                self._die(message)
                raise RequestError(500, message)

    def _receive(self, source: str, request: GenerateRequest) -> bool:
        """Fetch the KV cache of every rank; true if it is the one that these weights would have computed."""
        own = KvCache(self.weights, tokens(request.prompt), self.kv_bytes_per_token)
        intact = True
        for rank in range(self.flags.tp_size):
            url = f"{source}{KV_PATH}?room={request.room}&rank={rank}&decode={self.pod}"
            try:
                with self._caller.ask("GET", url, timeout=self.timing.transfer) as reply:
                    if reply.status == HTTPStatus.NO_CONTENT:
                        return True
                    if reply.status != HTTPStatus.OK:
                        raise self._lost(request, reply.read().decode())
                    intact &= _digest(own.blocks(rank)) == _digest(reply.blocks)
            except UnreachableError as error:
                raise self._lost(request, str(error)) from error
        return intact

    def _lost(self, request: GenerateRequest, why: str) -> RequestError:
        self.counters.failed("transfer")
        return RequestError(
            500, f"KVTransferError(bootstrap_room={request.room}): Failed to get kvcache from prefill instance: {why}"
        )


def _digest(blocks: Iterable[bytes]) -> bytes:
    found = hashlib.sha256()
    for block in blocks:
        found.update(block)
    return found.digest()
