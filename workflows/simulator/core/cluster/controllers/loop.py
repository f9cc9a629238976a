"""The one thread that runs all controllers."""

import threading
from collections.abc import Iterable
from typing import Protocol

from workflows.simulator.core.cluster.controllers.view import World
from workflows.simulator.core.cluster.errors import ApiError
from workflows.simulator.core.cluster.event_log import Subscription

_AGAIN = 0.01  # seconds to the next look after somebody else changed an object in between


class Controller(Protocol):
    def reconcile(self, world: World) -> float | None:
        """Bring the objects one step nearer; seconds until it wants to look again, None: not before a change."""
        ...


class Loop:
    """Runs controllers in their order after every change, from `start` to `stop`."""

    def __init__(self, world: World, bell: Subscription, controllers: Iterable[Controller]) -> None:
        """`bell` wakes the loop; whoever changes something outside the objects rings it too."""
        self._world = world
        self._controllers = tuple(controllers)
        self._bell = bell
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="controllers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._bell.ring()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        waits: list[float | None] = [0.0] * len(self._controllers)
        seen = -1
        while not self._stopping.is_set():
            revision = self._world.store.revision
            # While no object changes, only those look that asked to look again.
            waits = [
                None if wait is None and revision == seen else self._reconcile(controller)
                for controller, wait in zip(self._controllers, waits, strict=True)
            ]
            seen = revision
            self._bell.wait(min((wait for wait in waits if wait is not None), default=None))

    def _reconcile(self, controller: Controller) -> float | None:
        try:
            return controller.reconcile(self._world)
        except ApiError as error:
            # Whoever changed or removed the object rang the bell; the next look starts from what is there then.
            if error.status not in (404, 409) and error.reason != "Forbidden":
                raise
            return _AGAIN
