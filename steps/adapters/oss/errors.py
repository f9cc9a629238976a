"""Errors of OSS: the remedy of each, and its explanation for the person on call.

Codes: https://www.alibabacloud.com/help/en/oss/support/error-codes. Objects are written `oss://bucket/key`.
"""

from dataclasses import dataclass
from enum import Enum

import requests
import urllib3
from oss2.exceptions import OssError, RequestError

from steps.errors import Blocked, StepError, TransientError

TRANSIENT_STATUS = frozenset((408, 429, 500, 502, 503, 504))
TRANSIENT_CODES = frozenset(("RequestTimeout", "ServiceUnavailable", "InternalError"))
STALE_KEY_CODES = frozenset(("SecurityTokenExpired", "InvalidSecurityToken", "InvalidAccessKeyId"))
NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class Remedy(Enum):
    RETRY = "retry"  # within the budget
    RENEW = "renew"  # get new credentials, then once more
    ONCE = "once"  # once more
    CHECKSUM = "checksum"  # a few times more
    NONE = "none"


class ChecksumError(Exception):
    """OSS computed another CRC-64 than this side, so bytes changed on the way."""

    def __init__(self, found: int | None, expected: int | None, request_id: str) -> None:
        super().__init__(f"OSS computed CRC-64 {found}, expected {expected}")
        self.request_id = request_id


class ShortAnswerError(Exception):
    """OSS sent less than it had announced, or too slowly."""


class WrongSliceError(Exception):
    """OSS announced another slice of the object than the requested one."""


FAILURES = (OssError, ChecksumError, ShortAnswerError, WrongSliceError, *NETWORK_ERRORS)


@dataclass(frozen=True)
class Operation:
    """A request in the words of messages and policies."""

    description: str  # "upload part 3 of"
    action: str  # of RAM, "oss:PutObject"
    bucket: str
    key: str = ""
    region: str = ""
    endpoint: str = ""

    def __str__(self) -> str:
        return f"{self.description} oss://{self.bucket}/{self.key}"

    @property
    def resource(self) -> str:
        """As a RAM policy writes it."""
        return f"acs:oss:*:*:{self.bucket}" + (f"/{self.key}" if self.key else "")


def remedy(error: BaseException) -> Remedy:
    """The remedy of an error; NONE where neither time nor new credentials help."""
    if isinstance(error, ChecksumError):
        return Remedy.CHECKSUM
    if isinstance(error, RequestError):
        return remedy(error.exception)
    if isinstance(error, requests.exceptions.SSLError):
        return Remedy.NONE
    if isinstance(error, OssError):
        return _answered(error)
    return Remedy.RETRY if isinstance(error, (ShortAnswerError, *NETWORK_ERRORS)) else Remedy.NONE


def _answered(error: OssError) -> Remedy:
    if error.status in TRANSIENT_STATUS or error.code in TRANSIENT_CODES:
        return Remedy.RETRY
    if error.code in STALE_KEY_CODES:
        return Remedy.RENEW
    if error.code == "RequestTimeTooSkewed":
        return Remedy.ONCE  # a request that waited for long has an old signature
    return Remedy.NONE


def requested_delay(error: BaseException) -> float:
    """Seconds that OSS asks to wait; 0 without a request.

    https://www.alibabacloud.com/help/en/oss/support/0055-00000003 (x-oss-qos-delay-time, in milliseconds)
    """
    headers = error.headers if isinstance(error, OssError) else {}
    milliseconds, seconds = headers.get("x-oss-qos-delay-time", ""), headers.get("Retry-After", "")
    if milliseconds.isdigit():
        return int(milliseconds) / 1000
    return float(seconds) if seconds.isdigit() else 0.0


def explain(error: Exception, operation: Operation, advice: str = "") -> StepError:
    """The error of a step: what failed, the answer, and the next step. `advice` replaces the hint of the code."""
    if isinstance(error, ChecksumError):
        return Blocked(
            f"cannot {operation}: {error}, again and again (request {error.request_id or 'without id'})",
            "suspect the memory or the network of this node; run it on another one",
        )
    if isinstance(error, WrongSliceError):
        return Blocked(f"cannot {operation}: OSS has {error}", "another client overwrote the object; run it again")
    if isinstance(error, RequestError):
        return explain(error.exception, operation, advice)
    if isinstance(error, requests.exceptions.SSLError):
        return Blocked(
            f"cannot {operation}: the certificate of {operation.endpoint} is not trusted: {_cause(error)}",
            "check store.endpoint in the document, and the certificates of the image",
        )
    if isinstance(error, OssError):
        return _explain_answer(error, operation, advice)
    return TransientError(
        f"cannot {operation}: {operation.endpoint} does not answer: {_cause(error)}",
        "check store.region and store.endpoint in the document and the network between here and OSS, then run it again",
    )


def _cause(error: BaseException) -> str:
    """The innermost cause, which is more precise than its wrappers."""
    cause = error
    while cause.__context__ is not None or cause.__cause__ is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__


def _explain_answer(error: OssError, operation: Operation, advice: str) -> StepError:
    number = f" {error.ec}" if error.ec else ""
    answer = f"{error.status} {error.code or 'without a code'}{number}: {error.message or 'no message'}"
    reason = f"cannot {operation}: OSS answers {answer} (request {error.request_id or 'without id'})"
    if remedy(error) is Remedy.RETRY:
        return TransientError(reason, "attempts of several minutes failed; check the status of OSS, then run it again")
    return Blocked(reason, advice or _hint(error, operation))


def _hint(error: OssError, operation: Operation) -> str:
    endpoint = error.details.get("Endpoint", "")
    if endpoint:
        return f"the bucket is at {endpoint}: set store.region, or store.endpoint, in the document"
    if error.code == "AccessDenied":
        return (
            f"allow {operation.action} on {operation.resource} in the RAM policy of the key or role, "
            "or in the bucket policy"
        )
    if error.code == "InvalidArgument" and "region" in error.message:
        return f"the bucket is not in {operation.region}: set store.region in the document to the bucket's region"
    return _HINTS.get(error.code, "read the code in the list of error codes of OSS, and check the document")


_HINTS = {
    "NoSuchBucket": "check store.bucket and store.region in the document; Slipway creates no buckets",
    "InvalidAccessKeyId": "the access key does not exist or is disabled: check the Secret named in the document",
    "SignatureDoesNotMatch": "the secret of the access key is wrong: check the Secret named in the document",
    "NoSuchKey": "another client deleted it meanwhile; run it again",
    "SecurityTokenExpired": "the temporary key has expired: put a new one into the Secret, or use kind rrsa",
    "InvalidSecurityToken": "the security token does not belong to the access key: check the Secret; all of its keys "
    "must come from one answer of STS",
    "RequestTimeTooSkewed": "the clock of this node is off by more than 15 minutes: set it",
    "FileImmutable": "a retention policy (WORM) protects the object: use another store.prefix or another bucket",
    "UserDisable": "the Alibaba Cloud account is suspended, most often for an unpaid bill",
    "KmsServiceNotEnabled": "the bucket encrypts with KMS: enable KMS for the account",
    "InvalidObjectName": "OSS allows keys of 1 to 1023 bytes that do not begin with a slash: check store.prefix",
    "EntityTooSmall": "raise transfer.partSize in the document",
}

_SAFE_DETAILS = frozenset(("Code", "Message", "RequestId", "HostId", "EC", "Endpoint"))


def remove_request_details(error: OssError) -> None:
    """Remove the parts of the request that OSS repeats: the signed text holds the security token, and tracebacks are
    logged.
    """
    error.details = {name: text for name, text in error.details.items() if name in _SAFE_DETAILS}
    error.body = b""
