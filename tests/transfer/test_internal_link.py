"""Inside Alibaba Cloud bytes come over the internal link of the region; one that does not work costs no run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from steps.adapters.modelscope.source import ModelScopeSource
from steps.errors import Exit
from steps.mirror_model import MirrorModel
from steps.reconcile.converge import converge
from tests.support.commands import call
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.hubs import EARLY_MEASURED
from tests.transfer.test_end_to_end import FILES, Services, services
from workflows.simulator.http.hub import Hub, InternalLink

REGION = "cn-hangzhou"  # store.region of the document
LARGE = [path for path in FILES if path.endswith(".safetensors")]


@contextmanager
def hub_whose(folder: Path, internal_link: InternalLink) -> Iterator[Services]:
    found = services(folder)
    found.hub.stop()
    found.hub = Hub(folder / "hub", internal_link=internal_link)
    found.hub.start()
    try:
        yield found
    finally:
        found.hub.stop()
        found.bucket.stop()


def regions(found: Services, path: str) -> list[str | None]:
    """Which region each request for the link of a file named, in order; None for the public link."""
    return [request.headers.get("x-aliyun-region-id") for request in found.hub.received(f"FilePath={path}")]


def fetched(found: Services, place: str) -> int:
    return len(found.hub.received(f"GET {place}/prod/lfs-objects/"))


def test_the_region_of_the_bucket_is_named_and_every_byte_comes_over_its_internal_link(tmp_path: Path) -> None:
    with hub_whose(tmp_path, "serves") as found:
        ended = call(found, "mirror-model", found.release().model_digest)
        assert ended.code == Exit.DONE, ended.said
        assert [regions(found, path) for path in LARGE] == [[REGION]] * len(LARGE)
        assert fetched(found, f"/internal/{REGION}/cdn") >= 14
        assert fetched(found, "/cdn") == 0
        found.assert_whole(found.release())


@pytest.mark.parametrize("behaviour", ["refuses", "unreachable"])
@pytest.mark.parametrize("step", ["mirror-model", "download-model"])
def test_a_link_that_does_not_work_gives_way_to_the_public_one(
    tmp_path: Path, step: str, behaviour: InternalLink
) -> None:
    with hub_whose(tmp_path, behaviour) as found:
        ended = call(found, step, found.release().model_digest, "--set=transfer.workers=1")
        assert ended.code == Exit.DONE, ended.said
        assert "public links from now on" in ended.said
        # One file found out for all: it asked for the internal link, was refused there, and asked for the public one.
        asked = sorted((regions(found, path) for path in LARGE), key=len)
        assert asked == [[None], [None], [REGION, None]]
        assert fetched(found, f"/internal/{REGION}/cdn") == (1 if behaviour == "refuses" else 0)
        assert fetched(found, "/cdn") >= 14


def test_a_link_that_crawls_gives_way_to_the_public_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the seconds of a test instead of those of a pod; the rest is as the step has it."""
    with hub_whose(tmp_path, "crawls") as found:
        model = {"model_id": "slipway/Qwen3-demo", "revision": "master"}
        source = ModelScopeSource(endpoint=found.hub.url, **model, region=REGION, limits=EARLY_MEASURED)
        converge(MirrorModel(found.release(), source, found.store(), FakeClock()), RecordingReport(), FakeClock())
        assert "public links from now on" in caplog.text
        assert 1 <= fetched(found, f"/internal/{REGION}/cdn") <= 8  # the threads that were at it
        assert fetched(found, "/cdn") >= 14
        found.assert_whole(found.release())
