"""SGLang's bodies, parsed strictly: a body of another shape is an error, never a guess.

Shapes: sglang 0.5.23, python/sglang/srt/entrypoints/http_server.py and openai/protocol.py; sglang-router 0.3.2.
"""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from steps.ports.sglang import BootstrapRoute, ChatResponse, EngineError, EngineInfo, RoutedWorker


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, protected_namespaces=(), defer_build=True)


_AnyBody = TypeVar("_AnyBody", bound=_Body)


class _ModelInfo(_Body):
    model_path: str
    served_model_name: str | None = None  # absent in 0.5.9 and older
    weight_version: str | None = None


class _ServerInfo(_Body):
    version: str
    disaggregation_mode: str
    disaggregation_transfer_backend: str
    disaggregation_bootstrap_port: int
    disaggregation_ib_device: Any = None
    served_model_name: str
    tp_size: int
    page_size: int
    kv_cache_dtype: str
    dtype: str
    context_length: int | None
    json_model_override_args: str
    chat_template: str | None = None
    launch_command: str = ""


class _Weights(_Body):
    success: bool
    message: str = ""
    per_engine_checksum: str | None = None


class _Route(_Body):
    attn_tp_size: int
    page_size: int
    kv_cache_dtype: str


class _Routed(_Body):
    url: str
    worker_type: str
    is_healthy: bool
    model_id: str
    bootstrap_port: int | None = None


class _Workers(_Body):
    workers: list[_Routed]


class _Message(_Body):
    content: str | None
    reasoning_content: str | None = None


class _Choice(_Body):
    message: _Message
    finish_reason: str | None


class _Usage(_Body):
    prompt_tokens: int
    completion_tokens: int


class _Chat(_Body):
    model: str
    choices: list[_Choice]
    usage: _Usage


class UnreadableError(ValueError):
    """The body has another shape than the endpoint's."""


def engine_info(model_info: str, server_info: str) -> EngineInfo:
    model, server = _read(_ModelInfo, model_info), _read(_ServerInfo, server_info)
    device = server.disaggregation_ib_device
    return EngineInfo(
        version=server.version,
        disaggregation_mode=server.disaggregation_mode,
        model_path=model.model_path,
        served_model_name=model.served_model_name or server.served_model_name,
        weight_version=model.weight_version or "",
        tp_size=server.tp_size,
        page_size=server.page_size,
        kv_cache_dtype=server.kv_cache_dtype,
        dtype=server.dtype,
        context_length=server.context_length,
        model_override=server.json_model_override_args,
        chat_template=server.chat_template,
        transfer_backend=server.disaggregation_transfer_backend,
        rdma_device=device if device is None or isinstance(device, str) else json.dumps(device),
        bootstrap_port=server.disaggregation_bootstrap_port,
        launch_command=server.launch_command,
    )


def weights_checksum(body: str) -> str:
    found = _read(_Weights, body)
    if not found.success or not found.per_engine_checksum:
        raise UnreadableError(f"no checksum of the weights: {found.message}")
    return found.per_engine_checksum


def bootstrap_route(body: str) -> BootstrapRoute:
    found = _read(_Route, body)
    return BootstrapRoute(found.attn_tp_size, found.page_size, found.kv_cache_dtype)


def routed_workers(body: str) -> list[RoutedWorker]:
    return [
        RoutedWorker(found.url, found.worker_type, found.is_healthy, found.bootstrap_port, found.model_id)
        for found in _read(_Workers, body).workers
    ]


def chat(status: int, body: str) -> ChatResponse | EngineError:
    """A 200 may hold an error, as JSON or as a server-sent event. An unreadable chat is an error, too."""
    error = error_message(body)
    if status >= 400 or error:  # noqa: PLR2004  # where HTTP's errors begin
        return EngineError(status, error or _short(body))
    try:
        found = _read(_Chat, body)
    except UnreadableError as unreadable:
        return EngineError(status, str(unreadable))
    if len(found.choices) != 1:
        return EngineError(status, f"found {len(found.choices)} choices, expected 1")
    choice = found.choices[0]
    return ChatResponse(
        model=found.model,
        text=choice.message.content or "",
        reasoning=choice.message.reasoning_content or "",
        finish_reason=choice.finish_reason or "",
        prompt_tokens=found.usage.prompt_tokens,
        completion_tokens=found.usage.completion_tokens,
    )


def error_message(body: str) -> str:
    """The error of a router, of a worker or of an event stream; empty for a body without one."""
    for line in body.splitlines() if body.startswith("data:") else [body]:
        found = _json(line.removeprefix("data:").strip())
        if not isinstance(found, dict):
            continue
        error = found if found.get("object") == "error" else found.get("error")
        if isinstance(error, dict):
            code, message = error.get("code"), str(error.get("message", ""))
            return f"{code}: {message}" if isinstance(code, str) else message
        if error:
            return str(error)
    return ""


def _read(shape: type[_AnyBody], text: str) -> _AnyBody:
    try:
        return shape.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise UnreadableError(f"{where}: {first['msg']}, found {_short(text)}") from error


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:200] + "…"  # noqa: PLR2004  # fits a line of a log
