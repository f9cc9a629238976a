"""Faults of single requests: a seeded plan that the embedded services ask before each response."""

import random
import threading
from collections.abc import Collection, Iterable
from typing import Final

DROP: Final = "drop"  # the connection is reset in the middle of the body
SHORT_BODY: Final = "short-body"  # the connection ends in good order, before all bytes that were announced
SLOW: Final = "slow"  # the body drips, far below any usable rate
WRONG_BYTES: Final = "wrong-bytes"  # the right length, one bit flipped
SERVER_ERROR: Final = "500"
UNAVAILABLE: Final = "503"
THROTTLED: Final = "429"  # with Retry-After
EXPIRED_LINK: Final = "expired-link"  # 403, as after the end of a signed link
JSON_200: Final = "json-200"  # status 200 with a JSON error instead of the file
EXPIRED_TOKEN: Final = "expired-token"  # noqa: S105  # 403 of a temporary access key after its end
LOST_ANSWER: Final = "lost-answer"  # the request was carried out, the connection ends before the answer
FORBIDDEN: Final = "403"  # only when planned: most refusals are final, so by chance it would end every run

KINDS: Final = (
    DROP,
    SHORT_BODY,
    SLOW,
    WRONG_BYTES,
    SERVER_ERROR,
    UNAVAILABLE,
    THROTTLED,
    EXPIRED_LINK,
    JSON_200,
    EXPIRED_TOKEN,
    LOST_ANSWER,
)


class RequestFaults:
    """Decides for each request whether it fails, and how; safe to ask from several threads.

    `rate` is the share of requests, 0 to 1, that fail by chance with one of `kinds`. `planned` holds faults that come
    exactly once each: (part of "METHOD /path?query", kind), tried in order before chance is.
    """

    def __init__(
        self,
        rate: float = 0.0,
        *,
        seed: int = 0,
        kinds: Collection[str] = KINDS,
        planned: Iterable[tuple[str, str]] = (),
        retry_after: int = 1,
    ) -> None:
        self._rate = rate
        self._kinds = tuple(kinds)
        self._random = random.Random(seed)  # noqa: S311  # a repeatable rehearsal, not a secret
        self._planned = list(planned)
        self._lock = threading.Lock()
        self.retry_after = retry_after  # seconds that a throttled answer asks for
        self.injected: list[tuple[str, str]] = []  # (request, kind) so far, in order

    def plan(self, part: str, kind: str, times: int = 1) -> None:
        """Let the next `times` requests that contain `part` fail with `kind`."""
        with self._lock:
            self._planned += [(part, kind)] * times

    def next(self, request: str, possible: Collection[str] = KINDS) -> str | None:
        """The fault of this request ("GET /path?query"), among those that are `possible` for it; None for none."""
        with self._lock:
            kind = self._next_planned(request, possible) or self._by_chance(possible)
            if kind:
                self.injected.append((request, kind))
            return kind

    def _next_planned(self, request: str, possible: Collection[str]) -> str | None:
        for entry in self._planned:
            part, kind = entry
            if part in request and kind in possible:
                self._planned.remove(entry)
                return kind
        return None

    def _by_chance(self, possible: Collection[str]) -> str | None:
        candidates = [kind for kind in self._kinds if kind in possible]
        if not candidates or self._random.random() >= self._rate:
            return None
        return self._random.choice(candidates)
