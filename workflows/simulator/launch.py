"""Start the embedded services as a process that ends with this one, and let only one run use them at a time."""

import fcntl
import json
import os
import select
import subprocess  # noqa: TID251  # the services are a process of their own
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from steps.reconcile.clock import SystemClock

STARTUP_SECONDS = 60.0
LOCK_SECONDS = 20.0  # steps and services of a killed run may need a moment to end


class RehearsalError(Exception):
    """The embedded services cannot start; the message has the reason and the next step."""


@dataclass(frozen=True)
class Addresses:
    """Where the embedded services are, and the key of the embedded bucket."""

    hub: str  # URL
    bucket: str  # URL
    kubeconfig: str  # file
    endpoint: str  # URL of the Service on this machine
    access_key_id: str
    access_key_secret: str


@contextmanager
def only_run(state: Path) -> Iterator[None]:
    """Hold the lock of a state folder.

    Child processes inherit it, so a step or a service that outlives its run still counts: two processes that write the
    same state at the same time would spoil it.

    Raises RehearsalError if another run keeps it.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("a+", encoding="utf-8") as lock:
        os.set_inheritable(lock.fileno(), True)
        _acquire(lock.fileno(), state)
        yield


@contextmanager
def embedded_services(root: Path, state: Path, arguments: Sequence[str]) -> Iterator[Addresses]:
    """Run `python -m workflows.simulator` for the time of the block. Raises RehearsalError if it does not start."""
    # Its own session: Ctrl-C must reach the steps, not the services that they still need to end cleanly.
    process = subprocess.Popen(  # noqa: S603  # our own module, never a shell
        [sys.executable, "-m", "workflows.simulator", f"--state={state.absolute()}", *arguments],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        close_fds=False,  # keeps the lock of the state folder
        text=True,
    )
    assert process.stdin
    with process, process.stdin:
        yield _wait_for_addresses(process)


def _acquire(lock: int, state: Path) -> None:
    clock = SystemClock()
    until = clock.now() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock.now() > until:
                raise RehearsalError(
                    f"another run is at work on {state}. Next: wait until it ends, or choose another --state"
                ) from None
            clock.sleep(0.2)
        else:
            return


def _wait_for_addresses(process: subprocess.Popen[str]) -> Addresses:
    assert process.stdout
    assert process.stderr
    ready, _, _ = select.select([process.stdout], [], [], STARTUP_SECONDS)
    line = process.stdout.readline() if ready else ""
    if line:
        return Addresses(**json.loads(line))
    process.kill()
    lines = process.stderr.read().strip().splitlines()
    raise RehearsalError(lines[-1] if lines else f"the embedded services did not start within {STARTUP_SECONDS:.0f} s")
