"""Recent changes: the log that watches read, and the wake-up of controllers."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from workflows.simulator.core.cluster.errors import expired

KEPT = 4096  # changes; a watch that starts earlier has to list again

EventType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True)
class Event:
    """One change. Its objects belong to the store: read, never edit."""

    revision: int
    type: EventType
    key: tuple[str, str]
    content: dict[str, Any]
    before: dict[str, Any] | None = None


class EventLog:
    """Changes since the start of this process, in the order of their revisions."""

    def __init__(self, revision: int) -> None:
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._forgotten = revision

    def append(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            if len(self._events) > KEPT:
                self._forgotten = self._events.popleft().revision
            self._changed.notify_all()

    def compact(self, revision: int) -> None:
        """Forget every change up to `revision`."""
        with self._changed:
            while self._events and self._events[0].revision <= revision:
                self._events.popleft()
            self._forgotten = max(self._forgotten, revision)

    def after(self, revision: int, wait: float = 0.0, is_over: Callable[[], bool] = lambda: False) -> list[Event]:
        """Changes since `revision`; waits up to `wait` seconds for one. Raises ApiError 410 if some are forgotten.

        It does not wait once `is_over`; a change of that calls `wake` afterwards.
        """
        with self._changed:
            if revision < self._forgotten:
                raise expired(f"too old resource version: {revision} ({self._forgotten})")
            if wait and not is_over() and (not self._events or self._events[-1].revision <= revision):
                self._changed.wait(wait)
            if revision < self._forgotten:
                raise expired(f"too old resource version: {revision} ({self._forgotten})")
            return self._since(revision)

    def wake(self) -> None:
        """Wake all waiting readers, for example because the server stops."""
        with self._changed:
            self._changed.notify_all()

    def _since(self, revision: int) -> list[Event]:
        newest = []
        for event in reversed(self._events):
            if event.revision <= revision:
                break
            newest.append(event)
        return newest[::-1]


class WakeUp:
    """Wakes a controller after every change; several changes may wake it once."""

    def __init__(self) -> None:
        self._triggered = threading.Event()

    def trigger(self) -> None:
        self._triggered.set()

    def wait(self, timeout: float | None = None) -> bool:
        """True if something changed since the last call, False after `timeout` seconds without a change."""
        triggered = self._triggered.wait(timeout)
        self._triggered.clear()
        return triggered
