"""What a report is written on: plain lines, or a terminal with colours.

Rich is loaded for a terminal only: a pod has none, and would pay a tenth of its start for colours that nobody sees.
"""

from typing import Protocol, TextIO

Part = tuple[str, str]  # text and its style, such as "bold red"; an empty style is plain

# Rich drops the same ones: a message from outside must not move the cursor of who reads the log.
_CONTROL = str.maketrans(dict.fromkeys("\a\b\v\f\r"))


class Paper(Protocol):
    live: bool  # whether a line may be overwritten
    stream: TextIO

    @property
    def width(self) -> int:
        """Columns of a line; 0 if there is no end to it."""
        ...

    def line(self, *parts: Part) -> None: ...


class PlainPaper:
    live = False
    width = 0

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def line(self, *parts: Part) -> None:
        self.stream.write("".join(text for text, _ in parts).translate(_CONTROL) + "\n")
        self.stream.flush()


class Terminal:
    live = True

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # noqa: PLC0415  # see above

        self.stream = stream
        self._console = Console(file=stream, highlight=False, soft_wrap=True)

    @property
    def width(self) -> int:
        return self._console.width

    def line(self, *parts: Part) -> None:
        from rich.text import Text  # noqa: PLC0415  # see above

        self._console.print(Text.assemble(*parts))


def paper(stream: TextIO) -> Paper:
    return Terminal(stream) if stream.isatty() else PlainPaper(stream)
