"""The command lines of SGLang workers and of the router, for the version inside the image.

Flags change between releases, and an unknown flag is a crash loop, so each has the first version that supports it.
Sources: `sglang/srt/arg_groups/`, `sglang/srt/entrypoints/http_server.py` and `sglang/srt/environ.py` of the wheels.
"""

from collections.abc import Sequence
from typing import Literal

from steps.document.engine import parsed
from steps.document.schema import ModelService, Serving

WorkerRole = Literal["prefill", "decode"]

WORKER_COMMAND = ("python3", "-m", "sglang.launch_server")
ROUTER_COMMAND = ("python3", "-m", "sglang_router.launch_router")
ROUTER_METRICS_PORT = 29000

_READY_ENDPOINT = (0, 5, 22)  # GET /ready answers at once; /health runs a request and takes a second at least
_TCP_BACKEND = (0, 5, 17)  # --disaggregation-transfer-backend mooncake_tcp
# With these the router drops a dead worker after about ten seconds and takes it back after five; with its defaults
# (60 s, 3 failures, 2 successes) traffic returns minutes late. Defaults: sglang_router.launch_router --help, 0.3.2.
HEALTH_INTERVAL = 5  # seconds
HEALTH_FAILURES = 2


def has_ready_endpoint(version: str) -> bool:
    return parsed(version) >= _READY_ENDPOINT


def worker_args(service: ModelService, role: WorkerRole) -> list[str]:
    """Arguments of a worker, those of the document last; `steps.document.engine` refuses second values for ours."""
    serving = service.serving
    return [
        *_pairs("--model-path", service.model_path),
        *_pairs("--served-model-name", service.served_model_name),
        *_pairs("--tp", serving.tensor_parallel),
        # All addresses, so that kubectl port-forward reaches a worker; on the pod's address alone it is refused.
        *_pairs("--host", "0.0.0.0"),  # noqa: S104  # inside the pod's own network
        *_pairs("--port", serving.ports.http),
        *_pairs("--disaggregation-mode", role),
        *_pairs("--disaggregation-transfer-backend", _backend(serving)),
        # Decode too: it falls back to its own value when the router names no port.
        *_pairs("--disaggregation-bootstrap-port", serving.ports.bootstrap),
        *(_pairs("--disaggregation-ib-device", ",".join(serving.rdma_devices)) if serving.fabric == "erdma" else ()),
        *(_pairs("--context-length", serving.context_length) if serving.context_length else ()),
        "--enable-metrics",
        *serving.worker(role).args,
    ]


def worker_env(serving: Serving, role: WorkerRole) -> dict[str, str]:
    """Environment of a worker; the document's own values win."""
    ours = {}
    if serving.fabric == "erdma":
        # The RoCEv2 entry of an eRDMA device; Mooncake's default is 3. https://kvcache-ai.github.io/Mooncake/
        ours["MC_GID_INDEX"] = "1"
    elif parsed(serving.version) < _TCP_BACKEND:
        ours["MC_FORCE_TCP"] = "1"
    return {**ours, **serving.worker(role).env}


def router_args(serving: Serving, prefill: Sequence[str], decode: Sequence[str]) -> list[str]:
    """Arguments of the router in front of workers at these addresses.

    The list is static: it needs no permission to list pods, and the DNS names outlive the pods. The bootstrap port
    must follow each prefill address; without it, the router sends none to the workers.
    """
    arguments = ["--pd-disaggregation"]
    for url in prefill:
        arguments += ["--prefill", url, str(serving.ports.bootstrap)]
    for url in decode:
        arguments += ["--decode", url]
    arguments += _pairs("--host", "0.0.0.0")  # noqa: S104  # inside the pod's own network
    arguments += _pairs("--port", serving.ports.http)
    arguments += _pairs("--policy", serving.router.policy)
    arguments += _pairs("--prometheus-host", "0.0.0.0")  # noqa: S104  # inside the pod's own network
    arguments += _pairs("--prometheus-port", ROUTER_METRICS_PORT)
    return [*arguments, *_router_health_args(serving), *serving.router.args]


def _router_health_args(serving: Serving) -> list[str]:
    instant = has_ready_endpoint(serving.version)
    return [
        *_pairs("--health-check-endpoint", "/ready" if instant else "/health"),
        *_pairs("--health-check-interval-secs", HEALTH_INTERVAL),
        *_pairs("--health-check-timeout-secs", 5 if instant else 25),
        *_pairs("--health-failure-threshold", HEALTH_FAILURES),
        *_pairs("--health-success-threshold", 1),
        *_pairs("--cb-timeout-duration-secs", 15),
        *_pairs("--request-timeout-secs", 1800),
    ]


def _backend(serving: Serving) -> str:
    wants_tcp = serving.fabric == "tcp" and parsed(serving.version) >= _TCP_BACKEND
    return "mooncake_tcp" if wants_tcp else "mooncake"


def _pairs(flag: str, value: str | int) -> list[str]:
    return [flag, str(value)]
