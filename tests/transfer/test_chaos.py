"""Transfers as processes, on a bad day: faults, kill -9 and ending keys at once; and on a good one, no changes."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from steps.adapters.modelscope.source import ModelScopeSource
from steps.download_model import DownloadModel
from steps.errors import Exit
from steps.mirror_model import MirrorModel
from steps.reconcile.converge import Step, converge
from steps.resolve_model import ResolveModel
from steps.transfer.bucket import STATE_FOLDER
from steps.transfer.shards import Shard
from steps.upload_model import UploadModel
from tests.support.commands import Moment, kill_at, settle, start, wait
from tests.support.fakes import FakeClock, HoldingOne, RecordingReport
from tests.support.samples import wanted
from tests.transfer.test_end_to_end import KINDS, Services, services
from workflows.simulator.core.bucket.keys import Key
from workflows.simulator.faults.request_faults import EXPIRED_TOKEN, RequestFaults
from workflows.simulator.http.hub import Hub
from workflows.simulator.http.sts import Sts

KILLS = 5


@contextmanager
def started(
    folder: Path,
    hub_faults: RequestFaults | None = None,
    bucket_faults: RequestFaults | None = None,
    *,
    many_files: bool = False,
) -> Iterator[Services]:
    found = services(folder, hub_faults, bucket_faults, many_files=many_files)
    try:
        yield found
    finally:
        found.hub.stop()
        found.bucket.stop()


def requests(found: Services) -> int:
    return len(found.hub.requests) + len(found.bucket.requests)


@pytest.mark.parametrize("seed", [3, pytest.param(11, marks=pytest.mark.exhaustive)])
def test_faults_and_kills_in_one_transfer_leave_every_file_right_and_nothing_behind(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    both = [Moment(rate=0.03, seed=seed + place, kinds=KINDS, retry_after=0) for place in (0, 1)]
    hub_faults, bucket_faults = both
    with started(tmp_path, hub_faults, bucket_faults, many_files=True) as found:
        release = found.release()
        for _ in range(KILLS):
            # Each small file is a request to both, so there are enough of them for all kills.
            kill_at(
                chance.choice(both),
                chance.randint(3, 20),
                lambda: start(found, "mirror-model", release.model_digest),
            )
        settle(found)
        ended = wait(start(found, "mirror-model", release.model_digest))
        assert ended.code == Exit.DONE, ended.said
        found.assert_whole(release)  # every SHA-256, and no upload that is still open
        assert not list(found.store().scan(f"{release.prefix}/{STATE_FOLDER}/"))
        assert hub_faults.injected
        assert bucket_faults.injected


@pytest.mark.parametrize("steps", [("mirror-model",), ("download-model", "upload-model")], ids=["streamed", "staged"])
def test_processes_killed_with_signal_9_leave_nothing_behind(tmp_path: Path, steps: tuple[str, ...]) -> None:
    chance = random.Random(len(steps))
    at_hub, at_bucket = Moment("/prod/lfs-objects/"), Moment("partNumber")
    mode = f"--set=transfer.mode={'staged' if len(steps) > 1 else 'streamed'}"
    with started(tmp_path, at_hub, at_bucket) as found:
        release = found.release()
        for step in steps:
            for _ in range(3):
                moment = at_bucket if step == "upload-model" else at_hub
                # Of 15 parts, so that some are left for each kill, even if the other threads moved many.
                kill_at(moment, chance.randint(1, 3), lambda: start(found, step, release.model_digest, mode))  # noqa: B023  # called at once
            settle(found)
            ended = wait(start(found, step, release.model_digest, mode))
            assert ended.code == Exit.DONE, ended.said
        found.assert_whole(release)
        assert not any(found.folder.joinpath("scratch").glob("*"))


@pytest.mark.parametrize("way", ["streamed", "in shards", "staged"])
def test_a_refresh_without_a_change_moves_no_byte_and_asks_at_most_five_times(tmp_path: Path, way: str) -> None:
    with started(tmp_path) as found:
        release, store, scratch = found.release(), found.store(), tmp_path / "scratch"
        found.mirror(release)
        line: Mapping[str, list[Step[Any]]] = {
            "streamed": [MirrorModel(release, found.source(), store, FakeClock())],
            "in shards": [
                MirrorModel(release, found.source(), store, FakeClock(), shard=shard)
                for shard in (Shard(0, 2), Shard(1, 2), None)
            ],
            "staged": [
                DownloadModel(release, found.source(), store, scratch, FakeClock()),
                UploadModel(release, store, scratch, FakeClock()),
            ],
        }
        found.hub.requests.clear()
        found.bucket.requests.clear()
        no_record: Any = HoldingOne(None)
        steps: list[Step[Any]] = [ResolveModel(wanted(name="demo"), lambda _: found.source(), no_record), *line[way]]
        for one in steps:
            outcome = converge(one, RecordingReport(), FakeClock())
            assert outcome.changes == ()
        assert requests(found) <= 5
        assert {request.partition(" ")[0] for request in found.bucket.requests} == {"GET"}
        assert not found.hub.received("FilePath=")
        assert not found.hub.received("/cdn/")


ROLE, PROVIDER, POD_TOKEN = "acs:ram::1:role/slipway", "acs:ram::1:oidc-provider/ack", "dummy-service-account-token"
HUB_TOKEN = "ms-dummy-hub-token"
KEY_SECONDS = 30.0


def test_keys_that_end_during_a_transfer_are_replaced_and_no_secret_is_ever_logged(tmp_path: Path) -> None:
    """A private model and a role: every kind of secret that a transfer meets, at the highest level of logging."""
    # That a key ends is no matter of chance here: twice in a row for one request would be the end.
    moment = Moment(rate=0.03, seed=5, kinds=[kind for kind in KINDS if kind != EXPIRED_TOKEN], retry_after=0)
    with started(tmp_path, bucket_faults=moment) as found:
        for count in (6, 14, 22):
            moment.at(count, found.bucket.expire_keys)
        found.hub.stop()
        found.hub = Hub(tmp_path / "hub", private={"slipway/Qwen3-demo": HUB_TOKEN})
        found.hub.start()
        issued: list[Key] = []

        def issue(_lifetime: float) -> Key:
            issued.append(found.bucket.issue(KEY_SECONDS))
            return issued[-1]

        sts = Sts(role_arn=ROLE, provider_arn=PROVIDER, token=POD_TOKEN, issue=issue)
        sts.start()
        token_file = tmp_path / "pod-token"
        token_file.write_text(POD_TOKEN, encoding="utf-8")
        environment = {
            "ALIBABA_CLOUD_ROLE_ARN": ROLE,
            "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": PROVIDER,
            "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(token_file),
            "SLIPWAY_STS_ENDPOINT": sts.url,
            "MODELSCOPE_API_TOKEN": HUB_TOKEN,
        }
        source = ModelScopeSource(
            endpoint=found.hub.url, model_id="slipway/Qwen3-demo", revision="master", token=HUB_TOKEN
        )
        more = (
            "--verbose",
            "--set=store.credentials={role: slipway}",
            "--set=model.token={secret: hub, key: token}",
            "--set=transfer.workers=1",  # no thread is still about to use its new key when the next one ends
        )
        ended = wait(start(found, "mirror-model", source.listing().digest, *more, environment=environment))
        sts.stop()
        assert ended.code == Exit.DONE, ended.said
        assert moment.is_over, "the transfer was over before its keys were"
        assert "403 SecurityTokenExpired" in ended.said
        assert len({key.id for key in issued}) > 3
        links = {
            request.target.partition("auth_key=")[2].partition("&")[0] for request in found.hub.received("auth_key=")
        }
        assert links
        secrets = {POD_TOKEN, HUB_TOKEN, *links}
        secrets |= {secret for key in issued for secret in (key.secret, key.token)}
        assert "" not in secrets
        assert [secret for secret in secrets if secret in ended.said] == []
        assert "Authorization" not in ended.said
