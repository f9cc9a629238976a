"""What must hold before a request is worth sending: the workers are alike, and are what was rendered."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from steps.document.schema import ModelService
from steps.objects.group import WORKERS
from steps.ports.sglang import BootstrapRoute, ChatResponse, EngineError, EngineInfo, RoutedWorker
from steps.proof.transport import Transport
from steps.proof.worker_endpoints import WorkerEndpoint
from steps.release import Release
from steps.sglang.flags import worker_args

BAD_REQUEST = 400


@dataclass(frozen=True)
class WorkerState:
    """What a worker says about itself."""

    endpoint: WorkerEndpoint
    info: EngineInfo
    kv_bytes_per_token: float | None  # over all ranks that it counts; None if it does not tell
    checksum: str | None  # of the weights in memory
    route: BootstrapRoute | None  # of a prefill worker
    direct: ChatResponse | EngineError  # to a chat that no router had paired
    transport: Transport


def faults(release: Release, workers: Sequence[WorkerState], routed: Sequence[RoutedWorker]) -> list[str]:
    """Everything at once, each with what was found and what was expected."""
    found = [fault for worker in workers for fault in _own_faults(release.service, worker)]
    return found + _differences(workers) + _router_faults(release, routed)


def router_waits(release: Release, routed: Iterable[RoutedWorker]) -> list[str]:
    """The router answers long before it knows all workers, and is ready with one healthy pair."""
    healthy = [worker.role for worker in routed if worker.healthy]
    return [
        f"the router to see {release.replicas[role]} healthy {role} workers; it sees {healthy.count(role)}"
        for role in WORKERS
        if healthy.count(role) < release.replicas[role]
    ]


def kept(release: Release, workers: Sequence[WorkerState]) -> list[str]:
    first = workers[0]
    counts = " and ".join(f"{release.replicas[role]} {role}" for role in WORKERS)
    weights = (
        f"the same weights {first.checksum[:12]}" if first.checksum else "weights that this version cannot compare"
    )
    lines = [
        f"{counts} workers run SGLang {first.info.version} with {first.info.model_path}, {weights}",
        f"the router sees {counts} healthy workers",
        f"a chat past the router is refused with {BAD_REQUEST} by every worker",
    ]
    return lines + _transport_line(release.service, workers)


def _transport_line(service: ModelService, workers: Sequence[WorkerState]) -> list[str]:
    if service.serving.fabric != "erdma":
        return []
    silent = [worker.endpoint.name for worker in workers if worker.transport == "unknown"]
    if silent:
        return [f"RDMA is as rendered; the logs of {', '.join(silent)} no longer tell which transport was taken"]
    return [f"KV cache goes over RDMA device {workers[0].info.rdma_device} on every worker"]


def _own_faults(service: ModelService, worker: WorkerState) -> list[str]:
    info, name = worker.info, worker.endpoint.name
    found = [
        f"{name}: {what} is {have!r}, expected {want!r}"
        for what, have, want in _expected(service, worker)
        if have != want
    ]
    if not (isinstance(worker.direct, EngineError) and worker.direct.status == BAD_REQUEST):
        found.append(
            f"{name}: a chat past the router was answered ({_told(worker.direct)}), expected a refusal with "
            f"{BAD_REQUEST}: this engine does not work as {worker.endpoint.role} of a pair"
        )
    if service.serving.fabric == "erdma" and (worker.transport == "tcp" or "mooncake_tcp" in info.launch_command):
        found.append(
            f"{name}: the transfer engine took TCP, expected RDMA device {service.serving.rdma_device}; check "
            "/dev/infiniband and ibv_devinfo in the pod, and that the image holds the eRDMA userspace"
        )
    return found


def _expected(service: ModelService, worker: WorkerState) -> list[tuple[str, object, object]]:
    info, endpoint = worker.info, worker.endpoint
    rendered = worker_args(service, "prefill" if endpoint.role == "prefill" else "decode")
    checks: list[tuple[str, object, object]] = [
        ("the SGLang version", info.version, service.serving.version),
        ("the disaggregation mode", info.disaggregation_mode, endpoint.role),
        ("the model path", info.model_path, _value(rendered, "--model-path")),
        ("the served model name", info.served_model_name, _value(rendered, "--served-model-name")),
        ("the tensor-parallel size", info.tp_size, service.serving.tensor_parallel),
    ]
    if service.serving.fabric == "erdma":
        checks.append(("the RDMA device", info.rdma_device, _value(rendered, "--disaggregation-ib-device")))
    if endpoint.role == "prefill":
        checks.append(("the bootstrap port", info.bootstrap_port, service.serving.bootstrap_port))
    if worker.route:
        checks.append(("the page size that it tells decode", worker.route.page_size, info.page_size))
        checks.append(("the TP size that it tells decode", worker.route.attn_tp_size, info.tp_size))
    return checks


# What prefill and decode must agree on; the handshake compares only some of it, and the rest is a 200 with garbage.
_ALIKE: tuple[tuple[str, Callable[[WorkerState], object]], ...] = (
    ("weights", lambda worker: worker.checksum),
    ("SGLang version", lambda worker: worker.info.version),
    ("page size", lambda worker: worker.info.page_size),
    ("KV cache dtype", lambda worker: worker.info.kv_cache_dtype),
    ("dtype", lambda worker: worker.info.dtype),
    ("tensor-parallel size", lambda worker: worker.info.tp_size),
    ("context length", lambda worker: worker.info.context_length),
    ("model overrides", lambda worker: worker.info.model_override),
    ("chat template", lambda worker: worker.info.chat_template),
    ("weight version", lambda worker: worker.info.weight_version),
    ("transfer backend", lambda worker: worker.info.transfer_backend),
)


def _differences(workers: Sequence[WorkerState]) -> list[str]:
    found = []
    for what, value_of in _ALIKE:
        values = {worker.endpoint.name: value_of(worker) for worker in workers}
        if len(set(values.values())) > 1:
            each = ", ".join(f"{name} has {value}" for name, value in values.items())
            found.append(f"the workers differ in {what}: {each}; a pair of them would answer with garbage")
    return found + _size_difference(workers)


def _size_difference(workers: Sequence[WorkerState]) -> list[str]:
    """Another number of layers or heads. The engine tells the size of its whole pool, so a little is rounding."""
    sizes = {worker.endpoint.name: worker.kv_bytes_per_token or 0.0 for worker in workers}
    if not sizes or max(sizes.values()) <= min(sizes.values()) * 1.01:
        return []
    each = ", ".join(f"{name} has {size:g}" for name, size in sizes.items())
    return [f"the workers differ in KV bytes per token: {each}; they do not serve the same model"]


def _router_faults(release: Release, routed: Sequence[RoutedWorker]) -> list[str]:
    service = release.service
    found = [
        f"the router sends requests for {worker.url} with bootstrap port {worker.bootstrap_port}, "
        f"expected {service.serving.bootstrap_port}"
        for worker in routed
        if worker.role == "prefill" and worker.bootstrap_port != service.serving.bootstrap_port
    ]
    for role in WORKERS:
        urls = [worker.url for worker in routed if worker.role == role]
        if len(urls) > release.replicas[role]:
            found.append(
                f"the router knows {len(urls)} {role} workers, expected {release.replicas[role]}: {', '.join(urls)}"
            )
    return found


def _value(args: Sequence[str], flag: str) -> str | None:
    """The value that argparse takes: the last one."""
    values = [value for name, value in pairwise(args) if name == flag]
    return values[-1] if values else None


def _told(reply: ChatResponse | EngineError) -> str:
    return str(reply) if isinstance(reply, EngineError) else f"{reply.completion_tokens} tokens"
