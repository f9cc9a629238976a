"""Temporary keys of a role come from STS, are replaced before their end, and their secrets stay secret."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from steps.adapters.oss.credentials import RETRIES, RoleCredentials, role_credentials, static_credentials
from steps.errors import Blocked, TransientError
from steps.ports.oss import AccessKey
from tests.support.buckets import running, store
from tests.support.hubs import refusing
from workflows.simulator.faults import request_faults as kinds
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.bucket import Bucket
from workflows.simulator.http.sts import Sts

ROLE, PROVIDER, TOKEN = "acs:ram::1:role/slipway", "acs:ram::1:oidc-provider/ack", "dummy-service-account-token"


class Now:
    """Seconds since 1970 that only tests move."""

    def __init__(self) -> None:
        self.seconds = time.time()

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def faults() -> RequestFaults:
    return RequestFaults()


@pytest.fixture
def bucket(tmp_path: Path, faults: RequestFaults, now: Now) -> Iterator[Bucket]:
    with running(tmp_path / "bucket", faults=faults, clock=now) as found:
        yield found


@pytest.fixture
def sts(bucket: Bucket) -> Iterator[Sts]:
    server = Sts(role_arn=ROLE, provider_arn=PROVIDER, token=TOKEN, issue=bucket.issue)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def environment(tmp_path: Path, sts: Sts) -> dict[str, str]:
    (tmp_path / "token").write_text(TOKEN + "\n")
    return {
        "ALIBABA_CLOUD_ROLE_ARN": ROLE,
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": PROVIDER,
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(tmp_path / "token"),
        "SLIPWAY_STS_ENDPOINT": sts.url,
    }


@pytest.fixture
def role(environment: dict[str, str], now: Now) -> RoleCredentials:
    role = role_credentials("cn-hangzhou", environment, "slipway").role
    return RoleCredentials(role, clock=now, retries=replace(RETRIES, budget=30, first_pause=0.001))


@pytest.fixture
def hasty_role(role: RoleCredentials, now: Now) -> RoleCredentials:
    """Gives up soon; the first attempt has all the time that it needs."""
    return RoleCredentials(role.role, clock=now, retries=replace(RETRIES, budget=0.05, first_pause=0.001))


def test_a_role_writes_to_the_bucket(bucket: Bucket, environment: dict[str, str], sts: Sts) -> None:
    oss = store(bucket, role_credentials("cn-hangzhou", environment, "slipway"))
    oss.put("a", b"content")
    assert oss.get("a") == b"content"
    (asked,) = sts.asked
    assert (asked["RoleSessionName"], asked["DurationSeconds"]) == ("slipway", "3600")


@pytest.mark.parametrize("refuse", [Bucket.expire_keys, Bucket.forget_keys], ids=["expired", "unknown"])
def test_a_key_that_is_refused_in_the_middle_of_a_transfer_is_replaced_however_new_it_is(
    bucket: Bucket, role: RoleCredentials, sts: Sts, refuse: Callable[[Bucket], None]
) -> None:
    oss = store(bucket, role)
    upload = oss.start_upload("a")
    part = oss.upload_part(upload, 1, memoryview(b"x"))
    refuse(bucket)
    assert oss.complete_upload(upload, [part], crc64=part.crc64 or 0).size == 1
    assert len(sts.asked) == 2


def test_a_new_key_that_is_refused_too_ends_it(bucket: Bucket, role: RoleCredentials, faults: RequestFaults) -> None:
    faults.plan("PUT /models/a", kinds.EXPIRED_TOKEN, times=3)
    with pytest.raises(Blocked, match="SecurityTokenExpired") as refusal:
        store(bucket, role).put("a", b"x")
    assert len(faults.injected) == 2
    assert "OSS refuses the new key of acs:ram::1:role/slipway, too" in refusal.value.hint


def test_a_static_key_that_is_over_is_not_tried_again(bucket: Bucket, faults: RequestFaults) -> None:
    key = bucket.issue(3600)
    oss = store(bucket, static_credentials(AccessKey(key.id, key.secret, key.token)))
    oss.put("a", b"x")
    bucket.expire_keys()
    bucket.requests.clear()
    with pytest.raises(Blocked, match="SecurityTokenExpired"):
        oss.put("a", b"x")
    assert len(bucket.requests) == 1


def test_a_key_is_replaced_a_quarter_of_an_hour_before_its_end(role: RoleCredentials, now: Now) -> None:
    first = role.get_credentials()
    now.seconds += 3600 - 902
    assert role.get_credentials() is first
    now.seconds += 4
    assert role.get_credentials() is not first


def test_many_threads_ask_sts_once(role: RoleCredentials, sts: Sts) -> None:
    together = threading.Barrier(16)

    def be_refused(_number: int) -> int:
        key = role.get_credentials()
        together.wait(60)
        assert role.renew()
        return id(key)

    with ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(be_refused, range(16)))) == 1
    assert len(sts.asked) == 2


def test_sts_that_stumbles_is_asked_again(role: RoleCredentials, sts: Sts) -> None:
    sts.refuse(503, "ServiceUnavailable")
    sts.refuse(400, "Throttling.User")
    assert role.get_credentials().get_security_token()
    assert len(sts.asked) == 3


def test_a_key_that_is_still_good_outlives_an_sts_that_is_down(hasty_role: RoleCredentials, now: Now) -> None:
    first = hasty_role.get_credentials()
    with refusing() as url:
        hasty_role.role = replace(hasty_role.role, endpoint=url)
        now.seconds += 3600 - 600
        assert hasty_role.get_credentials() is first
        now.seconds += 700
        with pytest.raises(TransientError, match="does not answer"):
            hasty_role.get_credentials()


def test_the_token_is_read_again_for_each_key(role: RoleCredentials, sts: Sts, now: Now, tmp_path: Path) -> None:
    role.get_credentials()
    (tmp_path / "token").write_text("another token")
    now.seconds += 3600
    with pytest.raises(Blocked, match=r"cannot assume acs:ram::1:role/slipway.*AuthenticationFail\.OIDCToken\.Invalid"):
        role.get_credentials()
    assert sts.asked[-1]["OIDCToken"] == "another token"


@pytest.mark.parametrize(
    ("variable", "code"),
    [("ALIBABA_CLOUD_ROLE_ARN", "EntityNotExist.Role"), ("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "AuthenticationFail")],
)
def test_a_refusal_of_sts_is_not_repeated_and_says_what_to_do(
    environment: dict[str, str], sts: Sts, variable: str, code: str
) -> None:
    environment[variable] = "acs:ram::2:role/slipway"
    with pytest.raises(Blocked, match=code) as error:
        role_credentials("cn-hangzhou", environment, "slipway").get_credentials()
    assert "trust policy" in error.value.hint
    assert len(sts.asked) == 1


@pytest.mark.parametrize(
    "variable", ["ALIBABA_CLOUD_ROLE_ARN", "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "ALIBABA_CLOUD_OIDC_TOKEN_FILE"]
)
def test_a_pod_without_rrsa_is_told_how_to_get_it(environment: dict[str, str], variable: str) -> None:
    del environment[variable]
    with pytest.raises(Blocked, match=rf"kind rrsa, but the environment lacks {variable}\. Next: enable RRSA"):
        role_credentials("cn-hangzhou", environment, "slipway")


def test_a_pod_whose_account_has_the_role_of_another_document_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(Blocked, match=rf"names the RAM role chat-oss, but the account of this pod has {ROLE}\. Next: "):
        role_credentials("cn-hangzhou", environment, "chat-oss")
    role_credentials("cn-hangzhou", environment, "Slipway")  # how an ARN spells a name is no reason to refuse it


def test_a_token_file_that_is_gone_is_named(role: RoleCredentials, tmp_path: Path) -> None:
    (tmp_path / "token").unlink()
    with pytest.raises(Blocked, match=r"cannot read the token of the service account.*token"):
        role.get_credentials()


def test_sts_of_the_region_is_asked_inside_its_network(environment: dict[str, str]) -> None:
    del environment["SLIPWAY_STS_ENDPOINT"]
    assert (
        role_credentials("cn-beijing", environment, "slipway").role.endpoint
        == "https://sts-vpc.cn-beijing.aliyuncs.com"
    )


def test_no_secret_of_sts_reaches_a_log_or_a_repr(
    hasty_role: RoleCredentials, sts: Sts, now: Now, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")
    key = hasty_role.get_credentials()
    sts.refuse(503, "ServiceUnavailable", times=100_000)
    now.seconds += 3600 - 600
    assert hasty_role.get_credentials() is key
    assert "the current key is valid for" in caplog.text
    for secret in (TOKEN, key.get_access_key_secret(), key.get_security_token()):
        assert secret not in caplog.text
        assert secret not in repr(hasty_role) + repr(vars(hasty_role))
