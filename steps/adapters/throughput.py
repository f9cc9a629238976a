"""Connections that are too slow to keep. A timeout does not notice them: each byte starts it anew."""

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class MinimumThroughput:
    bytes_per_second: int
    window: float  # seconds of one measurement


class Throughput:
    """Measures one connection against a minimum."""

    def __init__(self, minimum: MinimumThroughput) -> None:
        self.minimum = minimum
        self.was_sufficient = False  # in an earlier window
        self._since = time.monotonic()
        self._bytes = 0

    def add(self, count: int) -> float | None:
        """Bytes a second of a window that ends now and stayed below the minimum; None otherwise."""
        self._bytes += count
        seconds = time.monotonic() - self._since
        if seconds < self.minimum.window:
            return None
        rate = self._bytes / seconds
        if rate < self.minimum.bytes_per_second:
            return rate
        self.was_sufficient = True
        self._since += seconds
        self._bytes = 0
        return None
