"""Targets of the result of a run."""

from collections.abc import Mapping
from typing import Any, Protocol


class Notifier(Protocol):
    def send(self, message: Mapping[str, Any]) -> None: ...
