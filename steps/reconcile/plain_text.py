r"""Text that Argo passes on unchanged: without template tags, and without characters that Argo cannot quote.

Argo pastes a value into a template as text and reads the result again, up to five times for one pod. `{{` begins a tag
wherever it came from, and one without an end is an error. What Go's `strconv.Quote` writes as `\x1b` or `\U000e0001`
is no JSON, so one such character is an error as well.
https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/common/util.go#L240 (SubstituteParams: two passes)
https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/operator.go#L2014 and #L2245 (it, twice)
https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/workflowpod.go#L507 (the fifth)
"""

import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

SHOWN_INSTEAD = "\N{REPLACEMENT CHARACTER}"
GAP = " … ".encode()  # in place of the middle of a text that was too long

_PAIR = re.compile(r"([{}])(?=\1)")
# Controls but tab and line ends, halves of a surrogate pair, and all beyond 16 bits, of which most can be shown.
_SUSPECT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\U00010000-\U0010ffff]")


def plain_text(text: str) -> str:
    """`text` with a space inside each pair of equal braces, and U+FFFD for each character that cannot be shown.

    A space is seen by a person and means nothing in JSON; an invisible character would be copied along into a shell.
    Nothing is removed, so no two halves of a tag can meet.
    """
    return _PAIR.sub(r"\1 ", printable(text))


def printable(text: str) -> str:
    """`text` with U+FFFD for each character that could move a cursor or cannot be encoded."""
    return _SUSPECT.sub(_shown, text)


def plain_bytes(text: str, limit: int) -> bytes:
    """`plain_text` in UTF-8, in at most `limit` bytes.

    A longer text loses its middle: a sentence begins with what failed and ends with what to do next.
    """
    whole = plain_text(text).encode()
    if len(whole) <= limit:
        return whole
    tail = (limit - len(GAP)) // 4
    return _whole_characters(whole[: limit - len(GAP) - tail]) + GAP + _whole_characters(whole[-tail:])


class PlainStream:
    """A stream with lines of plain text: the kubelet takes the end of a log for the message of a container."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""  # character that was written

    def write(self, text: str) -> int:
        plain = plain_text(self._last + text)
        self._stream.write(plain.removeprefix(self._last))
        self._last = plain[-1:]
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_streams_plain() -> None:
    """Let all that this process prints be plain text, tracebacks too; a terminal is left as it is."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not stream.isatty():
            setattr(sys, name, cast("TextIO", PlainStream(stream)))


def _shown(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else SHOWN_INSTEAD


def _whole_characters(encoded: bytes) -> bytes:
    """Without the rest of a character at either end."""
    return encoded.decode(errors="ignore").encode()
