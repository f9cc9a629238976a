"""Counters of workers, and the difference of two readings.

Meaning of the counters: sglang 0.5.23, python/sglang/srt/observability/metrics_collector.py. A counter exists only
after its first use, so an absent one is 0. Gauges lag by some forty decode steps and are not used.

Each rank of a worker exports its own series. One KV transfer raises the count by one on every rank of one dp rank, each
with its share of the bytes. Recorded at tp 2 and at dp attention 2: tests/recorded/sglang/README.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace

from steps.ports.sglang import Metrics, Sample

MIB = 2**20
GIB = 2**30

FAILURES = ("num_transfer_failed_reqs_total", "num_bootstrap_failed_reqs_total", "num_aborted_requests_total")
_POOL = "sglang:kv_cache_memory_usage_gb"  # a gauge of every rank, present from the start

Rank = tuple[str, str, str]  # dp, pp and tp rank; the first is empty without dp attention


@dataclass(frozen=True)
class KvTransfers:
    """KV caches that one rank sent; warm-up and /health send none."""

    count: float = 0.0
    mib: float = 0.0


@dataclass(frozen=True)
class Counters:
    """Of one worker, or the difference of two readings of it."""

    requests: float = 0.0  # ended, also by an abort
    prompt_tokens: float = 0.0
    arrived: float = 0.0  # POST requests, counted on arrival
    transfers_failed: float = 0.0
    bootstraps_failed: float = 0.0
    aborted: float = 0.0  # clients that hung up
    ranks: Mapping[Rank, KvTransfers] = field(default_factory=dict)

    def __sub__(self, before: "Counters") -> "Counters":
        changes = {name: getattr(self, name) - getattr(before, name) for name in _numbers()}
        ranks = {rank: self._since(before, rank) for rank in {**before.ranks, **self.ranks}}
        return replace(Counters(**changes), ranks=ranks)

    def _since(self, before: "Counters", rank: Rank) -> KvTransfers:
        now, then = self.ranks.get(rank, KvTransfers()), before.ranks.get(rank, KvTransfers())
        return KvTransfers(now.count - then.count, now.mib - then.mib)

    @property
    def kv_transfers(self) -> float:
        """KV caches of whole requests, by the rank with the highest count."""
        return sum(max(counts) for counts in self._groups())

    @property
    def ranks_agree(self) -> bool:
        """A reading may fall between two ranks: 5 of 468 did at tp 2."""
        return all(len(set(counts)) == 1 for counts in self._groups())

    @property
    def mib(self) -> float:
        return sum(rank.mib for rank in self.ranks.values())

    @property
    def went_back(self) -> bool:
        """Whether a counter fell: the process of the worker was restarted."""
        counts = (rank.count for rank in self.ranks.values())
        return any(value < 0 for value in (*counts, *(getattr(self, name) for name in _numbers())))

    @property
    def failures(self) -> dict[str, int]:
        """Failure counters that rose, by the engine's name."""
        moved = (self.transfers_failed, self.bootstraps_failed, self.aborted)
        return {name: round(count) for name, count in zip(FAILURES, moved, strict=True) if count > 0}

    def _groups(self) -> Iterator[list[float]]:
        """The counts of the ranks that share requests: one list for each dp rank."""
        for dp in {rank[0] for rank in self.ranks}:
            yield [counted.count for rank, counted in self.ranks.items() if rank[0] == dp]


def counters(metrics: Metrics) -> Counters:
    def total(name: str, **labels: str) -> float:
        return metrics.total(f"sglang:{name}", **labels) or 0.0

    # A failed request counts on every rank; a client that hung up counts once.
    transfers, bootstraps, aborted = (metrics.greatest(f"sglang:{name}") or 0.0 for name in FAILURES)
    return Counters(
        requests=total("num_requests_total"),
        prompt_tokens=total("prompt_tokens_total"),
        arrived=total("http_requests_total", method="POST"),
        transfers_failed=transfers,
        bootstraps_failed=bootstraps,
        aborted=aborted,
        ranks=_ranks(metrics),
    )


def kv_bytes_per_token(metrics: Metrics) -> float | None:
    """Size of one token in the KV cache of all ranks that hold it; None if the engine does not report it.

    The pool is one page larger than its capacity, for padded tokens (sglang, srt/mem_cache/memory_pool.py).
    """
    size = metrics.total(_POOL)
    capacity, page = metrics.greatest("sglang:max_total_num_tokens"), metrics.greatest("sglang:page_size")
    if not size or not capacity or not page:
        return None
    copies = len({rank[0] for rank in _ranks(metrics)})  # with dp attention, each dp rank has a pool of its own
    return round(size / copies * GIB / (capacity + page), 3)


def _ranks(metrics: Metrics) -> dict[Rank, KvTransfers]:
    def by_rank(name: str) -> dict[Rank, float]:
        return {_rank(sample): sample.value for sample in metrics.samples if sample.name == name}

    counts, sizes = by_rank("sglang:kv_transfer_total_mb_count"), by_rank("sglang:kv_transfer_total_mb_sum")
    return {rank: KvTransfers(counts.get(rank, 0.0), sizes.get(rank, 0.0)) for rank in {**by_rank(_POOL), **counts}}


def _rank(sample: Sample) -> Rank:
    labels = sample.labels
    return labels.get("dp_rank", ""), labels.get("pp_rank", ""), labels.get("tp_rank", "")


def _numbers() -> list[str]:
    return [field.name for field in fields(Counters) if field.name != "ranks"]
