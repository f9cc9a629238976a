"""Time, so that tests can hold it in their hands."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds that only ever grow."""
        ...

    def time(self) -> float:
        """Seconds since 1970, UTC; for people and records, never for waiting."""
        ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def __init__(self) -> None:
        self._never = threading.Event()

    def now(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        self._never.wait(seconds)
