"""All targets of a message behind one Notifier."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from steps.errors import Blocked, TransientError
from steps.ports.notify import Notifier


class Targets:
    """Implements `steps.ports.Notifier`: each target gets the message once, however often `send` is called."""

    def __init__(self, targets: Iterable[Callable[[], Notifier]]) -> None:
        self.pending = list(targets)
        self._refused: Blocked | None = None

    def send(self, message: Mapping[str, Any]) -> None:
        """Raises TransientError while a target does not answer, then Blocked if one refused the message."""
        unanswered: TransientError | None = None
        for target in list(self.pending):
            try:
                target().send(message)
            except TransientError as error:
                unanswered = error
                continue
            except Blocked as error:
                self._refused = error
            self.pending.remove(target)
        if unanswered or self._refused:
            raise unanswered or self._refused  # type: ignore[misc]  # one of them is an error
