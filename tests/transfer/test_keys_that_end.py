"""Temporary keys of a role during mirror-model: replaced before their end, and when OSS refuses one all the same."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from steps.adapters.oss.credentials import RoleCredentials, role_credentials
from steps.adapters.oss.store import OssStore
from steps.errors import Exit
from steps.mirror_model import MirrorModel
from steps.reconcile.converge import converge
from tests.support.commands import Ended, Moment, call
from tests.support.fakes import FakeClock, RecordingReport
from tests.transfer.test_end_to_end import BUCKET, Services, services
from workflows.simulator.core.bucket.keys import Key
from workflows.simulator.http.bucket import Bucket
from workflows.simulator.http.sts import Sts

ROLE, PROVIDER, POD_TOKEN = "acs:ram::1:role/slipway", "acs:ram::1:oidc-provider/ack", "dummy-service-account-token"
HOUR = 3600.0  # seconds
A_PART = "partNumber="


@dataclass
class World:
    """A hub, a bucket, an STS, and a pod with the token of a service account."""

    found: Services
    moment: Moment
    environment: dict[str, str]
    next_lifetime: float = HOUR  # seconds; every later key lives an hour
    usable: bool = True  # whether OSS knows the keys that STS gives
    passed: float = 0.0  # seconds since the start, for those who ask the pod's clock and STS
    issued: list[Key] = field(default_factory=list)

    def issue(self, _asked: float) -> Key:
        key = self.found.bucket.issue(self.next_lifetime)
        self.next_lifetime = HOUR
        self.issued.append(replace(key, expires=(key.expires or 0) + self.passed))
        if not self.usable:
            self.found.bucket.expire_keys()
        return self.issued[-1]

    def mirror(self, workers: int = 4) -> Ended:
        sets = ("--set=store.credentials={role: slipway}", f"--set=transfer.workers={workers}")
        return call(self.found, "mirror-model", self.found.release().model_digest, *sets, environment=self.environment)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    moment = Moment(A_PART)
    found = services(tmp_path, bucket_faults=moment)
    token = tmp_path / "pod-token"
    token.write_text(POD_TOKEN, encoding="utf-8")
    environment = {
        "ALIBABA_CLOUD_ROLE_ARN": ROLE,
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": PROVIDER,
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(token),
    }
    world = World(found, moment, environment)
    sts = Sts(role_arn=ROLE, provider_arn=PROVIDER, token=POD_TOKEN, issue=world.issue)
    sts.start()
    environment["SLIPWAY_STS_ENDPOINT"] = sts.url
    yield world
    sts.stop()
    found.hub.stop()
    found.bucket.stop()


def test_a_key_near_its_end_is_replaced_before_oss_refuses_it(here: World) -> None:
    here.next_lifetime = 890.0
    ended = here.mirror()
    assert ended.code == Exit.DONE, ended.said
    assert len(here.issued) == 2
    assert "SecurityTokenExpired" not in ended.said
    here.found.assert_whole(here.found.release())


def test_a_transfer_of_hours_has_a_new_key_a_quarter_of_an_hour_before_each_end(
    here: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of each key is near from the third and the ninth part on, and OSS never gets to refuse one."""
    caplog.set_level(logging.INFO)

    def three_quarters_of_an_hour_pass() -> None:
        here.passed += HOUR - 890

    here.moment.at(3, three_quarters_of_an_hour_pass)
    here.moment.at(9, three_quarters_of_an_hour_pass)
    role = role_credentials("cn-hangzhou", here.environment, "slipway").role
    credentials = RoleCredentials(role, clock=lambda: time.time() + here.passed)
    store, release = OssStore(here.found.bucket.url, "cn-hangzhou", BUCKET, credentials), here.found.release()
    converge(MirrorModel(release, here.found.source(), store, FakeClock()), RecordingReport(), FakeClock())
    assert here.moment.is_over
    assert len(here.issued) == 3
    assert "SecurityTokenExpired" not in caplog.text
    here.found.assert_whole(release)


@pytest.mark.parametrize(
    ("refuse", "code"),
    [(Bucket.expire_keys, "SecurityTokenExpired"), (Bucket.forget_keys, "InvalidAccessKeyId")],
    ids=["expired", "unknown"],
)
@pytest.mark.parametrize(("workers", "counts"), [(1, (3, 9)), (4, (5,))], ids=["twice", "in four threads at once"])
def test_a_key_that_oss_refuses_is_replaced_though_its_end_is_an_hour_away(
    here: World, refuse: Callable[[Bucket], None], code: str, workers: int, counts: tuple[int, ...]
) -> None:
    for count in counts:
        here.moment.at(count, lambda: refuse(here.found.bucket))
    ended = here.mirror(workers)
    assert ended.code == Exit.DONE, ended.said
    assert here.moment.is_over
    assert f"403 {code}" in ended.said
    assert len(here.issued) == 1 + len(counts)
    here.found.assert_whole(here.found.release())


def test_keys_that_stay_refused_end_it_with_a_sentence_and_the_next_run_goes_on(here: World) -> None:
    def end() -> None:
        here.usable = False
        here.found.bucket.expire_keys()

    here.moment.at(9, end)
    ended = here.mirror()
    assert ended.code == Exit.BLOCKED, ended.said
    assert "OSS answers 403 SecurityTokenExpired" in ended.said
    assert f"OSS refuses the new key of {ROLE}, too: check that the role exists" in ended.said
    assert len(here.issued) < 20
    here.usable = True
    again = here.mirror()
    assert again.code == Exit.DONE, again.said
    here.found.assert_whole(here.found.release())


def test_a_role_that_is_gone_in_the_middle_is_named(here: World) -> None:
    def end() -> None:
        Path(token).write_text("a token of another role", encoding="utf-8")
        here.found.bucket.expire_keys()

    token = here.environment["ALIBABA_CLOUD_OIDC_TOKEN_FILE"]
    here.moment.at(5, end)
    ended = here.mirror()
    assert ended.code == Exit.BLOCKED, ended.said
    assert f"cannot assume {ROLE}" in ended.said
    assert "AuthenticationFail.OIDCToken.Invalid" in ended.said
    assert "trust policy" in ended.said
    assert list(here.found.store().scan(here.found.release().manifest_key)) == []
