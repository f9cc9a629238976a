"""Routes of the adapter to servers, and its errors for refusals on the way."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from werkzeug import Request, Response

from steps.adapters.sglang import metrics
from steps.adapters.sglang.client import SglangInference, connect
from steps.adapters.sglang.routes import DirectRoute
from steps.errors import Blocked, StepError, TransientError
from steps.ports.sglang import ChatRequest, ChatResponse, EngineError, NotServing, Pairing, Server
from workflows.simulator.http.server import HangUp, LoopbackServer, connection_of, json_reply
from workflows.simulator.http.server import text as plain

WORKER = Server("pods", "default", "demo-prefill-0", 8000, "127.0.0.1")
QUESTION = ChatRequest("m", "What is a keel?", 8)
CHAT = {
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Wood."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2},
}

Replies = Callable[[Request], Response]


@contextmanager
def serving(reply: Replies) -> Iterator[LoopbackServer]:
    server = LoopbackServer(reply)
    server.start()
    yield server
    server.stop()


def kubeconfig(folder: Path, server: LoopbackServer, token: str = "dummy-token") -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": server.url}}],
        "users": [{"name": "me", "user": {"token": token}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def direct(server: LoopbackServer, **options: float) -> tuple[SglangInference, Server]:
    return SglangInference(DirectRoute(), **options), Server("pods", "default", "p", server.port, "127.0.0.1")


def status(code: int, reason: str, message: str) -> Replies:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return lambda _request: json_reply(body, code)


def text(code: int, body: str) -> Replies:
    return lambda _request: plain(body, code)


def test_from_outside_a_pod_is_reached_through_the_api_server_with_its_token(tmp_path: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    def reply(request: Request) -> Response:
        asked.append((request.path, request.headers.get("Authorization")))
        return json_reply({"workers": []})

    with serving(reply) as server:
        inference = connect(kubeconfig(tmp_path, server))
        inference.routed_workers(Server("services", "llm", "demo-0a1b2c3d", 8000, "demo-0a1b2c3d.llm.svc"))
        inference.routed_workers(WORKER)
    assert asked == [
        ("/api/v1/namespaces/llm/services/demo-0a1b2c3d:8000/proxy/workers", "Bearer dummy-token"),
        ("/api/v1/namespaces/default/pods/demo-prefill-0:8000/proxy/workers", "Bearer dummy-token"),
    ]


def test_inside_the_cluster_a_pod_is_reached_by_its_address() -> None:
    assert DirectRoute().url(WORKER, "/ready") == "http://127.0.0.1:8000/ready"
    service = Server("services", "llm", "demo", 8000, "demo.llm.svc")
    assert DirectRoute().url(service, "/workers") == "http://demo.llm.svc:8000/workers"
    assert DirectRoute().url(Server("pods", "a", "b", 1, "fd00::7"), "/x") == "http://[fd00::7]:1/x"


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (status(403, "Forbidden", 'cannot get resource "pods/proxy"'), Blocked, "allow this account get and create"),
        (status(401, "Unauthorized", "Unauthorized"), Blocked, "the API server refuses the proxy to"),
        (status(503, "ServiceUnavailable", "error trying to reach service: dial tcp: refused"), NotServing, "refused"),
        (status(404, "NotFound", 'pods "demo-prefill-0" not found'), NotServing, "not found"),
        (text(502, "Error trying to reach service: 'dial tcp 10.0.0.1:8000'"), NotServing, "10.0.0.1:8000"),
    ],
)
def test_what_the_api_server_says_in_place_of_the_worker_is_told_apart(
    tmp_path: Path, reply: Replies, error: type[StepError], says: str
) -> None:
    with serving(reply) as server, pytest.raises(error) as caught:
        connect(kubeconfig(tmp_path, server)).metrics(WORKER)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (text(503, ""), NotServing, "answers 503"),
        (text(404, "Not Found"), Blocked, "/metrics answers 404: Not Found"),
        (text(200, "<html>login</html>"), Blocked, "does not answer like SGLang"),
    ],
)
def test_a_worker_that_does_not_tell_its_metrics_never_reads_as_nothing_moved(
    reply: Replies, error: type[StepError], says: str
) -> None:
    with serving(reply) as server:
        inference, worker = direct(server)
        with pytest.raises(error, match=says):
            inference.metrics(worker)


def test_nobody_listening_is_something_to_wait_for() -> None:
    with serving(text(200, "")) as server:
        inference, worker = direct(server)
    with pytest.raises(NotServing, match=r"pods/default/p:\d+ cannot be reached: .*Connection refused"):
        inference.metrics(worker)


def test_a_connection_that_breaks_once_is_tried_again() -> None:
    calls: list[str] = []

    def reply(request: Request) -> Response:
        calls.append(request.path)
        if len(calls) == 1:
            raise HangUp
        return plain("sglang:num_requests_total 3.0\n")

    with serving(reply) as server:
        inference, worker = direct(server)
        assert inference.metrics(worker).total("sglang:num_requests_total") == 3
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (text(200, json.dumps(CHAT)), ChatResponse("m", "Wood.", "", "stop", 5, 2)),
        (text(200, '{"error":{"code":"x","message":"boom"}}'), EngineError(200, "x: boom")),
        (text(200, 'data: {"error":{"message":"boom","code":400}}\n\ndata: [DONE]\n\n'), EngineError(200, "boom")),
        (text(500, "Internal Server Error"), EngineError(500, "Internal Server Error")),
        (text(200, json.dumps({**CHAT, "choices": []})), EngineError(200, "found 0 choices, expected 1")),
    ],
)
def test_a_chat_is_an_answer_or_a_refusal_never_half_of_both(
    reply: Replies, expected: ChatResponse | EngineError
) -> None:
    with serving(reply) as server:
        inference, worker = direct(server)
        assert inference.chat(worker, QUESTION) == expected


def test_a_chat_with_an_unreadable_body_is_a_refusal_that_names_the_field() -> None:
    with serving(text(200, json.dumps({**CHAT, "usage": {"prompt_tokens": "5"}}))) as server:
        inference, worker = direct(server)
        found = inference.chat(worker, QUESTION)
    assert isinstance(found, EngineError)
    assert "usage.prompt_tokens" in found.message


def test_a_router_without_workers_is_waited_for() -> None:
    body = '{"error":{"code":"server_selection_failed","message":"No available prefill workers"}}'
    with serving(text(503, body)) as server:
        inference, router = direct(server)
        with pytest.raises(NotServing, match="server_selection_failed: No available"):
            inference.chat(router, QUESTION)


def test_a_chat_that_hangs_is_a_refusal_and_a_fact_that_hangs_is_no_answer() -> None:
    def hang(request: Request) -> Response:
        connection_of(request).recv(1)  # until the other side hangs up
        raise HangUp

    with serving(hang) as server:
        inference, worker = direct(server, chat_timeout=0.2)
        found = inference.chat(worker, QUESTION)
    assert isinstance(found, EngineError)
    assert (found.status, "did not answer /v1/chat/completions within 0.2 s" in found.message) == (0, True)


def test_both_halves_of_a_pair_get_the_same_room() -> None:
    bodies: list[dict[str, object]] = []

    def reply(request: Request) -> Response:
        bodies.append(json.loads(request.get_data()))
        return json_reply(CHAT)

    with serving(reply) as server:
        inference, worker = direct(server)
        assert inference.chat_on_pair(worker, worker, Pairing("10.0.0.7", 34000, 99), QUESTION) == ChatResponse(
            "m", "Wood.", "", "stop", 5, 2
        )
    told = {"bootstrap_host": "10.0.0.7", "bootstrap_port": 34000, "bootstrap_room": 99}
    assert [told.items() <= body.items() for body in bodies] == [True, True]


def test_a_prefill_half_that_fails_is_a_refusal_of_the_pair() -> None:
    with serving(text(500, "no room")) as broken, serving(text(200, json.dumps(CHAT))) as whole:
        inference, prefill = direct(broken)
        decode = Server("pods", "default", "d", whole.port, "127.0.0.1")
        found = inference.chat_on_pair(prefill, decode, Pairing("h", 1, 2), QUESTION)
    assert found == EngineError(500, "prefill: no room")


def test_weights_that_an_older_version_cannot_check_are_absent() -> None:
    with serving(text(404, "Not Found")) as server:
        inference, worker = direct(server)
        assert inference.weights_checksum(worker) is None


def test_an_unusable_kubeconfig_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Blocked, match="there is no kubeconfig"):
        connect(tmp_path / "absent")


def test_not_serving_ends_a_step_as_no_answer() -> None:
    assert issubclass(NotServing, TransientError)


@pytest.mark.parametrize(
    ("line", "labels", "value"),
    [
        ('a:b_total{x="1",y="a\\"b,c}"} 2.5', {"x": "1", "y": 'a"b,c}'}, 2.5),
        ("a:b_total 1e-05", {}, 1e-05),
        ('a:b_total{le="+Inf",} 3 1700000000', {"le": "+Inf"}, 3.0),
        ('a:b_total{x="back\\\\slash\\nline"} 1', {"x": "back\\slash\nline"}, 1.0),
    ],
)
def test_lines_of_metrics_are_read_as_the_format_says(line: str, labels: dict[str, str], value: float) -> None:
    (sample,) = metrics.parse(f"# HELP a:b_total x\n# TYPE a:b_total counter\n{line}\n\n").samples
    assert (sample.name, dict(sample.labels), sample.value) == ("a:b_total", labels, value)


@pytest.mark.parametrize("line", ["<html>", "a{b=c} 1", "a 1 2 3", "a{} one"])
def test_a_line_that_is_no_metric_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"metric|convert"):
        metrics.parse(line)


@pytest.mark.parametrize("code", [429, 503])
def test_a_queue_that_other_clients_fill_is_waited_for(code: int) -> None:
    with serving(text(code, "The request queue is full.")) as server:
        inference, worker = direct(server)
        with pytest.raises(NotServing, match=f"accepts no chat now, {code}: The request queue is full"):
            inference.chat(worker, QUESTION)
