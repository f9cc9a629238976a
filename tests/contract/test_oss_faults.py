"""Every fault of the bucket is retried, or refused with a sentence and a next step."""

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fastcrc
import pytest

from steps.adapters.oss.credentials import StaticCredentials
from steps.adapters.oss.store import OssStore
from steps.adapters.throughput import MinimumThroughput
from steps.errors import Blocked, StepError, TransientError
from steps.ports.oss import AccessKey, StoredPart, Upload
from tests.support.buckets import HASTY, KEY_ID, KEY_SECRET, NAME, REGION, running, store
from tests.support.hubs import refusing
from workflows.simulator.core.bucket.possible_faults import WRONG_CRC
from workflows.simulator.faults import request_faults as kinds
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.bucket import Bucket

BODY = os.urandom(300_000)
CRC = fastcrc.crc64.xz(BODY)
BRIEF = replace(HASTY, retries=replace(HASTY.retries, budget=0.2))


@pytest.fixture
def faults() -> RequestFaults:
    return RequestFaults(retry_after=0)


@pytest.fixture
def bucket(tmp_path: Path, faults: RequestFaults) -> Iterator[Bucket]:
    with running(tmp_path, faults=faults) as found:
        yield found


@pytest.fixture
def oss(bucket: Bucket) -> OssStore:
    return store(bucket)


def read(oss: OssStore) -> None:
    buffer = bytearray(200_000)
    oss.read("a", 1000, memoryview(buffer))
    assert buffer == BODY[1000:201_000]


def get(oss: OssStore) -> None:
    assert oss.get("a") == BODY


def put(oss: OssStore) -> None:
    oss.put("new", BODY)
    assert oss.get("new") == BODY


def put_once(oss: OssStore) -> None:
    assert oss.put("new", BODY, forbid_overwrite=True) is not None
    assert oss.get("new") == BODY


def copy(oss: OssStore) -> None:
    source = oss.head("a")
    assert source is not None
    oss.copy(source, "copy")
    assert oss.get("copy") == BODY


def scan(oss: OssStore) -> None:
    assert [found.key for found in oss.scan("")] == ["a"]


def delete(oss: OssStore) -> None:
    oss.delete(["a"])
    assert oss.head("a") is None


def upload(oss: OssStore) -> None:
    started = oss.start_upload("new")
    parts = [oss.upload_part(started, 1, memoryview(BODY)), oss.upload_part(started, 2, memoryview(b"end"))]
    assert oss.parts(started) == parts
    oss.complete_upload(started, parts, crc64=fastcrc.crc64.xz(BODY + b"end"))
    assert oss.get("new") == BODY + b"end"


def abort(oss: OssStore) -> None:
    oss.abort_upload(oss.start_upload("new"))
    assert oss.uploads("") == []


ANSWERS = (kinds.DROP, kinds.SERVER_ERROR, kinds.UNAVAILABLE, kinds.THROTTLED)
MENDED = [
    *((operation, "GET /models/a", kind) for operation in (read, get) for kind in (*ANSWERS, kinds.SHORT_BODY)),
    (get, "GET /models/a", kinds.WRONG_BYTES),
    *((put, "PUT /models/new", kind) for kind in (*ANSWERS, kinds.LOST_ANSWER, kinds.WRONG_BYTES, WRONG_CRC)),
    *((put_once, "PUT /models/new", kind) for kind in (*ANSWERS, kinds.LOST_ANSWER, kinds.WRONG_BYTES, WRONG_CRC)),
    *((copy, request, kind) for request in ("HEAD /models/a", "PUT /models/copy") for kind in ANSWERS),
    (copy, "PUT /models/copy", kinds.LOST_ANSWER),
    *((scan, "list-type=2", kind) for kind in ANSWERS),
    *((delete, "POST /models/?delete", kind) for kind in (*ANSWERS, kinds.LOST_ANSWER)),
    *((upload, "partNumber=1", kind) for kind in (*ANSWERS, kinds.LOST_ANSWER, kinds.WRONG_BYTES, WRONG_CRC)),
    *((upload, "GET /models/new?uploadId", kind) for kind in ANSWERS),
    *((upload, "POST /models/new?uploadId", kind) for kind in (*ANSWERS, kinds.LOST_ANSWER)),
    *((abort, "DELETE /models/new", kind) for kind in (*ANSWERS, kinds.LOST_ANSWER)),
]


@pytest.mark.parametrize(
    ("operation", "request_part", "kind"), MENDED, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_passing_fault_is_mended_by_trying_again(
    oss: OssStore, faults: RequestFaults, operation: Callable[[OssStore], None], request_part: str, kind: str
) -> None:
    oss.put("a", BODY)
    faults.plan(request_part, kind, times=2)
    operation(oss)
    assert [kind for _, kind in faults.injected] == [kind, kind]


@pytest.mark.parametrize("seed", range(3))
def test_a_bucket_that_fails_one_request_in_five_loses_nothing(tmp_path: Path, seed: int) -> None:
    # Without the slow answers, which this test would have to wait for, and with keys that do not end.
    passing = set(kinds.KINDS) - {kinds.SLOW, kinds.EXPIRED_TOKEN}
    bodies = [os.urandom(110_000) for _ in range(3)]
    with running(tmp_path, faults=RequestFaults(0.2, seed=seed, kinds=sorted(passing), retry_after=0)) as bucket:
        oss = store(bucket, limits=replace(HASTY, checksum_errors=20))

        def move(key: str) -> None:
            started = oss.start_upload(key)
            parts = [oss.upload_part(started, number, memoryview(body)) for number, body in enumerate(bodies, start=1)]
            oss.complete_upload(started, parts, crc64=fastcrc.crc64.xz(b"".join(bodies)))
            source = oss.head(key)
            assert source is not None
            oss.copy(source, f"{key}.copy")

        keys = [f"k/{number}" for number in range(12)]
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(move, keys))
        assert [found.key for found in oss.scan("k/")] == sorted(keys + [f"{key}.copy" for key in keys])
        assert {oss.get(found.key) for found in oss.scan("k/")} == {b"".join(bodies)}


def test_a_slow_answer_is_given_up_for_another_one(oss: OssStore, bucket: Bucket, faults: RequestFaults) -> None:
    oss.put("a", BODY)
    faults.plan("GET /models/a", kinds.SLOW)
    read(store(bucket, limits=replace(HASTY, throughput=MinimumThroughput(10_000_000, window=0.1), piece=8192)))
    assert len(faults.injected) == 1


def test_the_delay_that_the_bucket_asks_for_is_waited(
    bucket: Bucket, faults: RequestFaults, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="steps")
    faults.plan("PUT /models/new", kinds.UNAVAILABLE)
    put(store(bucket))
    assert "503 UploadTrafficRateLimitExceeded" in caplog.text
    assert "next attempt in 0.1 s" in caplog.text  # 50 ms, far more than this test's own pause


def test_a_bit_that_flips_every_time_is_no_accident(oss: OssStore, faults: RequestFaults) -> None:
    started = oss.start_upload("new")
    faults.plan("partNumber=1", kinds.WRONG_BYTES, times=9)
    with pytest.raises(
        Blocked, match=r"cannot upload part 1 of oss://models/new: OSS computed CRC-64 \d+, expected"
    ) as error:
        oss.upload_part(started, 1, memoryview(BODY))
    assert "run it on another" in error.value.hint
    assert len(faults.injected) == 1 + HASTY.checksum_errors


def test_memory_that_changed_after_the_bytes_came_in_is_no_part(oss: OssStore) -> None:
    started = oss.start_upload("new")
    changed = bytearray(BODY)
    changed[123_456] ^= 1
    with pytest.raises(Blocked, match=f"cannot upload part 1 of oss://models/new: .* expected {CRC}") as error:
        oss.upload_part(started, 1, memoryview(changed), crc64=CRC)
    assert "run it on another" in error.value.hint


def test_an_object_that_was_put_wrong_every_time_does_not_stay(oss: OssStore, faults: RequestFaults) -> None:
    faults.plan("PUT /models/new", kinds.WRONG_BYTES, times=9)
    with pytest.raises(Blocked):
        oss.put("new", BODY)
    assert oss.head("new") is None


def test_a_byte_that_flips_at_rest_is_caught_when_it_is_read(oss: OssStore, tmp_path: Path) -> None:
    oss.put("a", BODY)
    with (tmp_path / "objects" / NAME / "a").open("r+b") as file:
        file.write(bytes((BODY[0] ^ 1,)))
    with pytest.raises(Blocked, match="cannot read oss://models/a: OSS computed CRC-64"):
        oss.get("a")


def test_parts_in_another_order_are_caught_by_the_sum_of_the_whole(oss: OssStore) -> None:
    started = oss.start_upload("new")
    oss.upload_part(started, 1, memoryview(BODY[150_000:]))
    oss.upload_part(started, 2, memoryview(BODY[:150_000]))
    with pytest.raises(Blocked, match="the object was deleted"):
        oss.complete_upload(started, oss.parts(started) or [], crc64=CRC)
    assert oss.head("new") is None


def test_an_older_object_survives_an_upload_that_is_gone(oss: OssStore) -> None:
    oss.put("a", b"older")
    with pytest.raises(TransientError, match="is gone"):
        oss.complete_upload(Upload("a", "0" * 32), [StoredPart(1, 5, "0" * 32)], crc64=CRC)
    assert oss.get("a") == b"older"


def test_nothing_listens() -> None:
    expected = r"cannot list oss://models/: http://127\.0\.0\.1:\d+ does not answer"
    with refusing() as url, pytest.raises(TransientError, match=expected) as error:
        list(OssStore(url, REGION, NAME, credentials(), BRIEF).scan(""))
    assert "ConnectionRefusedError" in error.value.reason
    assert "store.region" in error.value.hint


def test_the_budget_ends_what_no_retry_mends(bucket: Bucket, faults: RequestFaults) -> None:
    faults.plan("", kinds.SERVER_ERROR, times=10_000)
    with pytest.raises(TransientError, match="500 InternalError") as error:
        store(bucket, limits=BRIEF).head("a")
    assert "request " in error.value.reason
    assert len(faults.injected) > 3


def denied_to_put(bucket: Bucket) -> OssStore:
    bucket.denied.add("oss:PutObject")
    return store(bucket)


REFUSALS: list[tuple[str, Callable[[Bucket], OssStore], list[str]]] = [
    (
        "a wrong secret",
        lambda bucket: store(bucket, StaticCredentials(AccessKey(KEY_ID, "wrong"))),
        ["SignatureDoesNotMatch", "0002-00000201", "check the Secret"],
    ),
    (
        "an unknown key",
        lambda bucket: store(bucket, StaticCredentials(AccessKey("nobody", "x"))),
        ["InvalidAccessKeyId", "check the Secret"],
    ),
    (
        "a token that is over",
        lambda bucket: store(bucket, StaticCredentials(ended(bucket))),
        ["SecurityTokenExpired", "kind rrsa"],
    ),
    (
        "another region",
        lambda bucket: OssStore(bucket.url, "cn-beijing", NAME, credentials()),
        ["InvalidArgument", "cn-beijing", "store.region"],
    ),
    (
        "an absent bucket",
        lambda bucket: OssStore(bucket.url, REGION, "other-bucket", credentials()),
        ["NoSuchBucket", "oss://other-bucket/a", "store.bucket"],
    ),
    (
        "a key that may not do it",
        denied_to_put,
        ["AccessDenied", "allow oss:PutObject on acs:oss:*:*:models/a"],
    ),
]


def credentials() -> StaticCredentials:
    return StaticCredentials(AccessKey(KEY_ID, KEY_SECRET))


def ended(bucket: Bucket) -> AccessKey:
    key = bucket.issue(3600)
    bucket.expire_keys()
    return AccessKey(key.id, key.secret, key.token)


@pytest.mark.parametrize(("connect", "said"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_a_refusal_is_not_repeated_and_says_what_to_do(
    bucket: Bucket, connect: Callable[[Bucket], OssStore], said: list[str]
) -> None:
    oss = connect(bucket)
    with pytest.raises(Blocked) as error:
        oss.put("a", b"x")
    assert all(part in str(error.value) for part in ["cannot write oss://", "request ", *said])
    assert len(bucket.requests) == 1


@pytest.mark.parametrize("operation", ["head", "get"])
def test_what_may_not_be_seen_is_not_absent(bucket: Bucket, operation: str) -> None:
    bucket.denied.add("oss:GetObject")
    with pytest.raises(Blocked, match="AccessDenied"):
        getattr(store(bucket), operation)("absent")


@pytest.mark.parametrize("operation", ["head", "get"])
def test_an_absent_bucket_is_not_an_absent_object(bucket: Bucket, operation: str) -> None:
    with pytest.raises(Blocked, match="NoSuchBucket"):
        getattr(OssStore(bucket.url, REGION, "other-bucket", credentials()), operation)("a")


@pytest.mark.parametrize(("endpoint", "name"), [("https://oss!example", NAME), ("https://oss.example", "Not_A_Bucket")])
def test_an_impossible_address_is_refused_before_anything_is_sent(endpoint: str, name: str) -> None:
    with pytest.raises(Blocked, match="cannot use the bucket"):
        OssStore(endpoint, REGION, name, credentials())


def test_no_secret_reaches_a_log_at_any_level(
    bucket: Bucket, faults: RequestFaults, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    key = bucket.issue(3600)
    caplog.set_level(logging.DEBUG)
    for name in ("oss2", "oss2.api", "oss2.auth", "oss2.http", "urllib3", "requests", "steps"):
        caplog.set_level(logging.DEBUG, logger=name)
    with caplog.at_level(logging.DEBUG):
        oss = store(bucket, StaticCredentials(AccessKey(key.id, key.secret, key.token)))
        faults.plan("PUT", kinds.SERVER_ERROR)
        upload(oss)
        wrong = store(bucket, StaticCredentials(AccessKey(key.id, "wrong-secret", key.token)))
        with pytest.raises(StepError) as error:
            wrong.put("a", b"x")
        logging.getLogger("steps").error("it failed", exc_info=error.value)
    printed = capfd.readouterr()
    everything = caplog.text + printed.out + printed.err
    assert "it failed" in everything
    assert "SignatureDoesNotMatch" in everything
    for secret in (key.secret, "wrong-secret", key.token, "OSS4-HMAC-SHA256", "Signature="):
        assert secret not in everything
