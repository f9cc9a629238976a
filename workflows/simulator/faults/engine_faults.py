"""Faults of the simulated engine, and its timing."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class EngineFaults:
    """Faults of the embedded engine. A pod is named by the end of its name: `decode-0` matches that of any release."""

    crash_on_start: frozenset[str] = frozenset()
    slow_start: Mapping[str, float] = field(default_factory=dict)  # pod -> seconds until it has loaded its model
    wrong_weights: frozenset[str] = frozenset()  # serves bytes that are not those in its mount
    broken_pairs: frozenset[tuple[str, str]] = frozenset()  # (prefill, decode): the transfer of KV cache fails
    no_transfer: frozenset[str] = frozenset()  # prefill without KV transfer; its requests still end with 200
    tcp_fallback: frozenset[str] = frozenset()  # finds no usable RDMA device and takes TCP, silently

    def names(self, pods: frozenset[str], pod: str) -> bool:
        return any(pod == name or pod.endswith(f"-{name}") for name in pods)

    def breaks(self, prefill: str, decode: str) -> bool:
        return any(
            self.names(frozenset({first}), prefill) and self.names(frozenset({second}), decode)
            for first, second in self.broken_pairs
        )

    def start_delay(self, pod: str) -> float:
        """Seconds."""
        return next((delay for name, delay in self.slow_start.items() if self.names(frozenset({name}), pod)), 0.0)


@dataclass(frozen=True)
class EngineTiming:
    """Seconds. The real values, where they are longer, stand beside."""

    health_answer: float = 0.0  # 1.0: a worker's /health waits for one generated token
    handshake: float = 15.0  # a decode worker asks for the topology of prefill once a second
    transfer: float = 30.0  # 300: how long either half waits for the other
    watch: float = 0.25  # 5: how often the router checks its workers
