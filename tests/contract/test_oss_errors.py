"""The remedy of each error of OSS, as in the tables of docs/reference/transfer-retries.md."""

import re

import pytest
import requests
import urllib3
from oss2.exceptions import OssError, RequestError, ServerError

from steps.adapters.oss.errors import (
    ChecksumError,
    Operation,
    Remedy,
    ShortAnswerError,
    WrongSliceError,
    explain,
    remedy,
    remove_request_details,
    requested_delay,
)
from steps.errors import Blocked, TransientError
from tests.support.samples import ROOT

OPERATION = Operation(
    "write", "oss:PutObject", "models", "Qwen/a", "cn-hangzhou", "https://oss-cn-hangzhou-internal.aliyuncs.com"
)


def answer(status: int, code: str, headers: dict[str, str] | None = None, **details: str) -> OssError:
    found = {"Code": code, "Message": "dummy message", **details}
    return ServerError(status, {"x-oss-request-id": "5F0", **(headers or {})}, b"body", found)


RETRIED = [
    (RequestError(requests.ConnectionError("reset")), TransientError),
    (RequestError(requests.ReadTimeout("read timed out")), TransientError),
    (urllib3.exceptions.ProtocolError("IncompleteRead"), TransientError),
    (ConnectionResetError("reset"), TransientError),
    (ShortAnswerError("3 of 5 bytes"), TransientError),
    (answer(500, "InternalError"), TransientError),
    (answer(502, ""), TransientError),
    (answer(503, "ServiceUnavailable"), TransientError),
    (answer(503, "UploadTrafficRateLimitExceeded"), TransientError),
    (answer(504, ""), TransientError),
    (answer(408, ""), TransientError),
    (answer(429, "TooManyRequests"), TransientError),
    (answer(400, "RequestTimeout"), TransientError),
]
FATAL = [
    (answer(400, "InvalidArgument"), "error codes of OSS"),
    (answer(400, "InvalidPart"), "error codes of OSS"),
    (answer(400, "EntityTooSmall"), "transfer.partSize"),
    (answer(400, "InvalidDigest"), "error codes of OSS"),
    (answer(400, "InvalidObjectName"), "store.prefix"),
    (answer(403, "AccessDenied"), "allow oss:PutObject on acs:oss:*:*:models/Qwen/a"),
    (
        answer(403, "AccessDenied", Endpoint="oss-cn-beijing.aliyuncs.com"),
        "the bucket is at oss-cn-beijing.aliyuncs.com",
    ),
    (answer(403, "SignatureDoesNotMatch"), "check the Secret"),
    (answer(403, "UserDisable"), "bill"),
    (answer(404, "NoSuchBucket"), "store.bucket"),
    (answer(404, "NoSuchKey"), "deleted it meanwhile"),
    (answer(409, "FileImmutable"), "WORM"),
    (answer(501, "NotImplemented"), "error codes of OSS"),
    (RequestError(requests.exceptions.SSLError("self-signed certificate")), "certificates of the image"),
    (WrongSliceError("bytes 0-1/2, expected bytes 0-3/"), "overwrote the object"),
]
RENEWED = [
    answer(403, "SecurityTokenExpired"),
    answer(403, "InvalidSecurityToken"),
    answer(403, "InvalidAccessKeyId"),
]


WORDS = {
    "tried again": Remedy.RETRY,
    "new key, then once more": Remedy.RENEW,
    "once more": Remedy.ONCE,
    "refused": Remedy.NONE,
}
ROWS = re.findall(
    r"^\| (\d{3}) \| (\w*) ?\| ([\w ,]+) \|$",
    (ROOT / "docs" / "reference" / "transfer-retries.md").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize(("status", "code", "happens"), ROWS)
def test_the_table_in_the_docs_is_true(status: str, code: str, happens: str) -> None:
    assert remedy(answer(int(status), code)) is WORDS[happens]


def test_the_table_in_the_docs_is_whole() -> None:
    errors = [error for error, _ in (*RETRIED, *FATAL)] + RENEWED
    known = {(str(error.status), error.code) for error in errors if isinstance(error, ServerError)}
    assert known <= {(status, code) for status, code, _ in ROWS}


def name(value: object) -> str:
    return value.code or str(value.status) if isinstance(value, OssError) and value.status > 0 else type(value).__name__


@pytest.mark.parametrize(("error", "becomes"), RETRIED, ids=name)
def test_what_passes_is_retried_and_left_to_argo_in_the_end(error: Exception, becomes: type[Exception]) -> None:
    assert remedy(error) is Remedy.RETRY
    assert isinstance(explain(error, OPERATION), becomes)


@pytest.mark.parametrize(("error", "hint"), FATAL, ids=name)
def test_what_stays_is_never_retried_and_says_what_to_do(error: Exception, hint: str) -> None:
    assert remedy(error) is Remedy.NONE
    explained = explain(error, OPERATION)
    assert isinstance(explained, Blocked)
    assert explained.reason.startswith("cannot write oss://models/Qwen/a: ")
    assert hint in explained.hint


@pytest.mark.parametrize("error", RENEWED, ids=name)
def test_a_stale_key_is_replaced(error: OssError) -> None:
    assert remedy(error) is Remedy.RENEW
    assert isinstance(explain(error, OPERATION), Blocked)


def test_a_skewed_clock_gets_one_more_attempt() -> None:
    assert remedy(answer(403, "RequestTimeTooSkewed")) is Remedy.ONCE


def test_a_wrong_sum_gets_a_few_more_attempts() -> None:
    error = ChecksumError(1, 2, "5F0")
    assert remedy(error) is Remedy.CHECKSUM
    assert isinstance(explain(error, OPERATION), Blocked)


def test_a_bug_is_not_retried() -> None:
    assert remedy(KeyError("x")) is Remedy.NONE


def test_an_answer_is_quoted_with_its_code_and_request() -> None:
    reason = explain(answer(403, "AccessDenied", EC="0003-00000001"), OPERATION).reason
    assert "OSS answers 403 AccessDenied 0003-00000001: dummy message (request 5F0)" in reason


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-oss-qos-delay-time": "1500"}, 1.5),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_wait_that_oss_asks_for_is_known(headers: dict[str, str], seconds: float) -> None:
    assert requested_delay(answer(503, "ServiceUnavailable", headers)) == seconds


def test_no_answer_asks_for_no_wait() -> None:
    assert requested_delay(ConnectionResetError()) == 0


def test_what_oss_repeats_of_a_request_is_forgotten() -> None:
    error = answer(403, "SignatureDoesNotMatch", StringToSign="x-oss-security-token:dummy", CanonicalRequest="dummy2")
    remove_request_details(error)
    assert "dummy2" not in str(error)
    assert "security-token" not in str(error) + repr(error.body) + repr(error.details)
    assert error.code == "SignatureDoesNotMatch"
