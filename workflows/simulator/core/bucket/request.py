"""One request and one answer, apart from sockets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Protocol

METADATA = "x-oss-meta-"


class Body(Protocol):
    """Bytes to read, once."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...

    def read(self, size: int = ..., /) -> bytes: ...


@dataclass(frozen=True)
class OssRequest:
    method: str
    bucket: str
    key: str
    query: Mapping[str, str]  # decoded
    headers: Mapping[str, str]  # names in lower case; values are bytes read as Latin-1
    body: Body
    length: int  # bytes of the body
    flip: bool = False  # a fault: one bit of the body changes before it is summed and kept

    def header(self, name: str, default: str = "") -> str:
        return self.headers.get(name.lower(), default)

    @property
    def metadata(self) -> dict[str, str]:
        """User metadata, keys in lower case and without their prefix."""
        return {name[len(METADATA) :]: value for name, value in self.headers.items() if name.startswith(METADATA)}


@dataclass(frozen=True)
class FileBody:
    """A slice of a file; the handler closes the file."""

    file: BufferedReader
    start: int
    length: int


@dataclass(frozen=True)
class OssReply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FileBody = b""
    length: int | None = None  # Content-Length of an answer to HEAD
