"""The console of a report: plain lines, or a terminal with colours.

Rich is loaded for a terminal only: a pod has none, and would pay a tenth of its start for colours without a reader.
"""

from typing import Protocol, TextIO

Span = tuple[str, str]  # text and its style, such as "bold red"; an empty style is plain

# Rich drops the same ones: a message from outside must not move the cursor of a terminal that shows the log.
_CONTROL = str.maketrans(dict.fromkeys("\a\b\v\f\r"))


class Console(Protocol):
    live: bool  # whether a line may be overwritten
    stream: TextIO

    @property
    def width(self) -> int:
        """Columns of a line; 0 without a limit."""
        ...

    def line(self, *spans: Span) -> None: ...


class PlainConsole:
    live = False
    width = 0

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def line(self, *spans: Span) -> None:
        self.stream.write("".join(text for text, _ in spans).translate(_CONTROL) + "\n")
        self.stream.flush()


class Terminal:
    live = True

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console as RichConsole  # noqa: PLC0415  # see above

        self.stream = stream
        self._console = RichConsole(file=stream, highlight=False, soft_wrap=True)

    @property
    def width(self) -> int:
        return self._console.width

    def line(self, *spans: Span) -> None:
        from rich.text import Text  # noqa: PLC0415  # see above

        self._console.print(Text.assemble(*spans))


def console(stream: TextIO) -> Console:
    return Terminal(stream) if stream.isatty() else PlainConsole(stream)
