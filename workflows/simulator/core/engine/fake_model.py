"""A fake model: its answers are a fixed function of weights and prompt, and name themselves simulated."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r"\s?\w+|\s?[^\w\s]|\s")
_WORDS = ("keel", "hull", "rudder", "anchor", "mast", "sail", "harbour", "tide", "cargo", "pilot", "dock", "berth")
_LENGTH = 12  # words of an answer
_GARBAGE = "\ufffd"
END_OF_TURN = 151645  # id of <|im_end|> in Qwen3's tokenizer


@dataclass(frozen=True)
class Generation:
    """The result of one request."""

    prompt_tokens: int
    tokens: tuple[str, ...]
    finish_reason: str  # "stop" or "length"

    @property
    def text(self) -> str:
        return "".join(self.tokens)


def render(messages: Sequence[Mapping[str, Any]]) -> str:
    """The prompt of a chat."""
    return "".join(f"{turn['role']}\n{turn['content']}\n" for turn in messages)


def tokens(text: str) -> tuple[str, ...]:
    """Pieces that join to the text again."""
    return tuple(_TOKEN.findall(text))


def generate(weights: str, prompt: str, limit: int, *, intact: bool = True) -> Generation:
    """At most `limit` tokens; not `intact` is a KV cache of other weights: the first token is right, the rest noise."""
    digest = hashlib.sha256((weights + prompt).encode()).digest()
    words = " ".join(_WORDS[byte % len(_WORDS)] for byte in digest[:_LENGTH])
    pieces = tokens(f"simulated answer: {words}.")
    if not intact:
        pieces = (pieces[0], *[_GARBAGE] * (len(pieces) - 1))
    return Generation(len(tokens(prompt)), pieces[:limit], "stop" if limit >= len(pieces) else "length")
