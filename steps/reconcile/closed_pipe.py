"""Output without a reader, as after `| head -1`: the command ends without a word, as by SIGPIPE.

Python ignores that signal, so a write raises BrokenPipeError instead, and the flush at the end of the process again.
https://docs.python.org/3/library/signal.html#note-on-sigpipe
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO, cast

CODE = 128 + signal.SIGPIPE  # as a shell reports a program that the signal ended


class ReaderGone(BaseException):
    """Like KeyboardInterrupt it is no Exception: retries and handlers of errors must let it pass."""


class PipeStream:
    """A stream that distinguishes its own broken pipe from that of a connection."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError as error:
            raise ReaderGone from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run_command(main: Callable[[], int]) -> int:
    """Run a command to its exit code; it is that of SIGPIPE if its output was closed."""
    for name in ("stdout", "stderr"):
        setattr(sys, name, cast("TextIO", PipeStream(getattr(sys, name))))
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except ReaderGone:
        # The buffer is flushed once more when the process ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                os.dup2(nowhere, stream.fileno())
        return CODE
