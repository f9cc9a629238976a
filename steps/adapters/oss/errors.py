"""What an error of OSS means: try again, try again with other credentials, or stop and say what to do.

Codes: https://www.alibabacloud.com/help/en/oss/support/error-codes. A bucket is written `oss://bucket/key`.
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
    RENEW = "renew"  # ask for new credentials, then once more
    ONCE = "once"  # once more
    CHECKSUM = "checksum"  # a few times more
    NONE = "none"


class ChecksumError(Exception):
    """OSS computed another CRC-64 than this side, so bytes changed on the way."""

    def __init__(self, found: int | None, expected: int, request_id: str) -> None:
        super().__init__(f"OSS computed CRC-64 {found}, expected {expected}")
        self.found = found
        self.expected = expected
        self.request_id = request_id


class ShortAnswerError(Exception):
    """OSS sent less than it had announced, or too slowly to be of use."""


class WrongSliceError(Exception):
    """OSS announced another slice of the object than was asked for."""


@dataclass(frozen=True)
class Task:
    """What is being done, for messages."""

    doing: str  # "upload part 3 of"
    action: str  # of RAM, "oss:PutObject"
    bucket: str
    key: str = ""
    region: str = ""
    endpoint: str = ""

    def __str__(self) -> str:
        return f"{self.doing} oss://{self.bucket}/{self.key}"

    @property
    def resource(self) -> str:
        """As a RAM policy writes it."""
        return f"acs:oss:*:*:{self.bucket}" + (f"/{self.key}" if self.key else "")


def remedy(error: BaseException) -> Remedy:
    """Which remedy helps against an error; NONE for anything that neither time nor new credentials mend."""
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
        return Remedy.ONCE  # a request that waited for long was signed long ago
    return Remedy.NONE


def delay_asked(error: BaseException | None) -> float:
    """Seconds that OSS asks to wait; 0 if it does not say.

    https://www.alibabacloud.com/help/en/oss/support/0055-00000003 (x-oss-qos-delay-time, in milliseconds)
    """
    headers = error.headers if isinstance(error, OssError) else {}
    milliseconds, seconds = headers.get("x-oss-qos-delay-time", ""), headers.get("Retry-After", "")
    if milliseconds.isdigit():
        return int(milliseconds) / 1000
    return float(seconds) if seconds.isdigit() else 0.0


def explain(error: Exception, task: Task, advice: str = "") -> StepError:
    """The error of a step: what failed, what OSS said, and what to do; `advice` says that better where it is given."""
    if isinstance(error, ChecksumError):
        return Blocked(
            f"cannot {task}: {error}, again and again (request {error.request_id or 'without id'})",
            "suspect the memory or the network of this node; run it on another one",
        )
    if isinstance(error, WrongSliceError):
        return Blocked(f"cannot {task}: OSS has {error}", "somebody wrote over the object; run it again")
    if isinstance(error, RequestError):
        return explain(error.exception, task, advice)
    if isinstance(error, requests.exceptions.SSLError):
        return Blocked(
            f"cannot {task}: the certificate of {task.endpoint} is not trusted: {_cause(error)}",
            "check store.endpoint in the document, and the certificates of the image",
        )
    if isinstance(error, OssError):
        return _explain_answer(error, task, advice)
    return TransientError(
        f"cannot {task}: {task.endpoint} does not answer: {_cause(error)}",
        "check store.region and store.endpoint in the document and the network between here and OSS, then run it again",
    )


def _cause(error: BaseException) -> str:
    """The innermost cause, which says more than what was wrapped around it."""
    cause = error
    while cause.__context__ is not None or cause.__cause__ is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__


def _explain_answer(error: OssError, task: Task, advice: str) -> StepError:
    number = f" {error.ec}" if error.ec else ""
    said = f"{error.status} {error.code or 'without a code'}{number}: {error.message or 'no message'}"
    reason = f"cannot {task}: OSS answers {said} (request {error.request_id or 'without id'})"
    if remedy(error) is Remedy.RETRY:
        return TransientError(reason, "it was tried for minutes; look at the status of OSS, then run it again")
    return Blocked(reason, advice or _hint(error, task))


def _hint(error: OssError, task: Task) -> str:
    endpoint = error.details.get("Endpoint", "")
    if endpoint:
        return f"the bucket is at {endpoint}: set store.region, or store.endpoint, in the document"
    if error.code == "AccessDenied":
        return f"allow {task.action} on {task.resource} in the RAM policy of the key or role, or in the bucket policy"
    if error.code == "InvalidArgument" and "region" in error.message:
        return f"the bucket is not in {task.region}: set store.region in the document to the bucket's region"
    return _HINTS.get(error.code, "look the code up in the error codes of OSS, and check what the document asks for")


_HINTS = {
    "NoSuchBucket": "check store.bucket and store.region in the document; Slipway does not make buckets",
    "InvalidAccessKeyId": "the access key does not exist or is disabled: check the Secret named in the document",
    "SignatureDoesNotMatch": "the secret of the access key is wrong: check the Secret named in the document",
    "NoSuchKey": "somebody deleted it meanwhile; run it again",
    "SecurityTokenExpired": "the temporary key is over: put a new one into the Secret, or use credentials of kind rrsa",
    "InvalidSecurityToken": "the security token does not belong to the access key: check the Secret, all of its keys "
    "must come from one answer of STS",
    "RequestTimeTooSkewed": "the clock of this node is off by more than 15 minutes: set it",
    "FileImmutable": "a retention policy (WORM) protects the object: use another store.prefix or another bucket",
    "UserDisable": "the Alibaba Cloud account is stopped, most often for a bill that is not paid",
    "KmsServiceNotEnabled": "the bucket encrypts with KMS: enable KMS for the account",
    "InvalidObjectName": "OSS allows keys of 1 to 1023 bytes that do not begin with a slash: check store.prefix",
    "EntityTooSmall": "raise transfer.partSize in the document",
}

_SAFE_DETAILS = frozenset(("Code", "Message", "RequestId", "HostId", "EC", "Endpoint"))


def scrub(error: BaseException) -> None:
    """Forget what OSS repeats of the request: the signed text holds the security token, and tracebacks are logged."""
    if isinstance(error, OssError):
        error.details = {name: text for name, text in error.details.items() if name in _SAFE_DETAILS}
        error.body = b""
