"""The embedded bucket: an OSS-compatible server on loopback, with strict signatures."""

import base64
import io
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from werkzeug import Request, Response

from workflows.simulator.core.bucket import possible_faults
from workflows.simulator.core.bucket.errors import OssError, access_denied
from workflows.simulator.core.bucket.index import Index
from workflows.simulator.core.bucket.keys import Key, KeyRing
from workflows.simulator.core.bucket.object_operations import CRC64_HEADER
from workflows.simulator.core.bucket.objects import Objects
from workflows.simulator.core.bucket.operations import operation
from workflows.simulator.core.bucket.request import FileBody, OssReply, OssRequest
from workflows.simulator.core.bucket.signature import verify
from workflows.simulator.core.bucket.state import BucketState, Keep
from workflows.simulator.core.bucket.uploads import Uploads
from workflows.simulator.faults import request_faults as kinds
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.files import file_response
from workflows.simulator.http.server import LOOPBACK, HangUp, LoopbackServer, PortInUseError, target_of


class Bucket:
    """Serves the buckets that it keeps in `folder`; stored objects survive kill -9 at any moment.

    The bytes of an object are also at `folder/objects/<bucket>/<key>`. `buckets` are made if they do not exist.
    `region` is the one that signatures must name; empty accepts any. `keep="checksums"` drops the bytes of large
    objects and keeps their rows: for measuring transfers that are larger than the disk.

    Raises PortInUseError and FolderUnusableError.
    """

    def __init__(  # noqa: PLR0913  # one keyword for each thing that a rehearsal varies
        self,
        folder: Path,
        *,
        access_key_id: str,
        access_key_secret: str,
        port: int = 0,
        host: str = LOOPBACK,
        faults: RequestFaults | None = None,
        buckets: Iterable[str] = (),
        region: str = "",
        keep: Keep = "bytes",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._index = Index(folder / "meta" / "index.sqlite")
        self._state = BucketState(Objects(folder, self._index), Uploads(folder, self._index), clock, keep)
        self.keys = KeyRing(Key(access_key_id, access_key_secret))
        self.denied: set[str] = set()  # RAM actions, such as `oss:PutObject`, that no key may do; change it at will
        self.requests: list[str] = []  # `METHOD /path?query` of every request so far
        self._region = region
        self._faults = faults or RequestFaults()
        for name in buckets:
            self._state.objects.create_bucket(name, clock())
        try:
            self._server = LoopbackServer(self._serve, port, host)
        except PortInUseError:
            self._index.close()
            raise

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def port(self) -> int:
        return self._server.port

    def issue(self, lifetime: float) -> Key:
        """A new temporary key (STS) that ends after `lifetime` seconds."""
        name = uuid.uuid4().hex
        key = Key(f"STS.{name[:16]}", f"dummy-secret-{name}", f"dummy-token-{name}", self._state.clock() + lifetime)
        self.keys.add(key)
        return key

    def expire_keys(self) -> None:
        """End all temporary keys now."""
        self.keys.expire(self._state.clock())

    def forget_keys(self) -> None:
        """Remove all temporary keys, as OSS does once their role is gone."""
        self.keys.forget()

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()
        self._index.close()

    def _serve(self, http: Request) -> Response:
        request = _read(http)
        query = f"?{http.query_string.decode()}" if http.query_string else ""
        line = f"{request.method} /{request.bucket}/{request.key}{query}"
        self.requests.append(line)
        fault = self._faults.next(line, possible_faults.possible(request)) or ""
        request_id = uuid.uuid4().hex[:24].upper()
        if fault == kinds.DROP:
            return self._drop(http, request)
        try:
            flipped = fault == kinds.WRONG_BYTES and request.method == "PUT"
            reply = self._run(replace(request, flip=flipped), fault)
        except OssError as error:
            reply = _error_reply(error, request, request_id)
        if fault == kinds.LOST_ANSWER:
            raise HangUp
        headers = {"x-oss-request-id": request_id, "x-oss-server-time": "1", **reply.headers}
        if fault == possible_faults.WRONG_CRC:
            headers[CRC64_HEADER] = str(int(headers.get(CRC64_HEADER, "0")) ^ 1)
        return _response(http, replace(reply, headers=headers), fault)

    def _run(self, request: OssRequest, fault: str = "") -> OssReply:
        """Raises OssError."""
        error = possible_faults.error_of(fault, self._faults.retry_after)
        if error:
            raise error
        verify(request, self.keys, self._state.clock(), self._region)
        found = operation(request)
        if found.action in self.denied:
            raise access_denied("You do not have permission to do this operation.")
        return found.run(self._state, request)

    def _drop(self, http: Request, request: OssRequest) -> Response:
        """Reset the connection after half of the request, or half of an object where one is read."""
        if request.length:
            request.body.read(request.length // 2)
        elif request.method == "GET":
            try:
                reply = self._run(request)
            except OssError:
                raise HangUp(reset=True) from None
            if isinstance(reply.body, FileBody):
                return _response(http, reply, kinds.DROP)
        raise HangUp(reset=True)


def _read(http: Request) -> OssRequest:
    """A path-style address: `/bucket/key?query`."""
    path = target_of(http).partition("?")[0]
    bucket, _, key = path.lstrip("/").partition("/")
    headers = {name.lower(): value for name, value in http.headers.items()}
    body: Any = http.stream
    length = http.content_length
    if length is None:  # in chunks, or absent
        content = http.get_data()
        body, length = io.BytesIO(content), len(content)
    return OssRequest(http.method, unquote(bucket), unquote(key), http.args.to_dict(), headers, body, length)


def _error_reply(error: OssError, request: OssRequest, request_id: str) -> OssReply:
    body = error.xml(request_id, request.header("Host"))
    headers = {**error.headers, "Content-Type": "application/xml"}
    if error.ec:
        headers["x-oss-ec"] = error.ec
    if request.method == "HEAD":
        headers["x-oss-err"] = base64.b64encode(body).decode()
    return OssReply(error.status, headers, b"" if error.status == HTTPStatus.NOT_MODIFIED else body)


def _response(http: Request, reply: OssReply, fault: str) -> Response:
    body = reply.body
    if isinstance(body, FileBody):
        span = (body.start, body.start + body.length)
        return file_response(http, body.file, span, reply.status, reply.headers, fault)
    length = len(body) if reply.length is None else reply.length
    # A list: of a single value Werkzeug would count the length itself, also for an answer to HEAD.
    return Response([body], reply.status, {**reply.headers, "Content-Length": str(length)})
