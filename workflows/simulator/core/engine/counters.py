"""The metrics of a worker, moved as SGLang 0.5.23 moves them. Families appear with their first use."""

from workflows.simulator.core.engine.flags import WorkerFlags
from workflows.simulator.core.engine.loaded_model import LoadedModel
from workflows.simulator.core.engine.metrics import MetricsRegistry

GIB = 2**30
MIB = 2**20

_STAGES = {
    "prefill": ("prefill_bootstrap", "prefill_forward", "prefill_transfer_kv_cache"),
    "decode": ("decode_prepare", "decode_bootstrap", "decode_transferred", "decode_waiting", "fake_output"),
    "null": (),
}
_HELP = {
    "sglang:num_requests_total": "Number of requests processed.",
    "sglang:kv_transfer_total_mb": "Histogram of KV cache transfer size in MB.",
    "sglang:kv_transfer_latency_ms": "Histogram of KV cache transfer latency in ms.",
    "sglang:kv_transfer_speed_gb_s": "Histogram of KV cache transfer speed in GB/s.",
    "sglang:kv_transfer_bootstrap_ms": "Histogram of KV transfer bootstrap time in ms.",
    "sglang:kv_transfer_alloc_ms": "Histogram of KV transfer allocation waiting time in ms.",
}


class Counters:
    def __init__(self, flags: WorkerFlags, model: LoadedModel) -> None:
        self._flags = flags
        self._registry = MetricsRegistry(_HELP)
        engine = {"prefill": "prefill", "decode": "decode"}.get(flags.mode, "unified")
        self._front = {"engine_type": engine, "model_name": flags.served_model_name}
        self._ranks = [
            {**self._front, "moe_ep_rank": "0", "pp_rank": "0", "tp_rank": str(rank)} for rank in range(flags.tp_size)
        ]
        self._scheduler = self._ranks[0]
        capacity = flags.max_total_tokens
        for name, value in {
            "num_running_reqs": 0,
            "num_queue_reqs": 0,
            "num_used_tokens": 0,
            "token_usage": 0,
            "num_prefill_bootstrap_queue_reqs": 0,
            "num_prefill_inflight_queue_reqs": 0,
            "num_decode_prealloc_queue_reqs": 0,
            "num_decode_transfer_queue_reqs": 0,
        }.items():
            self._registry.set(f"sglang:{name}", float(value), self._scheduler)
        # One page more than the capacity is allocated, for padded tokens.
        pool = model.kv_bytes_per_token(flags.tp_size) * (capacity + flags.page_size) / GIB
        sizes = {"max_total_num_tokens": capacity, "page_size": flags.page_size, "kv_cache_memory_usage_gb": pool}
        for name, size in sizes.items():
            for rank in self._ranks:
                self._registry.set(f"sglang:{name}", float(size), rank)

    def text(self) -> str:
        return self._registry.text()

    def staged(self) -> None:
        """A request passed every stage of the scheduler; so do warm-up and /health, which move no KV cache."""
        for stage in _STAGES[self._flags.mode]:
            labels = {**self._scheduler, "stage": stage}
            self._registry.observe("sglang:per_stage_req_latency_seconds", 0.001, labels)

    def finished(self, prompt: int, made: int, *, seconds: float, stream: bool) -> None:
        """A request ended well: `prompt` and `made` are tokens."""
        labels = {**self._front, "is_streaming": str(stream).lower()}
        self._registry.add("sglang:prompt_tokens_total", prompt, labels)
        self._registry.add("sglang:generation_tokens_total", made, labels)
        self._registry.add("sglang:num_requests_total", 1.0, labels)
        self._registry.observe("sglang:e2e_request_latency_seconds", seconds, labels)
        if self._flags.mode != "prefill":
            self._registry.observe("sglang:time_to_first_token_seconds", seconds, labels)

    def transferred(self, size: int, prompt: int, seconds: float) -> None:
        """Prefill handed over `size` bytes of each rank for `prompt` tokens."""
        observed = {
            "latency_ms": seconds * 1000,
            "total_mb": size / MIB,
            "speed_gb_s": size / GIB / max(seconds, 1e-6),
            "bootstrap_ms": 1.0,
            "alloc_ms": 0.1,
        }
        for rank in self._ranks:
            for name, value in observed.items():
                self._registry.observe(f"sglang:kv_transfer_{name}", value, rank)
        labels = {**self._scheduler, "mode": "prefill_compute"}
        self._registry.add("sglang:realtime_tokens_total", prompt, labels)
        self.staged()

    def decoded(self, made: int) -> None:
        """Decode made `made` tokens, the first of which came from prefill."""
        for rank in self._ranks:
            for name in ("bootstrap_ms", "alloc_ms"):
                self._registry.observe(f"sglang:kv_transfer_{name}", 1.0, rank)
        labels = {**self._scheduler, "mode": "decode"}
        self._registry.add("sglang:realtime_tokens_total", max(0, made - 1), labels)
        self.staged()

    def failed(self, what: str) -> None:
        """`what` is "bootstrap" or "transfer"."""
        for rank in self._ranks:
            self._registry.add(f"sglang:num_{what}_failed_reqs_total", 1.0, rank)

    def aborted(self) -> None:
        self._registry.add("sglang:num_aborted_requests_total", 1.0, self._front)

    def asked(self, method: str, endpoint: str) -> None:
        labels = {"endpoint": endpoint, "method": method}
        self._registry.add("sglang:http_requests_total", 1.0, labels)

    def replied(self, method: str, endpoint: str, status: int) -> None:
        labels = {"endpoint": endpoint, "method": method, "status_code": str(status)}
        self._registry.add("sglang:http_responses_total", 1.0, labels)
