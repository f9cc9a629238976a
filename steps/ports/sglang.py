"""The HTTP interface of SGLang workers and routers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from steps.errors import TransientError


class NotServing(TransientError):
    """No server answers yet: refused, no route, or a 503 during its start. A step may turn it into a wait."""


@dataclass(frozen=True)
class Server:
    """One HTTP server inside the cluster, reached directly from a pod, or through the API server from elsewhere."""

    kind: Literal["pods", "services"]
    namespace: str
    name: str
    port: int
    host: str  # pod IP or DNS name of the Service, for callers inside the cluster

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}:{self.port}"


@dataclass(frozen=True)
class EngineInfo:
    """Server info of a worker."""

    version: str
    disaggregation_mode: str  # "prefill", "decode", or "null" for an engine that does both
    model_path: str
    served_model_name: str
    weight_version: str
    tp_size: int
    page_size: int  # tokens
    kv_cache_dtype: str
    dtype: str
    context_length: int | None  # tokens; None is the model's own
    model_override: str  # JSON of --json-model-override-args
    chat_template: str | None
    transfer_backend: str
    rdma_device: str | None
    bootstrap_port: int
    launch_command: str


@dataclass(frozen=True)
class BootstrapRoute:
    """Reply of the bootstrap server of a prefill worker to decode workers, once every rank has registered."""

    attn_tp_size: int
    page_size: int  # tokens
    kv_cache_dtype: str


@dataclass(frozen=True)
class RoutedWorker:
    """A worker as the router reports it."""

    url: str
    role: str  # "prefill" or "decode"
    healthy: bool
    bootstrap_port: int | None
    served_model_name: str


@dataclass(frozen=True)
class Sample:
    """One line of a Prometheus exposition."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Metrics:
    samples: tuple[Sample, ...]

    def total(self, name: str, **labels: str) -> float | None:
        """Sum over all label sets that carry `labels`; None if there is none: counters appear with their first use."""
        found = [
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def greatest(self, name: str) -> float | None:
        return max((sample.value for sample in self.samples if sample.name == name), default=None)


@dataclass(frozen=True)
class ChatRequest:
    """A chat of one message, with greedy decoding and without reasoning."""

    model: str
    prompt: str
    max_tokens: int


@dataclass(frozen=True)
class ChatResponse:
    model: str
    text: str
    reasoning: str  # split off by the reasoning parser; empty without one
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class EngineError:
    """The engine answered with an error, also one inside a 200."""

    status: int  # 0: no answer in time
    message: str

    def __str__(self) -> str:
        return f"{self.status}: {self.message}" if self.status else self.message


@dataclass(frozen=True)
class Pairing:
    """Fields that a router adds to a request for both workers of a pair."""

    bootstrap_host: str
    bootstrap_port: int
    bootstrap_room: int


class Inference(Protocol):
    """SGLang's HTTP interface. Every method raises NotServing while no server answers."""

    def engine_info(self, worker: Server) -> EngineInfo: ...

    def weights_checksum(self, worker: Server) -> str | None:
        """Checksum of the weights in memory; None if this version has no such endpoint."""
        ...

    def bootstrap_route(self, bootstrap: Server) -> BootstrapRoute: ...

    def metrics(self, server: Server) -> Metrics: ...

    def routed_workers(self, router: Server) -> list[RoutedWorker]: ...

    def chat(self, server: Server, chat_request: ChatRequest) -> ChatResponse | EngineError: ...

    def chat_on_pair(
        self, prefill: Server, decode: Server, pairing: Pairing, chat_request: ChatRequest
    ) -> ChatResponse | EngineError:
        """Send the same request to both workers of a pair at the same time, as a router does."""
        ...
