"""The metrics of a worker that a proof reads, counted as SGLang 0.5.23 counts them."""

from workflows.simulator.core.engine.flags import WorkerFlags
from workflows.simulator.core.engine.loaded_model import LoadedModel
from workflows.simulator.core.engine.metrics import MetricsRegistry

GIB = 2**30
MIB = 2**20


class Counters:
    def __init__(self, flags: WorkerFlags, model: LoadedModel) -> None:
        self._registry = MetricsRegistry()
        engine = {"prefill": "prefill", "decode": "decode"}.get(flags.mode, "unified")
        self._front = {"engine_type": engine, "model_name": flags.served_model_name}
        self._ranks = [
            {**self._front, "moe_ep_rank": "0", "pp_rank": "0", "tp_rank": str(rank)} for rank in range(flags.tp_size)
        ]
        capacity = flags.max_total_tokens
        # One page more than the capacity is allocated, for padded tokens.
        pool = model.kv_bytes_per_token(flags.tp_size) * (capacity + flags.page_size) / GIB
        sizes = {"max_total_num_tokens": capacity, "page_size": flags.page_size, "kv_cache_memory_usage_gb": pool}
        for name, size in sizes.items():
            for rank in self._ranks:
                self._registry.set(f"sglang:{name}", float(size), rank)

    def text(self) -> str:
        return self._registry.text()

    def finished(self, prompt: int, made: int, *, stream: bool) -> None:
        """A request ended well: `prompt` and `made` are tokens."""
        labels = {**self._front, "is_streaming": str(stream).lower()}
        self._registry.add("sglang:prompt_tokens_total", prompt, labels)
        self._registry.add("sglang:generation_tokens_total", made, labels)
        self._registry.add("sglang:num_requests_total", 1.0, labels)

    def transferred(self, size: int) -> None:
        """Prefill transferred the KV cache of one request: `size` bytes on each rank."""
        for rank in self._ranks:
            self._registry.observe("sglang:kv_transfer_total_mb", size / MIB, rank)

    def failed(self, what: str) -> None:
        """`what` is "bootstrap" or "transfer"."""
        for rank in self._ranks:
            self._registry.add(f"sglang:num_{what}_failed_reqs_total", 1.0, rank)

    def aborted(self) -> None:
        self._registry.add("sglang:num_aborted_requests_total", 1.0, self._front)

    def asked(self, method: str, endpoint: str) -> None:
        self._registry.add("sglang:http_requests_total", 1.0, {"endpoint": endpoint, "method": method})

    def replied(self, method: str, endpoint: str, status: int) -> None:
        labels = {"endpoint": endpoint, "method": method, "status_code": str(status)}
        self._registry.add("sglang:http_responses_total", 1.0, labels)
