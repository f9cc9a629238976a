"""One request and one answer, apart from sockets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from io import BufferedReader
from typing import Protocol
from urllib.parse import unquote, unquote_plus

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
    headers: "Message[str, str]"  # values are bytes read as Latin-1
    body: Body
    length: int  # bytes of the body
    flip: bool = False  # a fault: one bit of the body changes before it is summed and kept

    @classmethod
    def of(cls, method: str, target: str, headers: "Message[str, str]", body: Body, length: int) -> "OssRequest":
        """Read a path-style address: `/bucket/key?query`."""
        path, _, query = target.partition("?")
        bucket, _, key = path.lstrip("/").partition("/")
        pairs = (pair.partition("=") for pair in query.split("&") if pair)
        # requests and browsers write a space in a query as a plus.
        decoded = {unquote_plus(name): unquote_plus(value) for name, _, value in pairs}
        return cls(method, unquote(bucket), unquote(key), decoded, headers, body, length)

    def header(self, name: str, default: str = "") -> str:
        return str(self.headers.get(name, default))

    @property
    def metadata(self) -> dict[str, str]:
        """User metadata, keys in lower case and without their prefix."""
        pairs = ((name.lower(), value) for name, value in self.headers.items())
        return {name.removeprefix(METADATA): value for name, value in pairs if name.startswith(METADATA)}


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
