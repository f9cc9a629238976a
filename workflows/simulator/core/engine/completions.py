"""Bodies of a worker's responses to chats, in the shapes of SGLang 0.5.23."""

import time
from collections.abc import Iterator
from typing import Any

from workflows.simulator.core.engine.fake_model import END_OF_TURN, Generation


def error(status: int, message: str) -> dict[str, Any]:
    kind = {400: "BadRequestError", 404: "NotFoundError"}.get(status, "InternalServerError")
    return {"object": "error", "message": message, "type": kind, "param": None, "code": status}


def stream_error(status: int, message: str) -> dict[str, Any]:
    """In a stream, the same error has another type, and the status around it is 200."""
    kind = {400: "BAD_REQUEST"}.get(status, "INTERNAL_SERVER_ERROR")
    return {"error": {"object": "error", "message": message, "type": kind, "param": None, "code": status}}


def chat(model: str, request_id: str, made: Generation) -> dict[str, Any]:
    message = {"role": "assistant", "content": made.text, "reasoning_content": None}
    choice = {"index": 0, "message": message, "finish_reason": made.finish_reason, "matched_stop": _stop(made)}
    head = {"id": request_id, "object": "chat.completion", "created": int(time.time()), "model": model}
    return {**head, "choices": [choice], "usage": usage(made)}


def chunks(model: str, request_id: str, made: Generation, *, with_usage: bool) -> Iterator[dict[str, Any]]:
    """The events of a stream: the role, one event a token, the reason of the end, and the usage if asked for."""
    head = {"id": request_id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}

    def event(delta: dict[str, Any], finish: str | None = None, stop: int | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "matched_stop": stop}
        return {**head, "choices": [choice]}

    yield event({"reasoning_content": None, "role": "assistant", "content": ""})
    for token in made.tokens:
        yield event({"reasoning_content": None, "content": token})
    yield event({"reasoning_content": None}, made.finish_reason, _stop(made))
    if with_usage:
        yield {**head, "choices": [], "usage": usage(made)}


def usage(made: Generation) -> dict[str, Any]:
    count = len(made.tokens)
    return {
        "prompt_tokens": made.prompt_tokens,
        "total_tokens": made.prompt_tokens + count,
        "completion_tokens": count,
        "prompt_tokens_details": None,
        "reasoning_tokens": 0,
        "completion_tokens_details": None,
    }


def _stop(made: Generation) -> int | None:
    return END_OF_TURN if made.finish_reason == "stop" else None
