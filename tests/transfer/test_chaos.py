"""Transfers as processes, on a bad day: faults, kill -9 and ending keys at once; and on the best one, nothing to do."""

import os
import random
import subprocess  # noqa: TID251  # a step is a process, and is killed as one
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from steps.adapters.modelscope import ModelScopeSource
from steps.download_model import DownloadModel
from steps.engine.converge import Step, converge
from steps.mirror_model import MirrorModel
from steps.resolve_model import ResolveModel
from steps.transfer.bucket import STATE_FOLDER
from steps.transfer.shards import Shard
from steps.upload_model import UploadModel
from tests.fakes import FakeClock, RecordingReport
from tests.samples import ROOT, SERVICES
from tests.transfer.test_end_to_end import KEY, KINDS, OVERRIDES, Services, services
from workflows.rehearsal.bucket import Key
from workflows.rehearsal.faults import Faults
from workflows.rehearsal.hub import Hub
from workflows.rehearsal.sts import Sts

KILLS = 5
STREAMED = ("transfer.mode=streamed", *OVERRIDES)
STATIC = {"OSS_ACCESS_KEY_ID": KEY.id, "OSS_ACCESS_KEY_SECRET": KEY.secret}


@contextmanager
def started(folder: Path, hub_faults: Faults | None = None, bucket_faults: Faults | None = None) -> Iterator[Services]:
    found = services(folder, hub_faults, bucket_faults)
    try:
        yield found
    finally:
        found.hub.stop()
        found.bucket.stop()


def step(
    found: Services, name: str, digest: str, *more: str, environment: Mapping[str, str] = STATIC
) -> "subprocess.Popen[str]":
    sets = [f"--set={override}" for override in STREAMED]
    words = [sys.executable, "-m", "steps", name, f"--service={SERVICES / 'demo.yaml'}", *sets, *more]
    surroundings = {"SLIPWAY_MODELSCOPE_ENDPOINT": found.hub.url, "SLIPWAY_OSS_ENDPOINT": found.bucket.url}
    return subprocess.Popen(
        [*words, f"--model-digest={digest}"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **surroundings, **environment},  # noqa: TID251  # of a test's own process
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def requests(found: Services) -> int:
    return len(found.hub.requests) + len(found.bucket.requests)


@pytest.mark.parametrize("seed", [3, pytest.param(11, marks=pytest.mark.exhaustive)])
def test_faults_and_kills_in_one_transfer_leave_every_file_right_and_nothing_behind(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    hub_faults, bucket_faults = (Faults(0.03, seed=seed + place, kinds=KINDS, retry_after=0) for place in (0, 1))
    with started(tmp_path, hub_faults, bucket_faults) as found:
        release = found.release()
        for _ in range(KILLS):
            enough = requests(found) + chance.randint(5, 60)
            with step(found, "mirror-model", release.model_digest) as process:
                while process.poll() is None and requests(found) < enough:
                    os.sched_yield()
                process.kill()
            assert process.returncode == -9, "the transfer ended before it was killed"
        with step(found, "mirror-model", release.model_digest) as process:
            said, _ = process.communicate(timeout=100)
        assert process.returncode == 0, said
        found.assert_whole(release)  # every SHA-256, and no upload that is still open
        assert not list(found.store().scan(f"{release.prefix}/{STATE_FOLDER}/"))
        assert hub_faults.injected
        assert bucket_faults.injected


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
        steps: list[Step[Any]] = [ResolveModel(release.service, found.source()), *line[way]]
        for one in steps:
            outcome = converge(one, RecordingReport(), FakeClock())
            assert outcome.changes == ()
        assert requests(found) <= 5
        assert {request.partition(" ")[0] for request in found.bucket.requests} == {"GET"}
        assert not found.hub.received("FilePath=")
        assert not found.hub.received("/cdn/")


def expire_keys(found: Services, process: "subprocess.Popen[str]", after: Iterable[int]) -> int:
    """End all keys each time the bucket has had so many requests; how often the transfer was still at work then."""
    ended = 0
    for enough in after:
        while process.poll() is None and len(found.bucket.requests) < enough:
            os.sched_yield()
        ended += process.poll() is None
        found.bucket.expire_keys()
    return ended


ROLE, PROVIDER, POD_TOKEN = "acs:ram::1:role/slipway", "acs:ram::1:oidc-provider/ack", "dummy-service-account-token"
HUB_TOKEN = "ms-dummy-hub-token"
KEY_SECONDS = 30.0


def test_keys_that_end_during_a_transfer_are_replaced_and_no_secret_is_ever_logged(tmp_path: Path) -> None:
    """A private model and a role: every kind of secret that a transfer meets, at the highest level of logging."""
    faults = Faults(0.03, seed=5, kinds=KINDS, retry_after=0)
    with started(tmp_path, bucket_faults=faults) as found:
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
            "--set=store.credentials={kind: rrsa, role: slipway}",
            "--set=model.token={secret: hub, key: token}",
            "--set=transfer.workers=2",
        )
        with step(found, "mirror-model", source.listing().digest, *more, environment=environment) as process:
            ended = expire_keys(found, process, (6, 14, 22))
            said, _ = process.communicate(timeout=100)
        sts.stop()
        assert process.returncode == 0, said
        assert ended == 3, "the transfer was over before its keys were"
        assert len({key.id for key in issued}) > ended
        links = {
            request.target.partition("auth_key=")[2].partition("&")[0] for request in found.hub.received("auth_key=")
        }
        assert links
        secrets = {POD_TOKEN, HUB_TOKEN, *links}
        secrets |= {secret for key in issued for secret in (key.secret, key.token)}
        assert "" not in secrets
        assert [secret for secret in secrets if secret in said] == []
        assert "Authorization" not in said
