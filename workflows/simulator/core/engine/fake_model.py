"""A stand-in for the language model: answers are a fixed function of weights and prompt, and say what they are."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

_PIECE = re.compile(r"<\|[a-z_]+\|>|</?think>|\s?\w+|\s?[^\w\s]|\s")
_WORDS = (
    *("keel", "hull", "rudder", "anchor", "mast", "sail", "harbour", "tide", "current", "wind", "cargo", "pilot"),
    *("dock", "berth", "crane", "rope", "compass", "chart", "deck", "bridge", "engine", "propeller", "lighthouse"),
    *("buoy", "channel", "ballast", "bow", "stern", "launch", "slipway", "shipyard", "crew"),
)
_GARBAGE = "\ufffd"
END_OF_TURN = 151645  # id of <|im_end|> in Qwen3's tokenizer


@dataclass(frozen=True)
class Generation:
    """What one request produced. Pieces are tokens."""

    prompt_tokens: int
    reasoning: tuple[str, ...]
    content: tuple[str, ...]
    finish_reason: str  # "stop" or "length"
    matched_stop: int | str | None

    @property
    def completion_tokens(self) -> int:
        return len(self.reasoning) + len(self.content)


@dataclass(frozen=True)
class Sampling:
    max_tokens: int
    stop: tuple[str, ...]
    thinking: bool
    reasoning_parser: bool  # without one, thoughts stay inside the content

    @classmethod
    def of(cls, body: dict[str, Any], *, reasoning_parser: bool) -> "Sampling":
        stop = body.get("stop") or ()
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or 256
        thinking = bool((body.get("chat_template_kwargs") or {}).get("enable_thinking", True))
        return cls(int(limit), (stop,) if isinstance(stop, str) else tuple(stop), thinking, reasoning_parser)


def render(messages: Sequence[dict[str, Any]], *, thinking: bool) -> str:
    """The prompt as Qwen3's chat template writes it."""
    turns = "".join(f"<|im_start|>{turn['role']}\n{_text(turn['content'])}<|im_end|>\n" for turn in messages)
    return f"{turns}<|im_start|>assistant\n" + ("" if thinking else "<think>\n\n</think>\n\n")


def tokens(text: str) -> tuple[str, ...]:
    """Pieces that join to the text again."""
    return tuple(_PIECE.findall(text))


def token_id(piece: str, vocabulary: int) -> int:
    return int.from_bytes(hashlib.sha256(piece.encode()).digest()[:4], "big") % vocabulary


def generate(weights: str, prompt: str, sampling: Sampling, *, intact: bool = True) -> Generation:
    """`intact` is false when the KV cache came from other weights: the first token is right, the rest is noise."""
    thoughts, answer = _thoughts(weights, prompt, sampling), _answer(weights, prompt)
    pieces = [*thoughts, *answer]
    if not intact:
        pieces = pieces[:1] + [_GARBAGE] * (len(pieces) - 1)
    kept = list(islice(pieces, sampling.max_tokens))
    finish: tuple[str, int | str | None] = ("stop", END_OF_TURN) if len(pieces) == len(kept) else ("length", None)
    kept, stop = _cut(kept, sampling.stop)
    if stop is not None:
        finish = ("stop", stop)
    split = min(len(thoughts), len(kept)) if sampling.reasoning_parser else 0
    return Generation(len(tokens(prompt)), tuple(kept[:split]), tuple(kept[split:]), *finish)


def _thoughts(weights: str, prompt: str, sampling: Sampling) -> list[str]:
    if not sampling.thinking:
        return []
    words = f"simulated thought: {' '.join(_words(weights, 'think' + prompt, 6))}."
    return list(tokens(words)) if sampling.reasoning_parser else list(tokens(f"<think>\n{words}\n</think>\n\n"))


def _answer(weights: str, prompt: str) -> list[str]:
    seed = hashlib.sha256((weights + prompt).encode()).digest()
    return list(tokens(f"simulated answer: {' '.join(_words(weights, prompt, 10 + seed[0] % 8))}."))


def _words(weights: str, prompt: str, count: int) -> Iterator[str]:
    for number in range(count):
        digest = hashlib.sha256(f"{weights}{number}{prompt}".encode()).digest()
        yield _WORDS[digest[0] % len(_WORDS)]


def _cut(pieces: list[str], stops: tuple[str, ...]) -> tuple[list[str], str | None]:
    """Everything before the first stop string, which is not part of the answer."""
    text = "".join(pieces)
    found = [(text.index(stop), stop) for stop in stops if stop in text]
    if not found:
        return pieces, None
    where, stop = min(found)
    return list(tokens(text[:where])), stop


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())
