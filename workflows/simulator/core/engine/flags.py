"""The command lines of SGLang 0.5.23 and of its router 0.3.2, as strict as the originals.

The names of the engine's flags are the fields that its own /server_info listed.
"""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

KNOWN_FLAGS = Path(__file__).with_name("sglang-0.5.23-flags.json")
POLICIES = ("random", "round_robin", "cache_aware", "power_of_two", "manual")


class UsageError(Exception):
    """The words that argparse prints before it ends with 2."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"usage: {self.prog} [options]\n{self.prog}: error: {message}")


@dataclass(frozen=True)
class WorkerFlags:
    model_path: str
    served_model_name: str
    port: int
    mode: str  # "prefill", "decode" or "null"
    backend: str
    tcp: bool
    rdma_device: str | None
    bootstrap_port: int
    tp_size: int
    page_size: int
    kv_cache_dtype: str
    dtype: str
    context_length: int | None
    model_override: str
    chat_template: str | None
    metrics: bool
    max_total_tokens: int
    launch_command: str


@dataclass(frozen=True)
class RouterFlags:
    port: int
    prefill: tuple[tuple[str, int | None], ...]  # URL, bootstrap port
    decode: tuple[str, ...]
    policy: dict[str, str]  # role -> policy
    health_endpoint: str
    check_health: bool
    failures_until_unhealthy: int
    successes_until_healthy: int
    retries: int
    failures_until_open: int
    open_seconds: float


def parse_worker(words: Sequence[str]) -> WorkerFlags:
    """Raises UsageError for flags that 0.5.23 lacks, such as the removed --disaggregation-decode-tp."""
    found = _worker_parser().parse_args(words)
    tcp = found.disaggregation_transfer_backend == "mooncake_tcp"
    return WorkerFlags(
        model_path=found.model_path,
        served_model_name=found.served_model_name or found.model_path,
        port=found.port,
        mode=found.disaggregation_mode,
        backend="mooncake" if tcp else found.disaggregation_transfer_backend,
        tcp=tcp,
        rdma_device=None if tcp else found.disaggregation_ib_device,
        bootstrap_port=found.disaggregation_bootstrap_port,
        tp_size=found.tp_size,
        page_size=found.page_size,
        kv_cache_dtype=found.kv_cache_dtype,
        dtype=found.dtype,
        context_length=found.context_length,
        model_override=found.json_model_override_args,
        chat_template=found.chat_template,
        metrics=found.enable_metrics,
        max_total_tokens=found.max_total_tokens,
        launch_command=" ".join(words),
    )


def parse_router(words: Sequence[str]) -> RouterFlags:
    """Raises UsageError."""
    parser = _router_parser()
    found = parser.parse_args(words)
    if not found.pd_disaggregation:
        parser.error("this rehearsal knows --pd-disaggregation only")
    policies = {"prefill": found.prefill_policy or found.policy, "decode": found.decode_policy or found.policy}
    return RouterFlags(
        port=found.port,
        prefill=tuple(_prefill(parser, entry) for entry in found.prefill or ()),
        decode=tuple(entry[0] for entry in found.decode or ()),
        policy=policies,
        health_endpoint=found.health_check_endpoint,
        check_health=not found.disable_health_check,
        failures_until_unhealthy=found.health_failure_threshold,
        successes_until_healthy=found.health_success_threshold,
        retries=0 if found.disable_retries else found.retry_max_retries,
        failures_until_open=10**9 if found.disable_circuit_breaker else found.cb_failure_threshold,
        open_seconds=found.cb_timeout_duration_secs,
    )


@cache
def _worker_parser() -> _Parser:
    parser = _Parser(prog="launch_server.py", allow_abbrev=False)
    parser.add_argument("--model-path", "--model", required=True)
    parser.add_argument("--tensor-parallel-size", "--tp-size", "--tp", type=int, default=1, dest="tp_size")
    parser.add_argument("--data-parallel-size", "--dp-size", "--dp", type=int, default=1, choices=(1,))
    parser.add_argument("--pipeline-parallel-size", "--pp-size", type=int, default=1, choices=(1,))
    parser.add_argument("--expert-parallel-size", "--ep-size", "--ep", type=int, default=1)
    special: dict[str, dict[str, Any]] = {
        "--port": {"type": int, "default": 30000},
        "--page-size": {"type": int, "default": 1},
        "--context-length": {"type": int},
        "--dtype": {"default": "auto"},
        "--kv-cache-dtype": {"default": "auto"},
        "--json-model-override-args": {"default": "{}"},
        "--max-total-tokens": {"type": int, "default": 65536},
        "--disaggregation-mode": {"default": "null", "choices": ("null", "prefill", "decode")},
        "--disaggregation-transfer-backend": {
            "default": "mooncake",
            "choices": ("mooncake", "nixl", "ascend", "fake", "mori", "mooncake_tcp"),
        },
        "--disaggregation-bootstrap-port": {"type": int, "default": 8998},
    }
    known = json.loads(KNOWN_FLAGS.read_text(encoding="utf-8"))
    for flag in known["values"]:
        parser.add_argument(flag, **special.get(flag, {}))
    for flag in known["lists"]:
        parser.add_argument(flag, nargs="*")
    for flag in known["switches"]:
        parser.add_argument(flag, action="store_true")
    return parser


@cache
def _router_parser() -> _Parser:
    """https://docs.sglang.io/advanced_features/sgl_model_gateway.html"""
    parser = _Parser(prog="launch_router.py", allow_abbrev=False)
    for flag, options in _ROUTER_FLAGS.items():
        parser.add_argument(flag, **options)
    for flag in _ROUTER_SWITCHES:
        parser.add_argument(flag, action="store_true")
    for flag in _ROUTER_VALUES:
        parser.add_argument(flag)
    return parser


def _prefill(parser: _Parser, entry: list[str]) -> tuple[str, int | None]:
    url, *port = entry
    if len(port) > 1 or not all(word.isdigit() or word == "none" for word in port):
        parser.error(f"argument --prefill: expected URL [BOOTSTRAP_PORT], found {' '.join(entry)}")
    return url, int(port[0]) if port and port[0] != "none" else None


_ROUTER_FLAGS: dict[str, dict[str, Any]] = {
    "--port": {"type": int, "default": 30000},
    "--prefill": {"nargs": "+", "action": "append"},
    "--decode": {"nargs": 1, "action": "append"},
    "--policy": {"default": "cache_aware", "choices": POLICIES},
    "--prefill-policy": {"choices": (*POLICIES, "bucket")},
    "--decode-policy": {"choices": POLICIES},
    "--health-check-endpoint": {"default": "/health"},
    "--health-failure-threshold": {"type": int, "default": 3},
    "--health-success-threshold": {"type": int, "default": 2},
    "--retry-max-retries": {"type": int, "default": 5},
    "--cb-failure-threshold": {"type": int, "default": 10},
    "--cb-timeout-duration-secs": {"type": float, "default": 60.0},
    "--prefill-selector": {"nargs": "+"},
    "--decode-selector": {"nargs": "+"},
    "--selector": {"nargs": "+"},
    "--request-id-headers": {"nargs": "+"},
    "--cors-allowed-origins": {"nargs": "*"},
}
_ROUTER_SWITCHES = re.findall(
    r"\S+",
    """--pd-disaggregation --disable-health-check --disable-retries --disable-circuit-breaker --service-discovery
    --enable-trace --dp-aware""",
)
_ROUTER_VALUES = re.findall(
    r"\S+",
    """--host --prometheus-host --prometheus-port --worker-startup-timeout-secs --worker-startup-check-interval
    --health-check-interval-secs --health-check-timeout-secs --retry-initial-backoff-ms --retry-max-backoff-ms
    --retry-backoff-multiplier --retry-jitter-factor --cb-success-threshold --cb-window-duration-secs
    --max-concurrent-requests --queue-size --queue-timeout-secs --rate-limit-tokens-per-second --request-timeout-secs
    --shutdown-grace-period-secs --max-payload-size --api-key --log-dir --log-level --service-discovery-namespace
    --service-discovery-port --cache-threshold --balance-abs-threshold --balance-rel-threshold
    --eviction-interval-secs --max-tree-size --model-path --tokenizer-path --chat-template --reasoning-parser
    --tool-call-parser""",
)
