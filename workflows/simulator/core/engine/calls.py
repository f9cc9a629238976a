"""Calls between servers of the cluster: the interface that workers and routers use, apart from sockets."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol


class UnreachableError(Exception):
    """An unknown name, a closed port, or a broken connection."""


@dataclass(frozen=True)
class HttpAnswer:
    """A response with a body to read block by block, or as a whole."""

    status: int
    content_type: str
    blocks: Iterator[bytes]

    def read(self) -> bytes:
        return b"".join(self.blocks)

    def json(self) -> Any:
        return json.loads(self.read())


class Caller(Protocol):
    def ask(self, method: str, url: str, body: Any = None, timeout: float = 30.0) -> AbstractContextManager[HttpAnswer]:
        """Times are seconds. Raises UnreachableError, also while the body is read."""
        ...
