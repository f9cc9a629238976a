"""One bucket through oss2: session, signature, and the retries of each request."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import oss2
from oss2.exceptions import ClientError, OssError

from steps.adapters.oss.credentials import Credentials
from steps.adapters.oss.errors import (
    FAILURES,
    Operation,
    Remedy,
    explain,
    remedy,
    remove_request_details,
    requested_delay,
)
from steps.adapters.oss.session import TIMEOUTS, Session
from steps.adapters.throughput import MinimumThroughput
from steps.errors import Blocked
from steps.reconcile.retry_policy import Attempts, RetryPolicy

log = logging.getLogger(__name__)
Result = TypeVar("Result")

KIB = 1 << 10
RETRIES = RetryPolicy(budget=180.0, longest_requested=60.0)
THROUGHPUT = MinimumThroughput(64 * KIB, window=15.0)


@dataclass(frozen=True)
class OssLimits:
    """Limits of one request."""

    retries: RetryPolicy = RETRIES
    checksum_errors: int = 3  # more are no accident
    throughput: MinimumThroughput = THROUGHPUT
    piece: int = 256 * KIB  # bytes of one read, after which the throughput is checked


class OssClient:
    """`request` repeats a call of `api` by `docs/reference/transfer-retries.md`, and explains its last error."""

    def __init__(
        self, endpoint: str, region: str, bucket: str, credentials: Credentials, limits: OssLimits | None = None
    ) -> None:
        self.bucket = bucket
        self.limits = limits or OssLimits()
        self._region, self._endpoint = region, endpoint
        self._credentials = credentials
        try:
            self.api = oss2.Bucket(
                oss2.ProviderAuthV4(credentials),
                *(endpoint, bucket),
                session=Session(),
                connect_timeout=TIMEOUTS,
                enable_crc=False,
                region=region,
            )
        except ClientError as error:
            raise Blocked(
                f"cannot use the bucket {bucket!r} at {endpoint!r}: {error}",
                "check store.bucket and store.endpoint in the document",
            ) from error

    def request(self, operation: Operation, call: Callable[[], Result]) -> Result:
        """Raises Blocked and TransientError."""
        return self.attempts(operation).request(call)

    def attempts(self, operation: Operation) -> "RequestAttempts":
        return RequestAttempts(self.limits, self._credentials, operation)

    def operation(self, description: str, action: str, key: str) -> Operation:
        return Operation(description, action, self.bucket, key, self._region, self._endpoint)


class RequestAttempts(Attempts):
    """The attempts at one request."""

    def __init__(self, limits: OssLimits, credentials: Credentials, operation: Operation) -> None:
        super().__init__(limits.retries)
        self._limits = limits
        self._credentials = credentials
        self._operation = operation
        self._used: set[Remedy] = set()
        self._checksum_errors = 0

    def request(self, call: Callable[[], Result]) -> Result:
        """Raises Blocked and TransientError; `call` handles an absence and a 409 itself."""

        def attempt() -> Result:
            try:
                return call()
            except OssError as error:
                remove_request_details(error)
                raise

        try:
            return self.run(attempt)
        except FAILURES as error:
            renewed = Remedy.RENEW in self._used and remedy(error) is Remedy.RENEW
            raise explain(error, self._operation, self._credentials.advice if renewed else "") from error

    def helps(self, error: BaseException) -> bool:
        found = remedy(error)
        if found is Remedy.CHECKSUM:
            self._checksum_errors += 1
            return self._checksum_errors <= self._limits.checksum_errors
        if found in (Remedy.RENEW, Remedy.ONCE):
            first = found not in self._used
            self._used.add(found)
            return first and (found is Remedy.ONCE or self._credentials.renew())
        return found is Remedy.RETRY

    def requested_pause(self, error: BaseException) -> float:
        return requested_delay(error)

    def log(self, error: BaseException, pause: float) -> None:
        log.info("cannot %s: %s; next attempt in %.1f s", self._operation, _short(error), pause)


def _short(error: BaseException) -> str:
    if isinstance(error, OssError) and error.status > 0:
        return f"{error.status} {error.code} (request {error.request_id})"
    return f"{type(error).__name__}: {error}"
