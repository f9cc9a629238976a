"""Bytes of a file as a response: by sendfile, and with each fault that a body can have."""

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from typing import Final

from werkzeug import Request, Response

from workflows.simulator.faults import request_faults as faults
from workflows.simulator.http.server import HangUp, connection_of

BODY_FAULTS: Final = (faults.DROP, faults.SHORT_BODY, faults.SLOW)
DRIP: Final = 512  # bytes
DRIP_PAUSE: Final = 0.05  # seconds between drips


class UnsatisfiableRangeError(ValueError):
    """A Range that begins behind the end of the file."""


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `stop` (exclusive) of a file of `size` bytes."""

    start: int
    stop: int
    size: int

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


def parse_range(header: str | None, size: int) -> Span | None:
    """The span of a Range header; None for no range, or one that a server may ignore. RFC 9110, section 14."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if not match or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= size or stop <= start:
        raise UnsatisfiableRangeError(header)
    return Span(start, stop, size)


def file_response(
    request: Request, file: BufferedReader, span: tuple[int, int], status: int, headers: Mapping[str, str], fault: str
) -> Response:
    """The bytes `span` (start, stop) of `file`, which is closed with the response; `fault` may be empty."""
    start, stop = span
    length = {"Content-Length": str(stop - start)}
    response = Response(_blocks(request, file, start, stop, fault), status, {**headers, **length})
    response.call_on_close(file.close)
    return response


def _blocks(request: Request, file: BufferedReader, start: int, stop: int, fault: str) -> Iterator[bytes]:
    yield b""  # the headers leave before the first byte of the file
    connection = connection_of(request)

    def send(first: int, last: int) -> None:
        if last > first:  # sendfile takes a count of 0 for "to the end"
            connection.sendfile(file, first, last - first)

    if fault == faults.SLOW:
        never = threading.Event()
        for drop in range(start, stop, DRIP):
            send(drop, min(drop + DRIP, stop))
            never.wait(DRIP_PAUSE)
    elif fault in (faults.DROP, faults.SHORT_BODY):
        send(start, start + (stop - start) // 2)
        raise HangUp(reset=fault == faults.DROP)
    elif fault == faults.WRONG_BYTES and stop > start:
        wrong = start + (stop - start) // 2
        send(start, wrong)
        file.seek(wrong)
        connection.sendall(bytes([file.read(1)[0] ^ 1]))
        send(wrong + 1, stop)
    else:
        send(start, stop)
