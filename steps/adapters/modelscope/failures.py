"""How an attempt at the hub fails, and what that means: whether another attempt helps, and what is said in the end.

`docs/reference/transfer-retries.md` has the whole table.
"""

from steps.errors import Blocked, StepError, TransientError


class HubFailure(Exception):
    """One attempt failed, and another one may not. Never leaves the adapter."""

    def __init__(self, reason: str, *, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after  # seconds that the hub asked for

    def final(self, what: str) -> StepError:
        """What is raised when no attempt helped."""
        raise NotImplementedError


class Unanswered(HubFailure):
    """No usable answer came: reset, short body, timeout, 408, 429, 5xx. Retried as long as the budget lasts."""

    def final(self, what: str) -> StepError:
        return TransientError(
            f"{what}: no answer from the hub after several attempts; the last one: {self}",
            "check that the hub and its CDN can be reached from here; what was moved is kept, run again",
        )


class Unreachable(Unanswered):
    """No connection at all."""


class TooSlow(Unanswered):
    """Bytes come so slowly that another connection is the better bet."""

    def __init__(self, reason: str, *, from_the_start: bool) -> None:
        super().__init__(reason)
        self.from_the_start = from_the_start  # then the bytes that came are no sign that it gets better


class Doubtful(HubFailure):
    """An answer that is rarely better the next time, but sometimes is. Retried a few times only."""

    def final(self, what: str) -> StepError:
        return Blocked(
            f"{what}: {self}, several times",
            "open the model's page at the hub and try to download this file there; if that works, run again",
        )


class LinkRefused(Doubtful):
    """A signed link that ended, or was never accepted. The next attempt gets another link."""


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After asks for; a date or nonsense counts as nothing asked, the back-off covers it."""
    try:
        return max(0.0, float(value or 0))
    except ValueError:
        return 0.0


def unanswered(status: int) -> bool:
    """Whether a status says "not now". 501 says "never"."""
    return status in (408, 425, 429) or (status >= 500 and status != 501)  # noqa: PLR2004  # HTTP's own numbers
