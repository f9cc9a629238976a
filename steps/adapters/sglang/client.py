"""HTTP client of SGLang: workers, their bootstrap servers, and routers."""

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import requests
import urllib3

from steps.adapters.kubernetes.access import api_access
from steps.adapters.sglang import answers, metrics
from steps.adapters.sglang.routes import ApiServerRoute, DirectRoute, Route
from steps.errors import Blocked, TransientError
from steps.ports.sglang import (
    BootstrapRoute,
    ChatRequest,
    ChatResponse,
    EngineError,
    EngineInfo,
    Metrics,
    NotServing,
    Pairing,
    RoutedWorker,
    Server,
)
from steps.reconcile.retry_policy import RetryPolicy

CONNECT = 5.0  # seconds
FACT = 15.0  # seconds for a fact about a server
CHECKSUM = 300.0  # seconds; a worker reads all weights in GPU memory
CHAT = 180.0  # seconds; a broken handshake between prefill and decode takes SGLang about 15 s, five times in a router
OTHER_HALF = 10.0  # seconds for the answer of prefill after the answer of decode

# Rank -1 requests the topology instead of one rank: sglang 0.5.23, srt/disaggregation/common/conn.py.
_ROUTE = "/route?prefill_dp_rank=-1&prefill_cp_rank=-1&target_tp_rank=-1&target_pp_rank=-1"
_CHAT = "/v1/chat/completions"
# No worker, or a full queue of the router (429, where its arguments limit it) or of a worker.
_FULL = (requests.codes.service_unavailable, requests.codes.too_many_requests)

Parsed = TypeVar("Parsed")


class _DroppedError(NotServing):
    """The connection broke in the middle: another attempt at once may succeed."""


RETRIES = RetryPolicy(attempts=3, first_pause=0.1, errors=(_DroppedError,))


def connect(kubeconfig: Path | None) -> "SglangInference":
    """None means direct connections, from a pod. Raises Blocked for an unusable kubeconfig."""
    return SglangInference(DirectRoute() if kubeconfig is None else ApiServerRoute(api_access(kubeconfig)))


class SglangInference:
    def __init__(self, route: Route, *, chat_timeout: float = CHAT) -> None:
        self._route = route
        self._chat_timeout = chat_timeout
        self._session = requests.Session()
        # No proxy and no ~/.netrc of this machine between a step and a pod.
        self._session.trust_env = False

    def engine_info(self, worker: Server) -> EngineInfo:
        model, server = self._get(worker, "/model_info"), self._get(worker, "/server_info")
        return _read(worker, "/server_info", lambda: answers.engine_info(model.text, server.text))

    def weights_checksum(self, worker: Server) -> str | None:
        path = "/weights_checker"
        reply = self._send("POST", worker, path, json={"action": "checksum"}, timeout=CHECKSUM)
        if reply.status_code == requests.codes.not_found:
            return None
        _refuse_errors(worker, path, reply)
        return _read(worker, path, lambda: answers.weights_checksum(reply.text))

    def bootstrap_route(self, bootstrap: Server) -> BootstrapRoute:
        reply = self._get(bootstrap, _ROUTE)
        return _read(bootstrap, "/route", lambda: answers.bootstrap_route(reply.text))

    def metrics(self, server: Server) -> Metrics:
        reply = self._get(server, "/metrics")
        return _read(server, "/metrics", lambda: metrics.parse(reply.text))

    def routed_workers(self, router: Server) -> list[RoutedWorker]:
        reply = self._get(router, "/workers")
        return _read(router, "/workers", lambda: answers.routed_workers(reply.text))

    def chat(self, server: Server, chat_request: ChatRequest) -> ChatResponse | EngineError:
        return self._chat(server, _chat_body(chat_request))

    def chat_on_pair(
        self, prefill: Server, decode: Server, pairing: Pairing, chat_request: ChatRequest
    ) -> ChatResponse | EngineError:
        # The fields that sglang-router adds to both copies: src/routers/http/pd_router.rs.
        body = _chat_body(chat_request) | {
            "bootstrap_host": pairing.bootstrap_host,
            "bootstrap_port": pairing.bootstrap_port,
            "bootstrap_room": pairing.bootstrap_room,
        }
        first_half: queue.SimpleQueue[ChatResponse | EngineError | TransientError | Blocked] = queue.SimpleQueue()

        def ask_prefill() -> None:
            try:
                first_half.put(self._chat(prefill, body))
            except (TransientError, Blocked) as error:
                first_half.put(error)

        # A daemon: after an error of decode, prefill may hang for minutes, and this process must not wait for it.
        threading.Thread(target=ask_prefill, daemon=True).start()
        answer = self._chat(decode, body)
        if isinstance(answer, EngineError):
            return EngineError(answer.status, f"decode: {answer.message}")
        return _joined(answer, first_half)

    def _chat(self, server: Server, body: dict[str, Any]) -> ChatResponse | EngineError:
        try:
            reply = self._send("POST", server, _CHAT, json=body, timeout=self._chat_timeout)
        except _NoAnswerInTimeError as error:
            return EngineError(0, error.reason)
        if reply.status_code in _FULL:
            raise NotServing(f"{server} accepts no chat now, {reply.status_code}: {_message(reply)}")
        return answers.chat(reply.status_code, reply.text)

    def _get(self, server: Server, path: str) -> requests.Response:
        reply = RETRIES.run(lambda: self._send("GET", server, path, timeout=FACT))
        _refuse_errors(server, path.partition("?")[0], reply)
        return reply

    def _send(self, method: str, server: Server, path: str, *, timeout: float, json: Any = None) -> requests.Response:
        """One request. Raises NotServing, Blocked and TransientError for anything but the server's own answer."""
        route = self._route
        try:
            reply = self._session.request(
                method,
                route.url(server, path),
                json=json,
                headers=route.headers,
                timeout=(CONNECT, timeout),
                verify=route.verify,
                cert=route.cert,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise _failure(server, path, error, timeout) from error
        reply.encoding = "utf-8"  # the router names no charset
        _refuse_proxy_errors(server, reply)
        return reply


class _NoAnswerInTimeError(TransientError):
    """Connected, but without an answer."""


def _failure(server: Server, path: str, error: requests.RequestException, timeout: float) -> TransientError | Blocked:
    if isinstance(error, requests.exceptions.SSLError):
        return Blocked(
            f"the connection to {server} is not trusted: {error}", "check the certificate authority in the kubeconfig"
        )
    if isinstance(error, requests.exceptions.ReadTimeout):
        return _NoAnswerInTimeError(f"{server} did not answer {path.partition('?')[0]} within {timeout:g} s")
    cause = error.args[0] if error.args else error
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or isinstance(
        cause, urllib3.exceptions.ProtocolError
    ):
        return _DroppedError(f"{server} broke the connection")
    return NotServing(f"{server} cannot be reached: {_root(error)}")


def _refuse_proxy_errors(server: Server, reply: requests.Response) -> None:
    """Raises the error of an answer of the API server itself instead of the server behind its proxy."""
    status = reply.status_code
    if status < requests.codes.bad_request:
        return
    found = _status_object(reply)
    if found is None and "error trying to reach service" not in reply.text[:200].lower():
        return
    message = str((found or {}).get("message") or reply.text).strip()
    if status in (requests.codes.unauthorized, requests.codes.forbidden):
        raise Blocked(
            f"the API server refuses the proxy to {server}: {message}",
            "allow this account get and create on pods/proxy and services/proxy, or run the step in the cluster",
        )
    raise NotServing(f"{server} cannot be reached through the API server: {message}")


def _status_object(reply: requests.Response) -> dict[str, Any] | None:
    try:
        found = reply.json()
    except ValueError:
        return None
    is_status = isinstance(found, dict) and found.get("kind") == "Status" and found.get("apiVersion") == "v1"
    return found if is_status else None


def _refuse_errors(server: Server, path: str, reply: requests.Response) -> None:
    if reply.status_code == requests.codes.service_unavailable:
        raise NotServing(f"{server}{path} answers 503: {_message(reply)}")
    if reply.status_code >= requests.codes.bad_request:
        raise Blocked(
            f"{server}{path} answers {reply.status_code}: {_message(reply)}",
            "check that the image runs the SGLang version of the document",
        )


def _read(server: Server, path: str, parse: Callable[[], Parsed]) -> Parsed:
    try:
        return parse()
    except ValueError as error:
        raise Blocked(
            f"{server}{path} does not answer like SGLang: {error}",
            "check that the image runs the SGLang version of the document",
        ) from error


def _joined(
    answer: ChatResponse, first_half: "queue.SimpleQueue[ChatResponse | EngineError | TransientError | Blocked]"
) -> ChatResponse | EngineError:
    try:
        half = first_half.get(timeout=OTHER_HALF)
    except queue.Empty:
        return EngineError(0, f"prefill: no end of the request within {OTHER_HALF:g} s after the answer of decode")
    if isinstance(half, TransientError | Blocked):
        raise half
    return EngineError(half.status, f"prefill: {half.message}") if isinstance(half, EngineError) else answer


def _chat_body(chat_request: ChatRequest) -> dict[str, Any]:
    return {
        "model": chat_request.model,
        "messages": [{"role": "user", "content": chat_request.prompt}],
        "max_tokens": chat_request.max_tokens,
        "temperature": 0,
        "stream": False,
        # Without it, a short answer of a reasoning model ends in its reasoning. Other models ignore it.
        "chat_template_kwargs": {"enable_thinking": False},
    }


def _message(reply: requests.Response) -> str:
    text = answers.error_message(reply.text) or " ".join(reply.text.split())
    return text[:200] or "no message"


def _root(error: BaseException) -> str:
    """The innermost cause; the outer ones repeat the address."""
    reason = getattr(error.args[0] if error.args else error, "reason", None)
    inner = reason if isinstance(reason, BaseException) else error
    return str(inner).rpartition(": ")[2] or type(inner).__name__
