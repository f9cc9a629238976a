"""Counters, gauges and histograms in the text format of Prometheus. A family appears with its first use."""

import threading
from collections.abc import Mapping


class MetricsRegistry:
    """Thread-safe. A histogram has the bucket `+Inf` alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[str, str] = {}  # family -> counter, gauge or histogram
        self._series: dict[tuple[str, str, str], float] = {}  # family, suffix and labels -> value

    def add(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        with self._lock:
            self._add(name, "counter", {"": value}, labels)

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        with self._lock:
            self._kinds[name] = "gauge"
            self._series[name, "", _text(labels)] = value

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        with self._lock:
            self._add(name, "histogram", {"_sum": value, "_count": 1.0}, labels)
            self._add(name, "histogram", {"_bucket": 1.0}, {**labels, "le": "+Inf"})

    def text(self) -> str:
        with self._lock:
            lines = []
            for name, kind in self._kinds.items():
                lines.append(f"# TYPE {name} {kind}")
                series = ((key, value) for key, value in self._series.items() if key[0] == name)
                lines += [f"{name}{suffix}{labels} {value}" for (_, suffix, labels), value in series]
            return "\n".join(lines) + "\n"

    def _add(self, name: str, kind: str, values: Mapping[str, float], labels: Mapping[str, str]) -> None:
        self._kinds[name] = kind
        for suffix, value in values.items():
            key = name, suffix, _text(labels)
            self._series[key] = self._series.get(key, 0.0) + value


def _text(labels: Mapping[str, str]) -> str:
    escaped = (
        (name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for name, value in sorted(labels.items())
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}" if labels else ""
