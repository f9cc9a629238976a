"""Counters, gauges and histograms, and the Prometheus text of them. A family appears with its first use."""

import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

Labels = tuple[tuple[str, str], ...]

_DEFAULT_BOUNDS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
_BOUNDS = {"sglang:kv_transfer_total_mb": (1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0, 10000.0)}


@dataclass
class _Histogram:
    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def observe(self, value: float) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class MetricsRegistry:
    def __init__(self, help_texts: Mapping[str, str] | None = None) -> None:
        self._help = help_texts or {}
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, float]] = {}
        self._gauges: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {}

    def add(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        with self._lock:
            series = self._counters.setdefault(name, {})
            series[_key(labels)] = series.get(_key(labels), 0.0) + value

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        with self._lock:
            self._gauges.setdefault(name, {})[_key(labels)] = value

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        with self._lock:
            series = self._histograms.setdefault(name, {})
            series.setdefault(_key(labels), _Histogram(_BOUNDS.get(name, _DEFAULT_BOUNDS))).observe(value)

    def text(self) -> str:
        with self._lock:
            lines: list[str] = []
            for kind, families in (("counter", self._counters), ("gauge", self._gauges)):
                for name, series in families.items():
                    lines += self._head(name, kind)
                    lines += [f"{name}{_labels(labels)} {value}" for labels, value in series.items()]
            for name, histograms in self._histograms.items():
                lines += self._head(name, "histogram")
                for labels, histogram in histograms.items():
                    lines += _histogram_lines(name, labels, histogram)
            return "\n".join(lines) + "\n"

    def _head(self, name: str, kind: str) -> list[str]:
        described = [f"# HELP {name} {self._help[name]}"] if name in self._help else []
        return [*described, f"# TYPE {name} {kind}"]


def _histogram_lines(name: str, labels: Labels, histogram: _Histogram) -> list[str]:
    lines = [f"{name}_sum{_labels(labels)} {histogram.total}"]
    reached = 0
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        reached += count
        lines.append(f"{name}_bucket{_labels(tuple(sorted((*labels, ('le', bound)))))} {float(reached)}")
    return [*lines, f"{name}_count{_labels(labels)} {float(reached)}"]


def _key(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def _labels(labels: Labels) -> str:
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}" if labels else ""
