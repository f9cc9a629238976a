"""The three steps over sockets: the real adapters, the embedded hub and the embedded bucket, and faults."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from steps.adapters.modelscope.source import ModelScopeSource
from steps.adapters.oss.credentials import static_credentials
from steps.adapters.oss.store import OssStore
from steps.document.schema import load
from steps.download_model import DownloadModel
from steps.errors import Blocked
from steps.mirror_model import MirrorModel
from steps.ports.oss import AccessKey
from steps.reconcile.converge import Outcome, converge
from steps.release import Release
from steps.transfer import manifest
from steps.transfer.layout import MIB
from steps.upload_model import UploadModel
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.samples import SERVICES
from workflows.simulator.faults import request_faults as fault_kinds
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.bucket import Bucket
from workflows.simulator.http.hub import Hub

KEY = AccessKey("dummy-id", "dummy-secret")
BUCKET = "demo-models"
OVERRIDES = ("transfer.partSize=1Mi", "transfer.workers=4")
# Wrong bytes end a run when they hit one file twice, and slow answers cost the patience of an adapter: both have their
# own tests. The rest must never be noticed.
KINDS = tuple(kind for kind in fault_kinds.KINDS if kind not in {fault_kinds.WRONG_BYTES, fault_kinds.SLOW})

FILES = {
    "config.json": b'{"model_type": "qwen3"}',
    "empty.txt": b"",
    "model-00001-of-00003.safetensors": random.Random(1).randbytes(7 * MIB + 311),
    "model-00002-of-00003.safetensors": random.Random(2).randbytes(5 * MIB),
    "model-00003-of-00003.safetensors": random.Random(3).randbytes(MIB + 1),
    "tokenizer/vocab.json": b'{"a": 1}' * 100,
}
# So many requests that three in a hundred are several.
SMALL = {f"texts/{number}.json": b"{}" * number for number in range(120)}


@dataclass
class Services:
    hub: Hub
    bucket: Bucket
    folder: Path
    hub_faults: RequestFaults
    bucket_faults: RequestFaults

    @property
    def model(self) -> Path:
        return self.folder / "hub" / "slipway" / "Qwen3-demo"

    def source(self) -> ModelScopeSource:
        return ModelScopeSource(endpoint=self.hub.url, model_id="slipway/Qwen3-demo", revision="master")

    def store(self) -> OssStore:
        return OssStore(self.bucket.url, "cn-hangzhou", BUCKET, static_credentials(KEY))

    def release(self) -> Release:
        return Release(load(SERVICES / "demo.yaml", OVERRIDES), self.source().listing().digest)

    def mirror(self, release: Release | None = None) -> Outcome:
        step = MirrorModel(release or self.release(), self.source(), self.store(), FakeClock())
        return converge(step, RecordingReport(), FakeClock())

    def stage(self) -> tuple[Outcome, Outcome]:
        release, scratch = self.release(), self.folder / "scratch"
        download = DownloadModel(release, self.source(), self.store(), scratch, FakeClock())
        fetched = converge(download, RecordingReport(), FakeClock())
        sent = converge(UploadModel(release, self.store(), scratch, FakeClock()), RecordingReport(), FakeClock())
        return fetched, sent

    def assert_whole(self, release: Release) -> None:
        """Compare the disk of the bucket with the disk of the hub."""
        root = self.folder / "bucket" / "objects" / BUCKET / release.prefix
        stored = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
        stored.pop(".slipway/manifest.json")
        listed = {file.path: file.sha256 for file in self.source().listing().files}
        assert {path: hashlib.sha256(at.read_bytes()).hexdigest() for path, at in stored.items()} == listed
        assert self.store().uploads("") == []
        known = manifest.read(self.store(), release)
        assert known is not None
        assert known.model_digest == release.model_digest


def services(
    folder: Path,
    hub_faults: RequestFaults | None = None,
    bucket_faults: RequestFaults | None = None,
    *,
    many_files: bool = False,
) -> Services:
    model = folder / "hub" / "slipway" / "Qwen3-demo"
    for path, body in {**FILES, **(SMALL if many_files else {})}.items():
        (model / path).parent.mkdir(parents=True, exist_ok=True)
        (model / path).write_bytes(body)
    of_hub, of_bucket = hub_faults or RequestFaults(), bucket_faults or RequestFaults()
    hub = Hub(folder / "hub", faults=of_hub)
    bucket = Bucket(
        folder / "bucket",
        access_key_id=KEY.id,
        access_key_secret=KEY.secret,
        buckets=[BUCKET],
        region="cn-hangzhou",
        faults=of_bucket,
    )
    hub.start()
    bucket.start()
    return Services(hub, bucket, folder, of_hub, of_bucket)


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Services]:
    found = services(tmp_path)
    yield found
    found.hub.stop()
    found.bucket.stop()


@pytest.fixture
def stormy(tmp_path: Path) -> Iterator[Services]:
    found = services(
        tmp_path,
        RequestFaults(0.03, seed=7, kinds=KINDS, retry_after=0),
        RequestFaults(0.03, seed=8, kinds=KINDS, retry_after=0),
        many_files=True,
    )
    yield found
    found.hub.stop()
    found.bucket.stop()


def total() -> int:
    return sum(map(len, FILES.values()))


def test_streamed_and_staged_end_with_the_same_objects_and_the_same_manifest(quiet: Services) -> None:
    release, store = quiet.release(), quiet.store()
    streamed = quiet.mirror()
    quiet.assert_whole(release)
    first = manifest.read(store, release)
    store.delete([found.key for found in list(store.scan(f"{release.prefix}/"))])
    fetched, sent = quiet.stage()
    quiet.assert_whole(release)
    second = manifest.read(store, release)
    assert first is not None
    assert second is not None
    assert first.files == second.files
    assert {outcome.outputs.bytes_moved for outcome in (streamed, fetched, sent)} == {total()}


def test_a_refresh_without_a_change_asks_for_one_object_and_nothing_else(quiet: Services) -> None:
    release = quiet.release()
    quiet.mirror(release)
    asked_bucket, asked_hub = len(quiet.bucket.requests), len(quiet.hub.requests)
    assert quiet.mirror(release).changes == ()
    assert [request.partition("?")[0] for request in quiet.bucket.requests[asked_bucket:]] == [
        f"GET /{BUCKET}/{release.manifest_key}"
    ]
    assert len(quiet.hub.requests) == asked_hub


def test_one_changed_file_is_all_that_moves(quiet: Services) -> None:
    quiet.mirror()
    (quiet.model / "config.json").write_bytes(b'{"model_type": "qwen3", "tie": true}')
    outcome = quiet.mirror()
    quiet.assert_whole(quiet.release())
    assert (outcome.outputs.files_moved, outcome.outputs.files_copied) == (1, len(FILES) - 1)


@pytest.mark.parametrize("mode", ["streamed", "staged"])
def test_three_faults_in_a_hundred_requests_are_never_noticed(stormy: Services, mode: str) -> None:
    release = stormy.release()
    if mode == "streamed":
        stormy.mirror(release)
    else:
        stormy.stage()
    stormy.assert_whole(release)
    assert stormy.hub_faults.injected
    assert stormy.bucket_faults.injected


def test_a_bit_that_flips_between_hub_and_us_is_caught(tmp_path: Path) -> None:
    flips = RequestFaults(planned=[("/prod/lfs-objects/", fault_kinds.WRONG_BYTES)])
    found = services(tmp_path, hub_faults=flips)
    try:
        release = found.release()
        outcome = found.mirror(release)
        found.assert_whole(release)
        assert outcome.outputs.bytes_moved > total()
    finally:
        found.hub.stop()
        found.bucket.stop()


def test_a_hub_that_moves_between_two_runs_is_never_mixed(quiet: Services) -> None:
    release = quiet.release()
    (quiet.model / "config.json").write_bytes(b"{}")
    with pytest.raises(Blocked, match="submit a new run"):
        quiet.mirror(release)
    assert list(quiet.store().scan(release.prefix)) == []
