"""The HTTP interface of a simulated worker, and the bootstrap server of a prefill worker."""

import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final

from werkzeug import Request, Response

from workflows.simulator.core.engine import completions, server_info
from workflows.simulator.core.engine.fake_model import render
from workflows.simulator.core.engine.kv_transfer import KV_PATH
from workflows.simulator.core.engine.worker import GenerateRequest, RequestError, Worker
from workflows.simulator.http.server import App, json_reply, text


def worker_app(worker: Worker) -> App:
    def serve(request: Request) -> Response:
        worker.counters.asked(request.method, request.path)
        answer = _ROUTES.get((request.method, request.path))
        response = answer(worker, request) if answer else json_reply({"detail": "Not Found"}, 404)
        if not response.is_streamed:
            worker.counters.replied(request.method, request.path, response.status_code)
        else:
            response.call_on_close(lambda: worker.counters.replied(request.method, request.path, response.status_code))
        return response

    return serve


def bootstrap_app(worker: Worker) -> App:
    def serve(request: Request) -> Response:
        if request.path == "/health":
            return text("OK")
        if request.path == "/route":
            topology = worker.topology()
            return json_reply(topology) if topology else text("Prefill server not fully registered yet", 503)
        if request.path == KV_PATH:
            return _transfer(worker, request.args["decode"], int(request.args["room"]), int(request.args["rank"]))
        return text("404: Not Found", 404)

    return serve


def _transfer(worker: Worker, decode: str, room: int, rank: int) -> Response:
    """The KV cache of one room and rank, for the worker `decode`."""
    rooms = worker.rooms
    if worker.is_silent():
        return text("", 204)
    cache = rooms.find(room, worker.timing.transfer)
    if cache is None:
        return text("no such room", 504)
    if worker.broken_with(decode):
        rooms.fail(room, f"Failed to send kv chunk of {room} to {decode}")
        return text("transfer failed", 502)

    def blocks() -> Iterator[bytes]:
        yield from cache.blocks(rank)
        rooms.fetched(room, rank)

    return Response(blocks(), headers={"Content-Length": str(cache.size)}, content_type="application/octet-stream")


def _health(worker: Worker, _request: Request) -> Response:
    """Unlike /ready, it runs a request of one token; that moves no KV cache, and counts as no request."""
    if worker.status == "ready":
        threading.Event().wait(worker.timing.health_answer)
    return _ready(worker, _request)


def _ready(worker: Worker, _request: Request) -> Response:
    return text("", 200 if worker.status == "ready" else 503)


def _metrics(worker: Worker, _request: Request) -> Response:
    if not worker.flags.metrics:
        return json_reply({"detail": "Not Found"}, 404)
    return text(worker.counters.text(), content_type="text/plain; version=0.0.4; charset=utf-8")


def _chat(worker: Worker, http: Request) -> Response:
    body = json.loads(http.get_data())
    request = GenerateRequest.of(body, render(body["messages"]))
    model = str(body.get("model") or worker.flags.served_model_name)
    try:
        made = worker.answer(request)
    except RequestError as error:
        if request.stream:
            return _events([completions.stream_error(error.status, str(error))])
        return json_reply(completions.error(error.status, str(error)), error.status)
    if request.stream:
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return _events(completions.chunks(model, request.id, made, with_usage=with_usage))
    headers = {"x-request-id": f"chatcmpl-{uuid.uuid4().hex[:24]}"}
    return json_reply(completions.chat(model, request.id, made), HTTPStatus.OK, headers)


def _events(events: Iterable[Any]) -> Response:
    def lines() -> Iterator[bytes]:
        for event in events:
            yield f"data: {json.dumps(event)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    return Response(lines(), content_type="text/event-stream")


def _json(describe: Callable[[Worker], dict[str, Any]]) -> Callable[[Worker, Request], Response]:
    return lambda worker, _request: json_reply(describe(worker))


_ROUTES: Final[dict[tuple[str, str], Callable[[Worker, Request], Response]]] = {
    ("GET", "/health"): _health,
    ("GET", "/ready"): _ready,
    ("GET", "/model_info"): _json(server_info.model_info),
    ("GET", "/server_info"): _json(server_info.server_info),
    ("GET", "/metrics"): _metrics,
    ("POST", "/weights_checker"): _json(server_info.weights),
    ("POST", "/v1/chat/completions"): _chat,
}
