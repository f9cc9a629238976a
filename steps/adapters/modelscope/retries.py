"""Limits of the hub: attempts, pauses, timeouts, and the minimum throughput."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from steps.adapters.modelscope.errors import HubError, UnusableAnswer
from steps.adapters.throughput import MinimumThroughput
from steps.reconcile.retry_policy import Attempts, RetryPolicy

log = logging.getLogger(__name__)

KIB, MIB = 1 << 10, 1 << 20

Result = TypeVar("Result")

RETRIES = RetryPolicy(budget=120.0, errors=(HubError,))
PUBLIC = MinimumThroughput(16 * KIB, window=10.0)
INTERNAL = MinimumThroughput(MIB, window=10.0)


@dataclass(frozen=True)
class HubLimits:
    retries: RetryPolicy = RETRIES  # each byte of progress renews its budget
    unusable_answers: int = 3  # attempts at answers that rarely improve
    connect: float = 5.0  # seconds
    silence: float = 30.0  # seconds without a byte on an open connection
    throughput: MinimumThroughput = PUBLIC
    internal_throughput: MinimumThroughput = INTERNAL  # of a connection inside a region


class HubAttempts(Attempts):
    """The attempts at one operation. Progress renews the budget, so a slow but steady transfer is never given up."""

    def __init__(self, limits: HubLimits, operation: str) -> None:
        super().__init__(limits.retries)
        self._limits = limits
        self._operation = operation
        self._unusable = 0

    def progress(self) -> None:
        self.renew_budget()
        self._unusable = 0

    def request(self, call: Callable[[], Result]) -> Result:
        """Raises the `final` error of the last failure, and every other error of `call`."""
        try:
            return self.run(call)
        except HubError as error:
            raise error.final(self._operation) from error

    def is_exhausted(self, error: BaseException, pause: float) -> bool:
        if isinstance(error, UnusableAnswer):
            self._unusable += 1
            return self._unusable >= self._limits.unusable_answers
        return super().is_exhausted(error, pause)

    def requested_pause(self, error: BaseException) -> float:
        return error.retry_after if isinstance(error, HubError) else 0.0

    def log(self, error: BaseException, pause: float) -> None:
        log.info("%s: %s; next attempt in %.1f s", self._operation, error, pause)
