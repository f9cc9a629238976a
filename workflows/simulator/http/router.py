"""The HTTP interface of a simulated router."""

import json
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any

from werkzeug import Request, Response

from workflows.simulator.core.engine.calls import UnreachableError
from workflows.simulator.core.engine.router import NoWorkersError, Router
from workflows.simulator.http.server import App, text

_TEXT = "text/plain; charset=utf-8"
_CHAT = "/v1/chat/completions"


def router_app(router: Router) -> App:
    def serve(request: Request) -> Response:
        if request.method == "POST" and request.path == _CHAT:
            response = _chat(router, request)
        else:
            response = _fact(router, request) if request.method == "GET" else text("", 404, _TEXT)
        response.headers["x-request-id"] = f"req-{uuid.uuid4().hex[:24]}"
        return response

    return serve


def _fact(router: Router, request: Request) -> Response:
    listed = router.registered()
    match request.path:
        case "/liveness" | "/health":
            return text("OK", content_type=_TEXT)
        case "/readiness":
            healthy = sum(worker.healthy for worker in listed)
            if not router.ready():
                return _json({"status": "not ready", "reason": "insufficient healthy workers"}, 503)
            return _json({"status": "ready", "healthy_workers": healthy, "total_workers": len(listed)})
        case "/workers":
            roles = [worker.role for worker in listed]
            stats = {f"{role}_count": roles.count(role) for role in ("prefill", "decode", "regular")}
            return _json({"workers": [one.listed() for one in listed], "total": len(listed), "stats": stats})
        case "/v1/models":
            data = [
                {"id": name, "object": "model", "owned_by": "local"}
                for name in sorted({worker.model_name for worker in listed})
            ]
            return text(_compact({"object": "list", "data": data}), content_type=_TEXT)
    return text("", 404, _TEXT)


def _chat(router: Router, request: Request) -> Response:
    try:
        asked = json.loads(request.get_data())
    except ValueError as error:
        return text(f"Failed to parse the request body as JSON: {error}", 400, _TEXT)
    stack = ExitStack()
    try:
        reply = router.ask(_CHAT, asked, stack)
        if reply.status >= HTTPStatus.BAD_REQUEST:
            code = {400: "decode_bad_request"}.get(reply.status, "decode_internal_error")
            with stack:
                return _error(reply.status, code, _message(reply.read()))
    except NoWorkersError as error:
        return _error(503, "server_selection_failed", str(error))
    except UnreachableError as error:
        return _error(500, "decode_internal_error", str(error))
    response = Response(reply.blocks, reply.status, content_type=reply.content_type)
    response.call_on_close(stack.close)
    return response


def _error(status: int, code: str, message: str) -> Response:
    content = {"error": {"type": HTTPStatus(status).phrase, "code": code, "message": message}}
    return _json(content, status, {"x-smg-error-code": code})


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_compact(content), status, dict(headers or {}), None, "application/json")


def _compact(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _message(body: bytes) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    return str(found.get("message", found)) if isinstance(found, dict) else str(found)
