"""The faults that a request can meet, and the errors of those that are a response."""

from typing import Final

from workflows.simulator.core.bucket.errors import OssError
from workflows.simulator.core.bucket.request import OssRequest
from workflows.simulator.faults import request_faults

WRONG_CRC: Final = "wrong-crc"  # the bytes are kept as sent, the answer names another CRC-64

_ANSWERS = frozenset(
    (request_faults.SERVER_ERROR, request_faults.UNAVAILABLE, request_faults.THROTTLED, request_faults.EXPIRED_TOKEN)
)
_DOWNLOAD = frozenset((request_faults.SHORT_BODY, request_faults.SLOW, request_faults.WRONG_BYTES))
_UPLOAD = frozenset((request_faults.WRONG_BYTES, WRONG_CRC))


def possible(request: OssRequest) -> frozenset[str]:
    """The faults that this request can meet."""
    kinds = _ANSWERS | {request_faults.DROP}
    if not request.header("x-oss-security-token"):
        kinds -= {request_faults.EXPIRED_TOKEN}
    if request.method not in ("GET", "HEAD"):
        kinds |= {request_faults.LOST_ANSWER}
    if request.method == "GET" and request.key and "uploadId" not in request.query:
        kinds |= _DOWNLOAD
    if request.method == "PUT" and request.key and request.length:
        kinds |= _UPLOAD
    return kinds


def error_of(kind: str, retry_after: int) -> OssError | None:
    """The answer of a fault that is an answer."""
    if kind == request_faults.SERVER_ERROR:
        return OssError(500, "InternalError", "We encountered an internal error. Please try again.")
    if kind == request_faults.UNAVAILABLE:
        # https://www.alibabacloud.com/help/en/oss/support/0055-00000003 : the wait is in milliseconds
        headers = {"x-oss-qos-delay-time": "50"}
        return OssError(503, "UploadTrafficRateLimitExceeded", "Please reduce your request rate.", headers=headers)
    if kind == request_faults.THROTTLED:
        headers = {"Retry-After": str(retry_after)}
        return OssError(429, "TooManyRequests", "Please reduce your request rate.", headers=headers)
    if kind == request_faults.EXPIRED_TOKEN:
        return OssError(403, "SecurityTokenExpired", "The security token you provided has expired.", "0002-00000007")
    return None
