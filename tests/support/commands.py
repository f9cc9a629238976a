"""Steps of a transfer as commands: each in its own process, or, in tests without a kill, called in this one."""

import io
import logging
import os
import select
import signal
import socket
import subprocess  # noqa: TID251  # a step is a process, and is killed as one
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from steps import wiring
from steps.__main__ import main
from steps.catalogue import CATALOGUE
from tests.support.samples import ROOT, SERVICES
from tests.transfer.test_end_to_end import KEY, OVERRIDES, Services
from workflows.simulator.faults.request_faults import KINDS, RequestFaults
from workflows.simulator.http.server import LOOPBACK

STREAMED = ("transfer.mode=streamed", *OVERRIDES)
STATIC = {"OSS_ACCESS_KEY_ID": KEY.id, "OSS_ACCESS_KEY_SECRET": KEY.secret}


@dataclass(frozen=True)
class Ended:
    code: int
    said: str  # on stdout and stderr


def words(found: Services, name: str, digest: str, *more: str) -> list[str]:
    """The arguments of a step; more of them win over those that are always there."""
    sets = [f"--set={override}" for override in STREAMED]
    scratch = [f"--scratch={found.folder / 'scratch'}"] if "scratch" in CATALOGUE[name].options else []
    always = [f"--document={SERVICES / 'demo.yaml'}", *scratch, *sets]
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
    """Restores the settings of a step for its whole process."""
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


def kill_at(moment: "Moment", count: int, begin: "Callable[[], subprocess.Popen[str]]") -> None:
    """Begin a process that dies of signal 9 while this request of it is on its way, and wait until it is forgotten.

    It waits for the answer, so however late the signal comes, it never ends well before.
    """
    born: Future[subprocess.Popen[str]] = Future()
    moment.later(count, lambda: born.result(timeout=60).kill())
    born.set_result(begin())
    ended = wait(born.result())
    assert ended.code == -signal.SIGKILL, ended.said


def settle(found: Services) -> None:
    """Wait until hub and bucket are done with all that was sent by processes that are dead by now."""
    until = time.monotonic() + 60
    for service in (found.hub._gateway, found.hub._cdn, found.bucket._server):
        server = service._server
        with socket.create_connection((LOOPBACK, service.port)) as last:
            while last.getsockname() not in _peers(server._open) or not all(map(_is_idle, list(server._open))):
                assert time.monotonic() < until, "a request of a dead process is still on its way"
                os.sched_yield()


def _peers(connections: Iterable[socket.socket]) -> list[object]:
    """The peers of connections; the oldest one was accepted first."""
    peers: list[object] = []
    for connection in list(connections):
        with suppress(OSError):  # it was closed meanwhile
            peers.append(connection.getpeername())
    return peers


def _is_idle(connection: socket.socket) -> bool:
    """Neither a request nor the end of the connection waits to be read."""
    try:
        return not select.select([connection], [], [], 0)[0]
    except (OSError, ValueError):  # it was closed meanwhile
        return True


class Moment(RequestFaults):
    """Does something right before a service answers the n-th request that contains all `parts`."""

    def __init__(self, *parts: str, **chance: Any) -> None:
        super().__init__(**chance)
        self._parts = parts
        self._then: dict[int, Callable[[], object]] = {}
        self._seen = 0

    def at(self, count: int, then: Callable[[], object]) -> None:
        self._then[count] = then

    def later(self, count: int, then: Callable[[], object]) -> None:
        """Counts from the next request on."""
        with self._lock:
            self._then[self._seen + count] = then

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
