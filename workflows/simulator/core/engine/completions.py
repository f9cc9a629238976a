"""What a worker answers to requests, in the shapes of SGLang 0.5.23."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from workflows.simulator.core.engine.fake_model import Generation, token_id
from workflows.simulator.core.engine.worker import GenerateRequest


def error(status: int, message: str) -> dict[str, Any]:
    kind = {400: "BadRequestError", 404: "NotFoundError"}.get(status, "InternalServerError")
    return {"object": "error", "message": message, "type": kind, "param": None, "code": status}


def stream_error(status: int, message: str) -> dict[str, Any]:
    """In a stream, the same error has another type, and the status around it is 200."""
    kind = {400: "BAD_REQUEST"}.get(status, "INTERNAL_SERVER_ERROR")
    return {"error": {"object": "error", "message": message, "type": kind, "param": None, "code": status}}


def chat(model: str, request: GenerateRequest, made: Generation, *, logprobs: int | None = None) -> dict[str, Any]:
    reasoning = "".join(made.reasoning)
    message = {"role": "assistant", "content": "".join(made.content), "reasoning_content": reasoning or None}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None if logprobs is None else _logprobs(made, logprobs),
        "finish_reason": made.finish_reason,
        "matched_stop": made.matched_stop,
    }
    return {
        "id": request.id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage(made),
        "metadata": {"weight_version": "default", "weight_versions": _versions(made)},
    }


def chunks(model: str, request: GenerateRequest, made: Generation, *, with_usage: bool) -> Iterator[dict[str, Any]]:
    """The events of a stream: the role, one event a token, the reason of the end, and the usage if asked for."""

    def event(delta: dict[str, Any], finish: str | None = None, stop: int | str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "matched_stop": stop}
        return {**head, "choices": [choice]}

    head = {"id": request.id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
    yield event({"reasoning_content": None, "role": "assistant", "content": ""})
    for piece in made.reasoning:
        yield event({"reasoning_content": piece})
    for piece in made.content:
        yield event({"reasoning_content": None, "content": piece})
    yield event({"reasoning_content": None}, made.finish_reason, made.matched_stop)
    if with_usage:
        yield {**head, "choices": [], "usage": usage(made)}


def generate(
    made: Generation, vocabulary: int, seconds: float, prompt: tuple[str, ...], *, logprobs: bool
) -> dict[str, Any]:
    pieces = (*made.reasoning, *made.content)
    kind = {"type": "length", "length": len(pieces)}
    finish = kind if made.finish_reason == "length" else {"type": "stop", "matched": made.matched_stop}
    now = time.time()
    meta: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "finish_reason": finish,
        "prompt_tokens": made.prompt_tokens,
        "weight_version": "default",
        "num_retractions": 0,
        "forward_entry_time": now - seconds,
        "queue_time": 0.0,
        "reasoning_tokens": len(made.reasoning),
        "completion_tokens": len(pieces),
        "cached_tokens": 0,
        "weight_versions": _versions(made),
        "cached_tokens_details": None,
        "dp_rank": None,
        "e2e_latency": seconds,
        "request_received_ts": now - seconds,
        "first_token_latency": seconds,
        "api_server_dispatch_finish_ts": now - seconds,
        "request_finished_ts": now,
        "response_sent_to_client_ts": now,
    }
    ids = [token_id(piece, vocabulary) for piece in pieces]
    if logprobs:
        given: list[list[Any]] = [[-1.5, token_id(piece, vocabulary), None] for piece in prompt]
        given[0][0] = None  # nothing comes before the first token
        meta["input_token_logprobs"] = given
        meta["output_token_logprobs"] = [[-0.125, number, None] for number in ids]
        meta["output_token_logprobs_length"] = len(ids)
    return {"text": "".join(pieces), "output_ids": ids, "meta_info": meta}


def usage(made: Generation) -> dict[str, Any]:
    thought = len(made.reasoning)
    return {
        "prompt_tokens": made.prompt_tokens,
        "total_tokens": made.prompt_tokens + made.completion_tokens,
        "completion_tokens": made.completion_tokens,
        "prompt_tokens_details": None,
        "reasoning_tokens": thought,
        "completion_tokens_details": {"reasoning_tokens": thought} if thought else None,
    }


def _versions(made: Generation) -> list[dict[str, Any]]:
    return [{"version": "default", "start": 0, "end": made.completion_tokens}]


def _logprobs(made: Generation, alternatives: int) -> dict[str, Any]:
    entries = []
    for piece in (*made.reasoning, *made.content):
        one = {"token": piece, "bytes": list(piece.encode()), "logprob": -0.125}
        entries.append({**one, "top_logprobs": [dict(one) for _ in range(alternatives)]})
    return {"content": entries}
