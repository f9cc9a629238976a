"""The HTTP interface of a simulated worker."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from workflows.simulator.core.engine import completions, server_info
from workflows.simulator.core.engine.fake_model import Generation, Sampling, render, tokens
from workflows.simulator.core.engine.worker import GenerateRequest, RequestError, Worker
from workflows.simulator.http.server import Handler


class StreamingHandler(Handler):
    """Server-sent events, in chunks."""

    def start_stream(self, status: int, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_chunk(self, chunk: bytes) -> None:
        """An empty chunk ends the stream."""
        self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        self.wfile.flush()

    def send_events(self, events: Iterable[Any]) -> None:
        self.start_stream(200, "text/event-stream")
        for event in events:
            self.send_chunk(f"data: {json.dumps(event)}\n\n".encode())
        self.send_chunk(b"data: [DONE]\n\n")
        self.send_chunk(b"")


def worker_handler(worker: Worker) -> type[Handler]:
    return type("WorkerHandler", (_WorkerHandler,), {"worker": worker})


class _WorkerHandler(StreamingHandler):
    worker: Worker

    def do_GET(self) -> None:
        self._dispatch(_GET)

    def do_POST(self) -> None:
        self._dispatch(_POST)

    def _dispatch(self, routes: "dict[str, Callable[[_WorkerHandler], int]]") -> None:
        path = urlsplit(self.path).path
        counters = self.worker.counters
        counters.asked(self.command, path)
        work = routes.get(path)
        if work is None:
            self.read_body()
            self.send_json(404, {"detail": "Not Found"})
        status = work(self) if work else 404
        counters.replied(self.command, path, status)

    def health(self) -> int:
        """Unlike /ready, it runs a request of one token; that moves no KV cache, and counts as no request."""
        if self.worker.status != "ready":
            return self._empty(503)
        threading.Event().wait(self.worker.timing.health_answer)
        self.worker.counters.staged()
        return self._empty(200)

    def ready(self) -> int:
        return self._empty(200 if self.worker.status == "ready" else 503)

    def model_info(self) -> int:
        return self._json(server_info.model_info(self.worker))

    def server_info(self) -> int:
        return self._json(server_info.server_info(self.worker))

    def models(self) -> int:
        return self._json(server_info.models(self.worker))

    def loads(self) -> int:
        return self._json(server_info.loads(self.worker))

    def weights(self) -> int:
        self.read_body()
        return self._json(server_info.weights(self.worker))

    def metrics(self) -> int:
        if not self.worker.flags.metrics:
            self.send_json(404, {"detail": "Not Found"})
            return 404
        self.send_body(200, self.worker.counters.text().encode(), "text/plain; version=0.0.4; charset=utf-8")
        return 200

    def chat(self) -> int:
        body = json.loads(self.read_body())
        flags = self.worker.flags
        sampling = Sampling.of(body, reasoning_parser=flags.reasoning_parser is not None)
        prompt = render(body["messages"], thinking=sampling.thinking)
        request = GenerateRequest.of(body, prompt, sampling)
        model = str(body.get("model") or flags.served_model_name)
        try:
            made = self.worker.answer(request)
        except RequestError as error:
            return self._refuse(request, error)
        if request.stream:
            with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            self.send_events(completions.chunks(model, request, made, with_usage=with_usage))
            return 200
        logprobs = int(body.get("top_logprobs") or 0) if body.get("logprobs") else None
        headers = {"x-request-id": f"chatcmpl-{uuid.uuid4().hex[:24]}"}
        self.send_json(200, completions.chat(model, request, made, logprobs=logprobs), headers)
        return 200

    def generate(self) -> int:
        body = json.loads(self.read_body())
        parameters = {"max_tokens": 128, **(body.get("sampling_params") or {})}
        parameters["max_tokens"] = parameters.get("max_new_tokens", parameters["max_tokens"])
        parameters["chat_template_kwargs"] = {"enable_thinking": False}
        sampling = Sampling.of(parameters, reasoning_parser=False)
        request = GenerateRequest.of(body, str(body["text"]), sampling)
        started = time.monotonic()
        try:
            made: Generation = self.worker.answer(request)
        except RequestError as error:
            return self._refuse(request, error)
        vocabulary = self.worker.model.vocabulary
        seconds, logprobs = time.monotonic() - started, bool(body.get("return_logprob"))
        return self._json(completions.generate(made, vocabulary, seconds, tokens(request.prompt), logprobs=logprobs))

    def _refuse(self, request: GenerateRequest, error: RequestError) -> int:
        if request.stream:
            self.send_events([completions.stream_error(error.status, str(error))])
            return 200
        self.send_json(error.status, completions.error(error.status, str(error)))
        return error.status

    def _json(self, content: dict[str, Any]) -> int:
        self.send_json(200, content)
        return HTTPStatus.OK

    def _empty(self, status: int) -> int:
        self.send_body(status, b"", "text/plain")
        return status


_GET: dict[str, Callable[[_WorkerHandler], int]] = {
    "/health": _WorkerHandler.health,
    "/ready": _WorkerHandler.ready,
    "/model_info": _WorkerHandler.model_info,
    "/get_model_info": _WorkerHandler.model_info,
    "/server_info": _WorkerHandler.server_info,
    "/get_server_info": _WorkerHandler.server_info,
    "/v1/models": _WorkerHandler.models,
    "/v1/loads": _WorkerHandler.loads,
    "/weights_checker": _WorkerHandler.weights,
    "/metrics": _WorkerHandler.metrics,
}
_POST: dict[str, Callable[[_WorkerHandler], int]] = {
    "/v1/chat/completions": _WorkerHandler.chat,
    "/generate": _WorkerHandler.generate,
    "/weights_checker": _WorkerHandler.weights,
}
