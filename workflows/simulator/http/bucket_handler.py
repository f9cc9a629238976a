"""One connection to the bucket: reads requests, lets faults happen, sends answers."""

import base64
import io
import socket
import struct
import threading
import uuid
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace

from workflows.simulator.core.bucket import possible_faults
from workflows.simulator.core.bucket.errors import OssError, access_denied
from workflows.simulator.core.bucket.keys import KeyRing
from workflows.simulator.core.bucket.object_operations import CRC64_HEADER
from workflows.simulator.core.bucket.operations import operation
from workflows.simulator.core.bucket.receive import BodyEndedError, drain
from workflows.simulator.core.bucket.request import Body, FileBody, OssReply, OssRequest
from workflows.simulator.core.bucket.signature import verify
from workflows.simulator.core.bucket.state import BucketState
from workflows.simulator.faults import request_faults as kinds
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.server import Handler

DRIP = 4096  # bytes of a slow answer
DRIP_PAUSE = 0.1  # seconds between them


@dataclass
class Context:
    """What all connections share."""

    store: BucketState
    keys: KeyRing
    region: str
    faults: RequestFaults | None
    denied: set[str] = field(default_factory=set)  # actions that no key is allowed to do
    requests: list[str] = field(default_factory=list)  # "METHOD /path?query" of everything that was asked


class BucketHandler(Handler):
    context: Context  # set on the subclass that a bucket makes for itself

    def version_string(self) -> str:
        return "AliyunOSS"

    def do_GET(self) -> None:
        request = self._read_request()
        self.context.requests.append(self._line(request))
        fault = self._fault(request)
        if fault == kinds.DROP:
            self._drop_request(request)
            return
        request_id = uuid.uuid4().hex[:24].upper()
        try:
            reply = self._answer(request, fault, request_id)
        except BodyEndedError:
            self.close_connection = True
            return
        if fault == kinds.LOST_ANSWER:
            self.close_connection = True
            return
        self._send(reply, request_id, fault)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815  # http.server wants these names

    def _read_request(self) -> OssRequest:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            content = self.read_body()
            return OssRequest.of(self.command, self.path, self.headers, io.BytesIO(content), len(content))
        length = int(self.headers.get("Content-Length") or 0)
        return OssRequest.of(self.command, self.path, self.headers, self.rfile, length)

    def _line(self, request: OssRequest) -> str:
        query = self.path.partition("?")[2]
        return f"{request.method} /{request.bucket}/{request.key}" + (f"?{query}" if query else "")

    def _fault(self, request: OssRequest) -> str | None:
        faults = self.context.faults
        return faults.next(self._line(request), possible_faults.possible(request)) if faults else None

    def _answer(self, request: OssRequest, fault: str | None, request_id: str) -> OssReply:
        body = _Counted(request.body)
        flipped = fault == kinds.WRONG_BYTES and request.method == "PUT"
        try:
            reply = self._run(replace(request, body=body, flip=flipped), fault)
        except OssError as error:
            reply = self._refuse(error, request_id)
        drain(request.body, request.length - body.count)
        if fault == possible_faults.WRONG_CRC:
            headers = {**reply.headers, CRC64_HEADER: str(int(reply.headers.get(CRC64_HEADER, "0")) ^ 1)}
            return replace(reply, headers=headers)
        return reply

    def _run(self, request: OssRequest, fault: str | None) -> OssReply:
        context = self.context
        error = possible_faults.answer(fault, context.faults.retry_after if context.faults else 0)
        if error:
            raise error
        verify(request, context.keys, context.store.clock(), context.region)
        found = operation(request)
        if found.action in context.denied:
            raise access_denied("You do not have permission to do this operation.")
        return found.run(context.store, request)

    def _refuse(self, error: OssError, request_id: str) -> OssReply:
        body = error.xml(request_id, self.headers.get("Host", ""))
        headers = {**error.headers, "Content-Type": "application/xml"}
        if error.ec:
            headers["x-oss-ec"] = error.ec
        if self.command == "HEAD":
            headers["x-oss-err"] = base64.b64encode(body).decode()
        return OssReply(error.status, headers, b"" if error.status == 304 else body)  # noqa: PLR2004  # has no body

    def _send(self, reply: OssReply, request_id: str, fault: str | None) -> None:
        body = reply.body
        length = reply.length if reply.length is not None else len(body) if isinstance(body, bytes) else body.length
        with closing(body.file) if isinstance(body, FileBody) else nullcontext():
            self.send_response(reply.status)
            self.send_header("Content-Length", str(length))
            self.send_header("x-oss-request-id", request_id)
            self.send_header("x-oss-server-time", "1")
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if isinstance(body, FileBody):
                self._send_file(body, fault)
            else:
                self.wfile.write(body)

    def _send_file(self, body: FileBody, fault: str | None) -> None:
        self.wfile.flush()
        if fault == kinds.WRONG_BYTES and body.length:
            self._send_slice(replace(body, length=1), flip=True)
            body = FileBody(body.file, body.start + 1, body.length - 1)
        if fault == kinds.SLOW:
            self._drip(body)
        elif fault == kinds.SHORT_BODY:
            self._send_slice(replace(body, length=body.length // 2))
            self.close_connection = True
        else:
            self._send_slice(body)

    def _send_slice(self, body: FileBody, *, flip: bool = False) -> None:
        if flip:
            body.file.seek(body.start)
            self.connection.sendall(bytes((body.file.read(1)[0] ^ 1,)))
        elif body.length:
            self.connection.sendfile(body.file, body.start, body.length)

    def _drip(self, body: FileBody) -> None:
        never = threading.Event()
        for start in range(body.start, body.start + body.length, DRIP):
            end = min(start + DRIP, body.start + body.length)
            self.connection.sendfile(body.file, start, end - start)
            never.wait(DRIP_PAUSE)

    def _drop_request(self, request: OssRequest) -> None:
        """Reset the connection after half of the request, or half of an object where one is read."""
        if request.length:
            drain(request.body, request.length // 2)
        elif request.method == "GET":
            self._send_half(request)
        # Closing without lingering resets the connection: the other side sees ECONNRESET, not an end of file.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _send_half(self, request: OssRequest) -> None:
        try:
            reply = self._run(request, None)
        except OssError:
            return
        if isinstance(reply.body, FileBody):
            self._send(reply, "DROPPED", kinds.SHORT_BODY)


class _Counted:
    """Counts what was read of a request's body, so that the rest can be drained."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self.count = 0

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._body.readinto(buffer) or 0
        self.count += count
        return count

    def read(self, size: int = -1, /) -> bytes:
        content = self._body.read(size)
        self.count += len(content)
        return content
