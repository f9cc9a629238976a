"""The one thread that runs all controllers."""

import threading
from collections.abc import Iterable
from typing import Protocol

from workflows.simulator.core.cluster.controllers.view import ClusterView
from workflows.simulator.core.cluster.errors import ApiError
from workflows.simulator.core.cluster.event_log import WakeUp

_AGAIN = 0.01  # seconds to the next turn after a conflict


class Controller(Protocol):
    def reconcile(self, view: ClusterView) -> float | None:
        """Bring the objects one step nearer; seconds until the next turn, None: not before a change."""
        ...


class Loop:
    """Runs controllers in their order after every change, from `start` to `stop`."""

    def __init__(self, view: ClusterView, wake_up: WakeUp, controllers: Iterable[Controller]) -> None:
        """`wake_up` wakes the loop; changes outside the objects trigger it, too."""
        self._view = view
        self._controllers = tuple(controllers)
        self._wake_up = wake_up
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="controllers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake_up.trigger()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        waits: list[float | None] = [0.0] * len(self._controllers)
        seen = -1
        while not self._stopping.is_set():
            revision = self._view.store.revision
            # While no object changes, only controllers with a due turn run.
            waits = [
                None if wait is None and revision == seen else self._reconcile(controller)
                for controller, wait in zip(self._controllers, waits, strict=True)
            ]
            seen = revision
            self._wake_up.wait(min((wait for wait in waits if wait is not None), default=None))

    def _reconcile(self, controller: Controller) -> float | None:
        try:
            return controller.reconcile(self._view)
        except ApiError as error:
            # The writer that changed or removed the object triggered the wake-up; the next turn reads the new state.
            if error.status not in (404, 409) and error.reason != "Forbidden":
                raise
            return _AGAIN
