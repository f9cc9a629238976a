"""Between the embedded cluster and the embedded engine: how a container of a pod is started and reached."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Address = tuple[str, int]  # where something really listens on loopback
Dial = Callable[[str, int], Address]
"""Host name or pod IP and port inside the cluster -> real address. Raises LookupError where cluster DNS would fail."""


@dataclass(frozen=True)
class Container:
    pod: str
    name: str
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]  # $(VARIABLES) are expanded
    env: Mapping[str, str]  # fieldRefs are resolved
    mounts: Mapping[str, Path]  # path in the container -> folder on this machine
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Exit:
    code: int
    reason: str  # "Error", "Completed", "OOMKilled"


class Running(Protocol):
    """A started container."""

    def address(self, port: int) -> Address | None:
        """The real address of a container port, or None while it is closed."""
        ...

    def exited(self) -> Exit | None: ...

    def log(self) -> str: ...

    def stop(self) -> None: ...


class ContainerRuntime(Protocol):
    def start(self, container: Container, dial: Dial) -> Running:
        """Start without waiting until it serves. Raises LookupError for an image that cannot be pulled."""
        ...
