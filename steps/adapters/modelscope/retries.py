"""How long the hub gets: attempts, pauses, timeouts, and what counts as too slow."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from steps.adapters.modelscope.failures import Doubtful, HubFailure

log = logging.getLogger(__name__)

KIB, MIB = 1 << 10, 1 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    budget: float = 120.0  # seconds without a byte of progress; Argo's retries are for longer outages
    attempts: int = 3  # at answers that are rarely better the next time
    connect: float = 5.0  # seconds
    silence: float = 30.0  # seconds without a byte on an open connection
    first_pause: float = 0.2  # seconds
    longest_pause: float = 20.0  # seconds
    window: float = 10.0  # seconds over which speed is judged
    floor: int = 16 * KIB  # bytes a second of one public connection
    internal_floor: int = MIB  # bytes a second of one connection inside a region


class Retries:
    """The attempts at one operation. Progress renews the budget, so a slow but steady transfer is never given up."""

    def __init__(self, patience: Patience, what: str) -> None:
        self._patience = patience
        self._what = what
        self._since = time.monotonic()
        self._doubts = 0

    def progress(self) -> None:
        self._since = time.monotonic()
        self._doubts = 0

    def run(self, attempt: Callable[[], Result]) -> Result:
        """Raises what `HubFailure.final` says, and whatever else `attempt` raises."""
        patience = self._patience
        random_wait = wait_random_exponential(multiplier=patience.first_pause, max=patience.longest_pause)
        attempts = Retrying(
            retry=retry_if_exception_type(HubFailure),
            wait=lambda state: max(random_wait(state), _failure(state).retry_after),
            stop=self._enough,
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            return attempts(attempt)
        except HubFailure as failure:
            raise failure.final(self._what) from failure

    def _enough(self, state: RetryCallState) -> bool:
        if isinstance(_failure(state), Doubtful):
            self._doubts += 1
            return self._doubts >= self._patience.attempts
        return time.monotonic() - self._since + state.upcoming_sleep > self._patience.budget

    def _tell(self, state: RetryCallState) -> None:
        log.info("%s: %s; next attempt in %.1f s", self._what, _failure(state), state.upcoming_sleep)


def _failure(state: RetryCallState) -> HubFailure:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, HubFailure)
    return failure
