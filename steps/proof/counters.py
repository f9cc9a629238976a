"""Counters of workers, and what moved between two readings.

Which counter moves how: sglang 0.5.23, python/sglang/srt/observability/metrics_collector.py. A counter exists only
after its first use, so an absent one is 0. Gauges are late by some forty decode steps and are not used.
"""

from dataclasses import dataclass, fields

from steps.ports import Metrics

MIB = 2**20
GIB = 2**30

FAILURES = ("num_transfer_failed_reqs_total", "num_bootstrap_failed_reqs_total", "num_aborted_requests_total")


@dataclass(frozen=True)
class Counters:
    """Of one worker, or the difference of two readings of it."""

    transfers: float = 0.0  # KV caches that a prefill worker handed over; warm-up and /health move none
    transferred_mib: float = 0.0
    requests: float = 0.0
    prompt_tokens: float = 0.0
    generated_tokens: float = 0.0
    transfers_failed: float = 0.0
    bootstraps_failed: float = 0.0
    aborted: float = 0.0

    def __sub__(self, before: "Counters") -> "Counters":
        names = [field.name for field in fields(self)]
        return Counters(**{name: getattr(self, name) - getattr(before, name) for name in names})

    @property
    def went_back(self) -> bool:
        """A counter never falls, unless its process was started again."""
        return any(getattr(self, field.name) < 0 for field in fields(self))

    @property
    def failures(self) -> dict[str, int]:
        """Failure counters that moved, by the engine's name."""
        moved = (self.transfers_failed, self.bootstraps_failed, self.aborted)
        return {name: round(count) for name, count in zip(FAILURES, moved, strict=True) if count > 0}


def counters(metrics: Metrics) -> Counters:
    def total(name: str) -> float:
        return metrics.total(f"sglang:{name}") or 0.0

    failures = [total(name) for name in FAILURES]
    return Counters(
        total("kv_transfer_total_mb_count"),
        total("kv_transfer_total_mb_sum"),
        total("num_requests_total"),
        total("prompt_tokens_total"),
        total("generation_tokens_total"),
        *failures,
    )


def kv_bytes_per_token(metrics: Metrics) -> float | None:
    """What one token takes in the KV cache of all ranks that export metrics; by default that is one rank.

    The pool holds one page more than its capacity, for padded tokens (sglang, srt/mem_cache/memory_pool.py).
    """
    size = metrics.total("sglang:kv_cache_memory_usage_gb")
    capacity, page = metrics.greatest("sglang:max_total_num_tokens"), metrics.greatest("sglang:page_size")
    if not size or not capacity or not page:
        return None
    return round(size * GIB / (capacity + page), 3)
