"""Repetition of failed calls: limits and pauses, the same for every outside system."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from steps.errors import TransientError

Result = TypeVar("Result")


@dataclass(frozen=True)
class RetryPolicy:
    """Limits of the attempts at one call, and the pauses between them. Argo's retries cover longer outages.

    Each pause is random, and its upper limit doubles: clients that failed together do not come back together.
    """

    attempts: float = math.inf
    budget: float = math.inf  # seconds for all attempts: none starts after them
    first_pause: float = 0.2  # seconds
    longest_pause: float = 20.0  # seconds
    longest_requested: float = math.inf  # seconds; a longer pause that a server requests is cut
    errors: tuple[type[Exception], ...] = (TransientError,)

    def run(self, call: Callable[[], Result]) -> Result:
        """Raises the error of the last attempt."""
        return Attempts(self).run(call)


class Attempts:
    """The attempts at one call. Subclasses decide by more than the type of an error."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self.count = 0
        self._since = time.monotonic()

    def run(self, call: Callable[[], Result]) -> Result:
        """Raises the error of the last attempt."""
        random_pause = wait_random_exponential(multiplier=self.policy.first_pause, max=self.policy.longest_pause)

        def pause(state: RetryCallState) -> float:
            return max(random_pause(state), min(self.requested_pause(_error(state)), self.policy.longest_requested))

        def counted() -> Result:
            self.count += 1
            return call()

        retrying = Retrying(
            retry=retry_if_exception(self.helps),
            wait=pause,
            stop=lambda state: self.is_exhausted(_error(state), state.upcoming_sleep),
            before_sleep=lambda state: self.log(_error(state), state.upcoming_sleep),
            reraise=True,
        )
        return retrying(counted)

    def renew_budget(self) -> None:
        """The call made progress."""
        self._since = time.monotonic()

    def helps(self, error: BaseException) -> bool:
        """Whether another attempt can end better; called once for each error."""
        return isinstance(error, self.policy.errors)

    def is_exhausted(self, error: BaseException, pause: float) -> bool:  # noqa: ARG002  # for subclasses
        """Whether the limits allow no attempt after this pause."""
        elapsed = time.monotonic() - self._since
        return self.count >= self.policy.attempts or elapsed + pause >= self.policy.budget

    def requested_pause(self, error: BaseException) -> float:  # noqa: ARG002  # for subclasses
        """Seconds that the server asked for; 0 without a request."""
        return 0.0

    def log(self, error: BaseException, pause: float) -> None:
        """Called before each pause, which is in seconds."""


def _error(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None
    return error
