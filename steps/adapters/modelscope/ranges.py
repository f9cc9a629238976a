"""The transfer of a range of a file into a buffer."""

import re
from dataclasses import dataclass

from fastcrc import crc64
from urllib3 import BaseHTTPResponse

from steps.adapters.modelscope.errors import UnusableAnswer
from steps.adapters.modelscope.http import read_into, small_body
from steps.adapters.modelscope.links import moved_on
from steps.adapters.modelscope.listing import decoded, error_of
from steps.adapters.throughput import Throughput
from steps.model import ModelFile

ERROR_LIMIT = 1 << 16  # bytes
SKIPPED_AT_ONCE = 1 << 20  # bytes

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass
class Range:
    """The bytes of `file` from `start` on, as many as `buffer` holds."""

    file: ModelFile
    start: int
    buffer: memoryview
    filled: int = 0  # bytes that are in the buffer
    crc64: int = 0  # of those bytes
    setbacks: int = 0  # failures since the last progress

    @property
    def first(self) -> int:
        """The first missing byte."""
        return self.start + self.filled

    @property
    def last(self) -> int:
        return self.start + len(self.buffer) - 1

    @property
    def is_whole(self) -> bool:
        """The whole file is missing, so the request needs no range."""
        return self.first == 0 and self.last == self.file.size - 1

    @property
    def header(self) -> dict[str, str]:
        return {"Range": f"bytes={self.first}-{self.last}"}


def fill(response: BaseHTTPResponse, target: Range, throughput: Throughput) -> None:
    """Move a body into the buffer. Content-Range defines its place, for every status.

    Raises Blocked if the file has another size than listed, UnusableAnswer for another range than the requested one.
    """
    for piece in range(_offset(response, target), target.first, SKIPPED_AT_ONCE):
        # The server ignored the range: the bytes before it are read and dropped.
        skipped = memoryview(bytearray(min(SKIPPED_AT_ONCE, target.first - piece)))
        for _ in read_into(response, skipped, throughput):
            pass
    for count in read_into(response, target.buffer[target.filled :], throughput):
        target.crc64 = crc64.xz(target.buffer[target.filled : target.filled + count], target.crc64)
        target.filled += count


def _offset(response: BaseHTTPResponse, target: Range) -> int:
    """The offset of the body in the file."""
    header = response.headers.get("Content-Range")
    if header is None:
        length = response.headers.get("Content-Length")
        if length is not None and length != str(target.file.size):
            raise UnusableAnswer(f"found {length} bytes of {target.file.path}, expected {target.file.size}")
        return 0
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if not match:
        raise UnusableAnswer(f"found the Content-Range {header!r}, expected bytes {target.first}-{target.last}")
    if match[3] not in ("*", str(target.file.size)):
        raise moved_on(target.file, f"it has {match[3]} bytes")
    if (int(match[1]), int(match[2])) != (target.first, target.last):
        raise UnusableAnswer(f"found the Content-Range {header!r}, expected bytes {target.first}-{target.last}")
    return int(match[1])


def refuse_error_body(response: BaseHTTPResponse, target: Range, throughput: Throughput) -> None:
    """Raises UnusableAnswer if the gateway sent an error instead of the file: JSON with status 200, or a web page."""
    content_type = response.headers.get("Content-Type", "")
    if not any(kind in content_type for kind in ("json", "html")) or response.headers.get("Content-Range"):
        return
    if response.headers.get("Content-Length") == str(target.file.size):
        return  # a file of the model of that type
    error = error_of(decoded(small_body(response, throughput, ERROR_LIMIT)))
    found = f"the error {error[1]}" if error else content_type
    raise UnusableAnswer(f"the hub answered with status 200 and sent, instead of {target.file.path}, {found}")
