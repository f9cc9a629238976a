"""One bit that flips anywhere on the way is found, and is either repaired or reported in a sentence."""

import os
from pathlib import Path

import pytest

from steps.errors import Exit
from steps.transfer.layout import MIB
from tests.support.commands import Moment, call
from tests.transfer.test_end_to_end import FILES, Services
from workflows.simulator.faults.request_faults import WRONG_BYTES

LARGE, SMALL = "model-00001-of-00003.safetensors", "config.json"
PATHS = pytest.mark.parametrize("path", [LARGE, SMALL])
STEPS = pytest.mark.parametrize("step", ["mirror-model", pytest.param("download-model", marks=pytest.mark.exhaustive)])
STAGED = "--set=transfer.mode=staged"
MODE = {"mirror-model": (), "download-model": (STAGED,)}
ALWAYS = 1000
ONE = "--set=transfer.workers=1"  # so that parts move one after another


def published(found: Services) -> bool:
    return found.store().head(found.release().manifest_key) is not None


def stored(found: Services, path: str) -> bool:
    return found.store().head(f"{found.release().prefix}/{path}") is not None


def at_the_hub(path: str) -> str:
    """A part of the requests for the bytes of a file, and of no request for its link."""
    return f"filename={path}" if path == LARGE else f"FilePath={path}"


@PATHS
@STEPS
def test_between_the_hub_and_us_once_the_file_is_fetched_again(found: Services, step: str, path: str) -> None:
    found.hub_faults.plan(at_the_hub(path), WRONG_BYTES)
    ended = call(found, step, found.release().model_digest, *MODE[step])
    assert ended.code == Exit.DONE, ended.said
    assert f"{path} ({len(FILES[path])} bytes) has the SHA-256 " in ended.said
    assert "the file is fetched once more" in ended.said
    assert found.hub_faults.injected
    if step == "mirror-model":
        found.assert_whole(found.release())


@PATHS
@STEPS
def test_between_the_hub_and_us_each_time_the_run_ends(found: Services, step: str, path: str) -> None:
    found.hub_faults.plan(at_the_hub(path), WRONG_BYTES, ALWAYS)
    ended = call(found, step, found.release().model_digest, *MODE[step])
    assert ended.code == Exit.BLOCKED, ended.said
    listed = {file.path: file.sha256 for file in found.source().listing().files}[path]
    (line,) = (line for line in ended.said.splitlines() if line.startswith("failed"))
    assert f"{path} ({len(FILES[path])} bytes) has the SHA-256 " in line
    assert f"expected {listed}, 2 times. Next: the hub sent other bytes than it lists" in line
    assert not stored(found, path)
    assert not published(found)
    assert [upload for upload in found.store().uploads("") if upload.key.endswith(path)] == []


@PATHS
def test_on_the_scratch_volume_the_run_ends_and_the_next_one_mends_it(found: Services, path: str) -> None:
    digest = found.release().model_digest
    assert call(found, "download-model", digest, STAGED).code == Exit.DONE
    (file,) = (found.folder / "scratch").glob(f"*/{path}")
    flip_unseen(file)
    ended = call(found, "upload-model", digest, STAGED)
    assert ended.code == Exit.BLOCKED, ended.said
    (line,) = (line for line in ended.said.splitlines() if line.startswith("failed"))
    assert f"{path} ({len(FILES[path])} bytes) has the SHA-256 " in line
    assert "submit a new run" in line
    assert not stored(found, path)
    assert not published(found)
    for step in ("download-model", "upload-model"):
        assert call(found, step, digest, STAGED).code == Exit.DONE
    found.assert_whole(found.release())


def flip_unseen(path: Path) -> None:
    """As a failing disk does: size and times stay."""
    before, body = path.stat(), bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def at_the_bucket(path: str) -> str:
    return f"{path}?" if path == LARGE else f"/{path}"


@PATHS
def test_between_us_and_oss_once_it_is_sent_again(found: Services, path: str) -> None:
    """OSS keeps and sums the received bytes, which differ from the sent ones."""
    found.bucket_faults.plan(at_the_bucket(path), WRONG_BYTES)
    ended = call(found, "mirror-model", found.release().model_digest)
    assert ended.code == Exit.DONE, ended.said
    assert "OSS computed CRC-64 " in ended.said
    assert len(found.bucket_faults.injected) == 1
    found.assert_whole(found.release())


@PATHS
def test_between_us_and_oss_each_time_the_run_ends(found: Services, path: str) -> None:
    found.bucket_faults.plan(at_the_bucket(path), WRONG_BYTES, ALWAYS)
    ended = call(found, "mirror-model", found.release().model_digest)
    assert ended.code == Exit.BLOCKED, ended.said
    (line,) = (line for line in ended.said.splitlines() if line.startswith("failed"))
    assert f"/{path}: OSS computed CRC-64 " in line
    assert "again and again" in line
    assert "suspect the memory or the network of this node" in line
    assert not stored(found, path)
    assert not published(found)


def test_in_a_part_that_oss_got_from_an_earlier_run_the_file_starts_over(found: Services, moment: Moment) -> None:
    digest, at_hub = found.release().model_digest, found.model / LARGE
    moment.at(6, lambda: at_hub.write_bytes(b"gone for a moment"))
    assert call(found, "mirror-model", digest, ONE).code == Exit.BLOCKED
    at_hub.write_bytes(FILES[LARGE])
    store = found.store()
    (upload,) = store.uploads(f"{found.release().prefix}/{LARGE}")
    store.upload_part(upload, 2, memoryview(bytes(MIB)))
    before = len(found.bucket.requests)
    ended = call(found, "mirror-model", digest, ONE)
    assert ended.code == Exit.DONE, ended.said
    assert f"{LARGE} (5.2 MB arrived in an earlier run" in ended.said
    again = [request for request in list(found.bucket.requests)[before:] if f"/{LARGE}" in request]
    assert sum("partNumber=" in request for request in again) == 8, "every part, not only those that were missing"
    found.assert_whole(found.release())
