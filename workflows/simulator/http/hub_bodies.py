"""How bytes of a file leave the embedded hub: by sendfile when all is well, and in each way that goes wrong."""

import re
import socket
import struct
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.simulator.faults import request_faults
from workflows.simulator.http.server import Handler

ERRORS = {
    request_faults.SERVER_ERROR: 500,
    request_faults.UNAVAILABLE: 503,
    request_faults.THROTTLED: 429,
    request_faults.FORBIDDEN: 403,
}
ANY_BODY = (request_faults.DROP, request_faults.SHORT_BODY, request_faults.SLOW, *ERRORS)
DRIP = 512  # bytes
DRIP_PAUSE = 0.05  # seconds between drips
CHUNK = 1 << 20


class UnsatisfiableRangeError(ValueError):
    """A Range that begins behind the end of the file."""


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `stop` (exclusive) of a file of `size` bytes."""

    start: int
    stop: int
    size: int

    @property
    def count(self) -> int:
        return self.stop - self.start

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


def parse_range(header: str | None, size: int) -> Span | None:
    """What a Range asks for; None for no range, or one that a server may ignore. RFC 9110, section 14."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if not match or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= size or stop <= start:
        raise UnsatisfiableRangeError(header)
    return Span(start, stop, size)


class BodyHandler(Handler):
    """A handler that can send files and JSON, well or badly."""

    faults: request_faults.RequestFaults
    stopping: threading.Event

    def next_fault(self, possible: Collection[str]) -> str | None:
        return self.faults.next(f"{self.command} {self.path}", possible)

    def refuse(self, status: int, code: int, message: str) -> None:
        """The form of every error of the hub."""
        headers = {"Retry-After": str(self.faults.retry_after)} if status == ERRORS[request_faults.THROTTLED] else None
        body = {"Code": code, "Message": message, "RequestId": "rehearsal", "Success": False}
        self.send_json(status, body, headers)

    def send_file(self, path: Path, span: Span, status: int, headers: dict[str, str], fault: str | None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(span.count), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or not span.count:
            return
        with path.open("rb") as file:
            if fault in (None, request_faults.WRONG_BYTES):
                self._send_all(file, span, spoil=fault is not None)
            else:
                file.seek(span.start)
                self._fail(file, span.count, str(fault))

    def _send_all(self, file: Any, span: Span, *, spoil: bool) -> None:
        self.wfile.flush()
        if not spoil:
            self.connection.sendfile(file, span.start, span.count)
            return
        wrong = span.start + span.count // 2
        self.connection.sendfile(file, span.start, wrong - span.start)
        file.seek(wrong)
        self.connection.sendall(bytes([file.read(1)[0] ^ 1]))
        if span.stop > wrong + 1:  # a count of 0 would be "to the end" for sendfile
            self.connection.sendfile(file, wrong + 1, span.stop - wrong - 1)

    def _fail(self, file: Any, count: int, fault: str) -> None:
        self.close_connection = True
        self.wfile.flush()
        if fault == request_faults.SLOW:
            while (piece := file.read(min(DRIP, count))) and not self.stopping.wait(DRIP_PAUSE):
                count -= len(piece)
                self.connection.sendall(piece)
            return
        for _ in range(0, count // 2, CHUNK):
            self.wfile.write(file.read(min(CHUNK, count // 2)))
        self.wfile.flush()
        if fault == request_faults.DROP:
            self._reset()

    def _reset(self) -> None:
        """Close so that the other side sees a reset: no orderly end, and nothing that was still under way."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
