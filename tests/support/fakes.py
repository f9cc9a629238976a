"""Doubles that behave; what talks to a service is tested against the embedded service instead."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from steps.kinds import Manifest, Ref
from steps.model import Listing, ModelFile
from steps.reconcile.plan import Change
from steps.reconcile.report import Progress
from steps.release import Release
from steps.transfer.manifest import ModelManifest, compose


class FakeClock:
    """Time passes only in `sleep`, and `during` may move the world meanwhile."""

    def __init__(self, during: Callable[[float], object] | None = None) -> None:
        self.seconds = 1_000.0
        self._during = during

    def now(self) -> float:
        return self.seconds

    def time(self) -> float:
        return 1_790_000_000.0 + self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if self._during:
            self._during(self.seconds)


def stored(release: Release) -> Callable[[], ModelManifest]:
    """Reads the manifest of a release whose files nobody looks at."""
    return lambda: compose(release, (), 0.0)


@dataclass
class RecordingReport:
    """Keeps every line as (word, text)."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    done: list[Change] = field(default_factory=list)

    def changed(self, change: Change) -> None:
        self.done.append(change)
        self.lines.append(("changed", str(change)))

    def ok(self, reasons: Iterable[str]) -> None:
        self.lines += [("ok", reason) for reason in reasons]

    def waiting(self, reasons: Iterable[str]) -> None:
        self.lines += [("waiting", reason) for reason in reasons if ("waiting", reason) not in self.lines]

    def failed(self, reason: str) -> None:
        self.lines.append(("failed", reason))

    def note(self, text: str) -> None:
        self.lines.append(("note", text))

    def progress(self, progress: Progress) -> None:
        """Progress is for people alone."""

    def of(self, word: str) -> list[str]:
        return [text for kind, text in self.lines if kind == word]


@dataclass(frozen=True)
class ListedSource:
    """A hub of which only the listing is asked for."""

    found: Listing

    def listing(self) -> Listing:
        return self.found

    def read(self, file: ModelFile, start: int, buffer: memoryview) -> int:
        raise AssertionError("a model is pinned without reading a byte of it")


@dataclass(frozen=True)
class HoldingOne:
    """A cluster of which only one object is asked for."""

    live: Manifest | None
    ref: Ref | None = None

    def get(self, ref: Ref) -> Manifest | None:
        assert ref == (self.ref or ref)
        return self.live
