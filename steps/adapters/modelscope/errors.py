"""Errors of one attempt at the hub, and the error of the step that each becomes after the last attempt.

The table is in `docs/reference/transfer-retries.md`.
"""

from steps.errors import Blocked, StepError, TransientError


class HubError(Exception):
    """One attempt failed, and another one may succeed. Never leaves the adapter."""

    def __init__(self, reason: str, *, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after  # seconds that the hub asked for

    def final(self, operation: str) -> StepError:
        """The error of the step after the last attempt."""
        raise NotImplementedError


class NoAnswer(HubError):
    """Reset, short body, timeout, 408, 429, 5xx. Retried as long as the budget lasts."""

    def final(self, operation: str) -> StepError:
        return TransientError(
            f"{operation}: no answer from the hub after several attempts; the last one: {self}",
            "check that the hub and its CDN can be reached from here; run again, moved bytes are kept",
        )


class Unreachable(NoAnswer):
    """No connection at all."""


class TooSlow(NoAnswer):
    """The connection stayed below the minimum throughput; another one may be faster."""

    def __init__(self, reason: str, *, from_the_start: bool) -> None:
        super().__init__(reason)
        self.from_the_start = from_the_start  # then its bytes are no progress


class UnusableAnswer(HubError):
    """An answer that rarely improves. Retried a few times only."""

    def final(self, operation: str) -> StepError:
        return Blocked(
            f"{operation}: {self}, several times",
            "download this file from the model's page at the hub; if that works, run again",
        )


class LinkRefused(UnusableAnswer):
    """A signed link has expired, or was never accepted. The next attempt gets another link."""


def retry_after(value: str | None) -> float:
    """Seconds of a Retry-After; 0 for a date or an unreadable value, which the pauses cover."""
    try:
        return max(0.0, float(value or 0))
    except ValueError:
        return 0.0


def is_transient(status: int) -> bool:
    """Whether the status may change by itself. 501 does not."""
    return status in (408, 425, 429) or (status >= 500 and status != 501)  # noqa: PLR2004  # HTTP's own numbers
