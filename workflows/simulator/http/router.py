"""The HTTP interface of a simulated router, and its metrics port."""

import http.client
import json
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from workflows.simulator.core.engine.router import NoWorkersError, Router
from workflows.simulator.http.client import Reply, UnreachableError
from workflows.simulator.http.server import Handler
from workflows.simulator.http.worker import StreamingHandler

REQUEST_SECONDS = 300.0
_TEXT = "text/plain; charset=utf-8"


def router_handler(router: Router) -> type[Handler]:
    return type("RouterHandler", (_RouterHandler,), {"router": router})


def metrics_handler(router: Router) -> type[Handler]:
    return type("RouterMetricsHandler", (_MetricsHandler,), {"router": router})


class _MetricsHandler(Handler):
    router: Router

    def do_GET(self) -> None:
        self.send_body(200, self.router.metrics.text().encode(), "text/plain")


class _RouterHandler(StreamingHandler):
    router: Router

    def do_GET(self) -> None:
        work = _GET.get(urlsplit(self.path).path)
        if work is None:
            self._say(404, b"", _TEXT)
        else:
            work(self)

    def do_POST(self) -> None:
        body = self.read_body()
        path = urlsplit(self.path).path
        if path not in ("/v1/chat/completions", "/generate"):
            self._say(404, b"", _TEXT)
            return
        try:
            asked = json.loads(body)
        except ValueError as error:
            self._say(400, f"Failed to parse the request body as JSON: {error}".encode(), _TEXT)
            return
        try:
            self._stream(path, asked) if asked.get("stream") else self._pass_on(
                self.router.ask(path, asked, REQUEST_SECONDS)
            )
        except NoWorkersError as error:
            self._error(503, "server_selection_failed", str(error))

    def alive(self) -> None:
        self._say(200, b"OK", _TEXT)

    def readiness(self) -> None:
        healthy, total = self.router.counts()
        if self.router.ready():
            self._json(200, {"status": "ready", "healthy_workers": healthy, "total_workers": total})
        else:
            self._json(503, {"status": "not ready", "reason": "insufficient healthy workers"})

    def health_generate(self) -> None:
        self._say(200, b"At least one router has healthy workers", _TEXT)

    def workers(self) -> None:
        listed = self.router.registered()
        roles = [worker.role for worker in listed]
        stats = {"prefill_count": roles.count("prefill"), "decode_count": roles.count("decode"), "regular_count": 0}
        self._json(200, {"workers": [worker.listed() for worker in listed], "total": len(listed), "stats": stats})

    def models(self) -> None:
        names = sorted({worker.metadata["served_model_name"] for worker in self.router.registered()})
        data = [{"id": name, "object": "model", "owned_by": "local"} for name in names]
        self._say(200, _compact({"object": "list", "data": data}), _TEXT)

    def model_info(self) -> None:
        prefill = next((worker for worker in self.router.registered() if worker.role == "prefill"), None)
        if prefill is None:
            self._error(503, "server_selection_failed", "No available prefill workers")
            return
        try:
            reply = self.router.caller.get(f"{prefill.url}/model_info")
        except UnreachableError as error:
            self._error(500, "prefill_internal_error", str(error))
        else:
            self._say(reply.status, reply.body, "application/json")

    def server_info(self) -> None:
        count = len(self.router.registered())
        self._say(200, _compact({"router_manager": True, "routers_count": 1, "workers_count": count}), _TEXT)

    def loads(self) -> None:
        """-1: this router cannot read the loads of workers as new as 0.5.23."""
        self._json(200, {"workers": [{"worker": worker.url, "load": -1} for worker in self.router.registered()]})

    def _pass_on(self, reply: Reply) -> None:
        if reply.status >= HTTPStatus.BAD_REQUEST:
            self._decode_error(reply.status, reply.body)
        else:
            self._say(reply.status, reply.body, reply.headers.get("content-type", "application/json"))

    def _stream(self, path: str, asked: Mapping[str, Any]) -> None:
        pair = self.router.pair(asked)
        self.router.ask_prefill(pair, path, REQUEST_SECONDS)
        body = json.dumps(pair.bodies[0]).encode()
        try:
            with self.router.caller.open("POST", pair.decode.url + path, body, REQUEST_SECONDS) as response:
                self._copy(response)
        except UnreachableError as error:
            self._error(500, "decode_internal_error", str(error))

    def _copy(self, response: http.client.HTTPResponse) -> None:
        if response.status >= HTTPStatus.BAD_REQUEST:
            self._decode_error(response.status, response.read())
            return
        self.start_stream(response.status, response.getheader("Content-Type", "text/event-stream"))
        while chunk := response.read1(1 << 16):
            self.send_chunk(chunk)
        self.send_chunk(b"")

    def _decode_error(self, status: int, body: bytes) -> None:
        code = {400: "decode_bad_request"}.get(status, "decode_internal_error")
        self._error(status, code, _message(body))

    def _error(self, status: int, code: str, message: str) -> None:
        content = {"error": {"type": HTTPStatus(status).phrase, "code": code, "message": message}}
        self._say(status, _compact(content), "application/json", {"x-smg-error-code": code})

    def _json(self, status: int, content: Any) -> None:
        self._say(status, _compact(content), "application/json")

    def _say(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        labels = {"status_code": str(status), "error_code": (headers or {}).get("x-smg-error-code", "")}
        self.router.metrics.add("smg_http_responses_total", 1.0, labels)
        self.send_body(status, body, content_type, {**(headers or {}), "x-request-id": f"req-{uuid.uuid4().hex[:24]}"})


def _compact(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _message(body: bytes) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    return str(found.get("message", found)) if isinstance(found, dict) else str(found)


_GET: dict[str, Callable[[_RouterHandler], None]] = {
    "/liveness": _RouterHandler.alive,
    "/health": _RouterHandler.alive,
    "/readiness": _RouterHandler.readiness,
    "/health_generate": _RouterHandler.health_generate,
    "/workers": _RouterHandler.workers,
    "/v1/models": _RouterHandler.models,
    "/get_model_info": _RouterHandler.model_info,
    "/get_server_info": _RouterHandler.server_info,
    "/get_loads": _RouterHandler.loads,
}
