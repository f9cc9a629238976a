"""Conditions for a probe request: the workers are alike, and run as rendered."""

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
    """Configuration that a worker reports, and its reply to a chat that bypasses the router."""

    endpoint: WorkerEndpoint
    info: EngineInfo
    kv_bytes_per_token: float | None  # over all ranks of the worker; None if it does not report it
    checksum: str | None  # of the weights in memory
    route: BootstrapRoute | None  # of a prefill worker
    direct: ChatResponse | EngineError  # reply to a chat without a pairing
    transport: Transport


def faults(release: Release, workers: Sequence[WorkerState], routed: Sequence[RoutedWorker]) -> list[str]:
    """All faults at once, each with the value found and the value expected."""
    found = [fault for worker in workers for fault in _own_faults(release.service, worker)]
    return found + _differences(workers) + _router_faults(release, routed)


def router_waits(release: Release, routed: Iterable[RoutedWorker]) -> list[str]:
    """The router answers long before it has registered all workers, and is ready with one healthy pair."""
    healthy = [worker.role for worker in routed if worker.healthy]
    return [
        f"the router to register {release.replicas[role]} healthy {role} workers; it has {healthy.count(role)}"
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
        f"the router has {counts} healthy workers",
        f"every worker refuses a chat that bypasses the router with {BAD_REQUEST}",
    ]
    return lines + _transport_line(release.service, workers)


def _transport_line(service: ModelService, workers: Sequence[WorkerState]) -> list[str]:
    if service.serving.fabric != "erdma":
        return []
    silent = [worker.endpoint.name for worker in workers if worker.transport == "unknown"]
    if silent:
        return [f"RDMA is as rendered; the logs of {', '.join(silent)} no longer show the transport"]
    return [f"KV cache goes over RDMA device {workers[0].info.rdma_device} on every worker"]


def _own_faults(service: ModelService, worker: WorkerState) -> list[str]:
    info, name = worker.info, worker.endpoint.name
    found = [
        f"{name}: {field} is {have!r}, expected {want!r}"
        for field, have, want in _expected(service, worker)
        if have != want
    ]
    if not (isinstance(worker.direct, EngineError) and worker.direct.status == BAD_REQUEST):
        found.append(
            f"{name}: a chat that bypasses the router was answered ({_reply(worker.direct)}), expected {BAD_REQUEST}: "
            f"this engine does not work as {worker.endpoint.role} of a pair"
        )
    if service.serving.fabric == "erdma" and (worker.transport == "tcp" or "mooncake_tcp" in info.launch_command):
        found.append(
            f"{name}: the transfer engine uses TCP, expected RDMA {_devices(service)}. Next: check "
            "/dev/infiniband and ibv_devinfo in the pod, and that the image contains the eRDMA user space"
        )
    return found


def _devices(service: ModelService) -> str:
    devices = service.serving.rdma_devices
    return f"device{'s' * (len(devices) > 1)} {', '.join(devices)}"


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
        checks.append(("the bootstrap port", info.bootstrap_port, service.serving.ports.bootstrap))
    if worker.route:
        checks.append(("the page size that it sends to decode", worker.route.page_size, info.page_size))
        checks.append(("the TP size that it sends to decode", worker.route.attn_tp_size, info.tp_size))
    return checks


# Values that prefill and decode must share. The handshake compares only some; a difference in the rest gives a 200 with
# garbage.
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
    for field, value_of in _ALIKE:
        values = {worker.endpoint.name: value_of(worker) for worker in workers}
        if len(set(values.values())) > 1:
            each = ", ".join(f"{name} has {value}" for name, value in values.items())
            found.append(f"the workers differ in {field}: {each}; a pair of them would answer with garbage")
    return found + _size_difference(workers)


def _size_difference(workers: Sequence[WorkerState]) -> list[str]:
    """Another number of layers or heads. The engine reports the size of its whole pool, so it is rounded."""
    sizes = {worker.endpoint.name: worker.kv_bytes_per_token or 0.0 for worker in workers}
    if not sizes or max(sizes.values()) <= min(sizes.values()) * 1.01:
        return []
    each = ", ".join(f"{name} has {size:g}" for name, size in sizes.items())
    return [f"the workers differ in KV bytes per token: {each}; they do not serve the same model"]


def _router_faults(release: Release, routed: Sequence[RoutedWorker]) -> list[str]:
    service = release.service
    found = [
        f"the router sends requests for {worker.url} with bootstrap port {worker.bootstrap_port}, "
        f"expected {service.serving.ports.bootstrap}"
        for worker in routed
        if worker.role == "prefill" and worker.bootstrap_port != service.serving.ports.bootstrap
    ]
    for role in WORKERS:
        urls = [worker.url for worker in routed if worker.role == role]
        if len(urls) > release.replicas[role]:
            found.append(
                f"the router has {len(urls)} {role} workers, expected {release.replicas[role]}: {', '.join(urls)}"
            )
    return found


def _value(args: Sequence[str], flag: str) -> str | None:
    """The value that argparse takes: the last one."""
    values = [value for name, value in pairwise(args) if name == flag]
    return values[-1] if values else None


def _reply(reply: ChatResponse | EngineError) -> str:
    return str(reply) if isinstance(reply, EngineError) else f"{reply.completion_tokens} tokens"
