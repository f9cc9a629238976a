"""Tries a request again while that can help, and turns what is left into an error of the step."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from oss2.exceptions import OssError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

from steps.adapters.oss.credentials import Credentials
from steps.adapters.oss.errors import (
    NETWORK_ERRORS,
    ChecksumError,
    Remedy,
    ShortAnswerError,
    Task,
    WrongSliceError,
    delay_asked,
    explain,
    remedy,
    scrub,
)

log = logging.getLogger(__name__)
Result = TypeVar("Result")

KIB = 1 << 10
FAILURES = (OssError, ChecksumError, ShortAnswerError, WrongSliceError, *NETWORK_ERRORS)


@dataclass(frozen=True)
class Patience:
    budget: float = 180.0  # seconds for all attempts at one request; Argo's retries are for longer outages
    first_pause: float = 0.2  # seconds
    longest_pause: float = 20.0  # seconds
    longest_asked: float = 60.0  # seconds; a longer wait that OSS asks for is cut
    checksum_errors: int = 3  # of one request; more is no accident
    window: float = 15.0  # seconds over which the speed of an answer is judged
    floor: int = 64 * KIB  # bytes a second of one answer
    chunk: int = 256 * KIB  # bytes between two looks at the clock: fewer cost CPU, more let a slow answer go on


class Retries:
    """The attempts at one request."""

    def __init__(self, patience: Patience, credentials: Credentials, task: Task) -> None:
        self._patience = patience
        self._credentials = credentials
        self._task = task
        self._used: set[Remedy] = set()
        self._checksum_errors = 0
        self.attempts = 0

    def run(self, request: Callable[[], Result]) -> Result:
        """Raises Blocked or TransientError, and lets NoSuch… and 409 of OSS pass where `request` handles them."""
        patience = self._patience
        random_wait = wait_random_exponential(multiplier=patience.first_pause, max=patience.longest_pause)
        attempts = Retrying(
            retry=retry_if_exception(self._again),
            wait=lambda state: max(random_wait(state), min(delay_asked(_failure(state)), patience.longest_asked)),
            stop=stop_before_delay(patience.budget),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            result: Result = attempts(self._attempt, request)
        except FAILURES as error:
            renewed = Remedy.RENEW in self._used and remedy(error) is Remedy.RENEW
            raise explain(error, self._task, self._credentials.advice if renewed else "") from error
        return result

    def _attempt(self, request: Callable[[], Result]) -> Result:
        self.attempts += 1
        try:
            return request()
        except OssError as error:
            scrub(error)
            raise

    def _again(self, error: BaseException) -> bool:
        found = remedy(error)
        if found is Remedy.CHECKSUM:
            self._checksum_errors += 1
            return self._checksum_errors <= self._patience.checksum_errors
        if found in (Remedy.RENEW, Remedy.ONCE):
            first = found not in self._used
            self._used.add(found)
            return first and (found is Remedy.ONCE or self._credentials.renew())
        return found is Remedy.RETRY

    def _tell(self, state: RetryCallState) -> None:
        failure = _failure(state)
        log.info("cannot %s: %s; next attempt in %.1f s", self._task, _short(failure), state.upcoming_sleep)


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _short(error: BaseException | None) -> str:
    if isinstance(error, OssError) and error.status > 0:
        return f"{error.status} {error.code} (request {error.request_id})"
    return f"{type(error).__name__}: {error}"
