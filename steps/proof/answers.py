"""Defects of an answer with status 200."""

from steps.ports.sglang import ChatResponse

GOOD_ENDS = ("stop", "length", "tool_calls")  # "abort" comes with 200, too, and with half an answer
UNREADABLE = "\ufffd"
FEW = 4  # words; a shorter answer may repeat one word


def flaws(answer: ChatResponse, model: str) -> list[str]:
    """Empty for an answer that a language model could have given."""
    text = (answer.text or answer.reasoning).strip()
    found = []
    if answer.model != model:
        found.append(f"answered as model {answer.model!r}, expected {model!r}")
    if answer.finish_reason not in GOOD_ENDS:
        found.append(f"ended with finish_reason {answer.finish_reason!r}, expected one of {', '.join(GOOD_ENDS)}")
    if answer.completion_tokens < 1 or not text:
        found.append(f"answered with {answer.completion_tokens} tokens and {len(text)} characters, expected some")
    elif _unreadable(text):
        found.append(
            f"answered with unreadable text {shown(text)!r}: decode works with other weights or broken KV cache"
        )
    elif _repeats(text):
        found.append(f"answered with one token again and again: {shown(text)!r}")
    return found


def shown(text: str, limit: int = 80) -> str:
    """The text on one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _unreadable(text: str) -> bool:
    """More than one character in ten; a limit on tokens may cut one character in the middle."""
    bad = sum(character == UNREADABLE or not (character.isprintable() or character.isspace()) for character in text)
    return bad > max(1, len(text) // 10)


def _repeats(text: str) -> bool:
    words = text.split()
    return (len(words) > FEW and len(set(words)) == 1) or (len(text) > 2 * FEW and len(set(text)) == 1)
