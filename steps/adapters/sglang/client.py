"""SGLang: its workers, their bootstrap servers and their router, over HTTP."""

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import requests
import urllib3
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

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

CONNECT = 5.0  # seconds
LOOK = 15.0  # seconds until a fact about a server must have come
CHECKSUM = 300.0  # seconds to read all weights in GPU memory once
CHAT = 180.0  # seconds; a broken handshake between prefill and decode takes SGLang about 15 s, five times in a router
OTHER_HALF = 10.0  # seconds that prefill may still need once decode has answered

# Rank -1 asks for the topology instead of one rank: sglang 0.5.23, srt/disaggregation/common/conn.py.
_ROUTE = "/route?prefill_dp_rank=-1&prefill_cp_rank=-1&target_tp_rank=-1&target_pp_rank=-1"
_CHAT = "/v1/chat/completions"
# No worker is there, or other clients fill the queue: of the router (429, where its arguments limit it) or of a worker.
_FULL = (requests.codes.service_unavailable, requests.codes.too_many_requests)

Meaning = TypeVar("Meaning")


class _DroppedError(NotServing):
    """The connection broke in the middle: worth another try at once."""


def connect(kubeconfig: Path | None) -> "SglangInference":
    """None means: this is a pod, servers are reached directly. Raises Blocked for an unusable kubeconfig."""
    return SglangInference(DirectRoute() if kubeconfig is None else ApiServerRoute(api_access(kubeconfig)))


class SglangInference:
    def __init__(self, route: Route, *, chat_timeout: float = CHAT) -> None:
        self._route = route
        self._chat_timeout = chat_timeout
        self._session = requests.Session()
        # Neither a proxy nor ~/.netrc of this machine has a say in how a pod is reached.
        self._session.trust_env = False

    def engine_info(self, worker: Server) -> EngineInfo:
        model, server = self._get(worker, "/model_info"), self._get(worker, "/server_info")
        return _understood(worker, "/server_info", lambda: answers.engine_info(model.text, server.text))

    def weights_checksum(self, worker: Server) -> str | None:
        path = "/weights_checker"
        reply = self._send("POST", worker, path, json={"action": "checksum"}, timeout=CHECKSUM)
        if reply.status_code == requests.codes.not_found:
            return None
        _refuse_errors(worker, path, reply)
        return _understood(worker, path, lambda: answers.weights_checksum(reply.text))

    def bootstrap_route(self, bootstrap: Server) -> BootstrapRoute:
        reply = self._get(bootstrap, _ROUTE)
        return _understood(bootstrap, "/route", lambda: answers.bootstrap_route(reply.text))

    def metrics(self, server: Server) -> Metrics:
        reply = self._get(server, "/metrics")
        return _understood(server, "/metrics", lambda: metrics.parse(reply.text))

    def routed_workers(self, router: Server) -> list[RoutedWorker]:
        reply = self._get(router, "/workers")
        return _understood(router, "/workers", lambda: answers.routed_workers(reply.text))

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

        # A daemon: when decode refuses, prefill may hang on for minutes, and this process must not wait for it.
        threading.Thread(target=ask_prefill, daemon=True).start()
        answer = self._chat(decode, body)
        if isinstance(answer, EngineError):
            return EngineError(answer.status, f"decode: {answer.message}")
        return _joined(answer, first_half)

    def _chat(self, server: Server, body: dict[str, Any]) -> ChatResponse | EngineError:
        try:
            reply = self._send("POST", server, _CHAT, json=body, timeout=self._chat_timeout)
        except _NoAnswerInTimeError as late:
            return EngineError(0, late.reason)
        if reply.status_code in _FULL:
            raise NotServing(f"{server} takes no chat now, {reply.status_code}: {_said(reply)}")
        return answers.chat(reply.status_code, reply.text)

    def _get(self, server: Server, path: str) -> requests.Response:
        attempts = Retrying(
            retry=retry_if_exception_type(_DroppedError),
            stop=stop_after_attempt(3),
            wait=wait_exponential(multiplier=0.1),
            reraise=True,
        )
        reply: requests.Response = attempts(self._send, "GET", server, path, timeout=LOOK)
        _refuse_errors(server, path.partition("?")[0], reply)
        return reply

    def _send(self, method: str, server: Server, path: str, *, timeout: float, json: Any = None) -> requests.Response:
        """One request; raises NotServing, Blocked and TransientError for all that is not the server's own answer."""
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
        _refuse_on_the_way(server, reply)
        return reply


class _NoAnswerInTimeError(TransientError):
    """Connected, asked, and heard nothing."""


def _failure(server: Server, path: str, error: requests.RequestException, timeout: float) -> TransientError | Blocked:
    if isinstance(error, requests.exceptions.SSLError):
        return Blocked(
            f"cannot trust the way to {server}: {error}", "check the certificate authority in the kubeconfig"
        )
    if isinstance(error, requests.exceptions.ReadTimeout):
        return _NoAnswerInTimeError(f"{server} did not answer {path.partition('?')[0]} within {timeout:g} s")
    cause = error.args[0] if error.args else error
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or isinstance(
        cause, urllib3.exceptions.ProtocolError
    ):
        return _DroppedError(f"{server} broke the connection")
    return NotServing(f"{server} cannot be reached: {_root(error)}")


def _refuse_on_the_way(server: Server, reply: requests.Response) -> None:
    """What the API server answers in place of the server behind its proxy."""
    status = reply.status_code
    if status < requests.codes.bad_request:
        return
    found = _status_object(reply)
    if found is None and "error trying to reach service" not in reply.text[:200].lower():
        return
    message = str((found or {}).get("message") or reply.text).strip()
    if status in (requests.codes.unauthorized, requests.codes.forbidden):
        raise Blocked(
            f"the API server refuses the way to {server}: {message}",
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
        raise NotServing(f"{server}{path} answers 503: {_said(reply)}")
    if reply.status_code >= requests.codes.bad_request:
        raise Blocked(
            f"{server}{path} answers {reply.status_code}: {_said(reply)}",
            "check that the image runs the SGLang version of the document",
        )


def _understood(server: Server, path: str, read: Callable[[], Meaning]) -> Meaning:
    try:
        return read()
    except ValueError as error:
        raise Blocked(
            f"{server}{path} answers something else than SGLang does: {error}",
            "check that the image runs the SGLang version of the document",
        ) from error


def _joined(
    answer: ChatResponse, first_half: "queue.SimpleQueue[ChatResponse | EngineError | TransientError | Blocked]"
) -> ChatResponse | EngineError:
    try:
        half = first_half.get(timeout=OTHER_HALF)
    except queue.Empty:
        return EngineError(0, f"prefill: no end of the request within {OTHER_HALF:g} s after decode had answered")
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
        # Without it, a short answer of a reasoning model ends inside its thinking. Other models ignore it.
        "chat_template_kwargs": {"enable_thinking": False},
    }


def _said(reply: requests.Response) -> str:
    text = answers.error_message(reply.text) or " ".join(reply.text.split())
    return text[:200] or "nothing more"


def _root(error: BaseException) -> str:
    """The innermost cause says what happened; the outer ones repeat the address."""
    reason = getattr(error.args[0] if error.args else error, "reason", None)
    inner = reason if isinstance(reason, BaseException) else error
    return str(inner).rpartition(": ")[2] or type(inner).__name__
