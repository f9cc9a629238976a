"""Steps of a transfer as commands: each a process of its own, or, where nothing is killed, called in this one."""

import io
import logging
import os
import signal
import subprocess  # noqa: TID251  # a step is a process, and is killed as one
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from steps import wiring
from steps.__main__ import main
from tests.samples import ROOT, SERVICES
from tests.transfer.test_end_to_end import KEY, OVERRIDES, Services
from workflows.rehearsal.faults import KINDS, Faults

STREAMED = ("transfer.mode=streamed", *OVERRIDES)
STATIC = {"OSS_ACCESS_KEY_ID": KEY.id, "OSS_ACCESS_KEY_SECRET": KEY.secret}


@dataclass(frozen=True)
class Ended:
    code: int
    said: str  # on stdout and stderr


def words(found: Services, name: str, digest: str, *more: str) -> list[str]:
    """The arguments of a step; more of them win over those that are always there."""
    sets = [f"--set={override}" for override in STREAMED]
    always = [f"--service={SERVICES / 'demo.yaml'}", f"--scratch={found.folder / 'scratch'}", *sets]
    return [name, *always, f"--model-digest={digest}", *more]


def surroundings(found: Services, environment: Mapping[str, str] = STATIC) -> dict[str, str]:
    return {
        "SLIPWAY_MODELSCOPE_ENDPOINT": found.hub.url,
        "SLIPWAY_OSS_ENDPOINT": found.bucket.url,
        "SLIPWAY_TERMINATION_LOG": os.devnull,
        **environment,
    }


def start(
    found: Services, name: str, digest: str, *more: str, environment: Mapping[str, str] = STATIC
) -> "subprocess.Popen[str]":
    """A step in a process of its own."""
    path = {"PATH": os.environ["PATH"]}  # noqa: TID251  # of a test's own process
    return subprocess.Popen(
        [sys.executable, "-m", "steps", *words(found, name, digest, *more)],
        cwd=ROOT,
        env=path | surroundings(found, environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait(process: "subprocess.Popen[str]") -> Ended:
    with process:
        said, _ = process.communicate(timeout=100)
    return Ended(process.returncode, said)


def call(found: Services, name: str, digest: str, *more: str, environment: Mapping[str, str] = STATIC) -> Ended:
    """A step in this process, with the environment and the words that a process of its own would have."""
    said = io.StringIO()
    with _kept(), pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.setattr(wiring, "ENVIRONMENT", surroundings(found, environment))
        code = main(words(found, name, digest, *more))
    return Ended(code, said.getvalue())


@contextmanager
def _kept() -> Iterator[None]:
    """What a step sets for its whole process is as before."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    loggers = [logging.getLogger(), logging.getLogger("steps")]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    try:
        yield
    finally:
        for number, handler in signals.items():
            signal.signal(number, handler)
        for logger, handlers, level in before:
            logger.handlers[:] = handlers
            logger.setLevel(level)


class Moment(Faults):
    """Does something right before a service answers the n-th request that contains all `parts`."""

    def __init__(self, *parts: str) -> None:
        super().__init__()
        self._parts = parts
        self._then: dict[int, Callable[[], object]] = {}
        self._seen = 0

    def at(self, count: int, then: Callable[[], object]) -> None:
        self._then[count] = then

    @property
    def is_over(self) -> bool:
        """Whether everything was done."""
        return not self._then

    def next(self, request: str, possible: Collection[str] = KINDS) -> str | None:
        then = None
        if all(part in request for part in self._parts):
            with self._lock:
                self._seen += 1
                then = self._then.pop(self._seen, None)
        if then:
            then()
        return super().next(request, possible)
