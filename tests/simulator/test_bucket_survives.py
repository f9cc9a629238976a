"""The objects of the embedded bucket survive kill -9 at any moment, and none is ever visible in part."""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import fastcrc
import pytest

from steps.adapters.oss.client import OssLimits
from steps.adapters.oss.credentials import StaticCredentials
from steps.adapters.oss.store import OssStore
from steps.errors import StepError
from steps.ports.oss import AccessKey, StoredPart
from steps.reconcile.retry_policy import RetryPolicy
from tests.support.buckets import KEY_ID, KEY_SECRET, NAME, REGION, running, store
from workflows.simulator.core.bucket.index import FolderUnusableError
from workflows.simulator.http.bucket import Bucket

PART = 100 << 10  # bytes: the smallest part that OSS allows
ONE_ATTEMPT = OssLimits(retries=RetryPolicy(attempts=1))


def serve(folder: Path, channel: Connection) -> None:
    with running(folder) as bucket:
        channel.send(bucket.url)
        threading.Event().wait()


@contextmanager
def killed(folder: Path) -> Iterator[OssStore]:
    """A bucket in a process of its own that ends with SIGKILL."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(folder, there), daemon=True)
    process.start()
    try:
        credentials = StaticCredentials(AccessKey(KEY_ID, KEY_SECRET))
        yield OssStore(here.recv(), REGION, NAME, credentials, ONE_ATTEMPT)
    finally:
        process.kill()
        process.join()


def test_objects_and_uploads_are_there_after_a_kill(tmp_path: Path) -> None:
    bodies = [os.urandom(PART), os.urandom(PART), b"end"]
    with killed(tmp_path) as oss:
        oss.put("a", b"content", metadata={"sha256": "ab"})
        before = oss.head("a")
        upload = oss.start_upload("big", metadata={"sha256": "cd"})
        parts = [oss.upload_part(upload, number, memoryview(bodies[number - 1])) for number in (2, 1)]
    with running(tmp_path) as bucket:
        oss = store(bucket)
        assert oss.head("a") == before
        assert oss.get("a") == b"content"
        assert oss.uploads("") == [upload]
        assert oss.parts(upload) == sorted(parts, key=lambda part: part.number)
        parts.append(oss.upload_part(upload, 3, memoryview(bodies[2])))
        oss.complete_upload(upload, parts, crc64=fastcrc.crc64.xz(b"".join(bodies)))
        assert oss.get("big") == b"".join(bodies)


def test_a_kill_in_the_middle_of_writes_leaves_old_or_new_objects(tmp_path: Path) -> None:
    """Four writers replace one object each, over and over, until the bucket dies under them."""
    with killed(tmp_path) as oss:
        contents = {f"o/{number}": [os.urandom(400_000) for _ in range(2)] for number in range(4)}
        enough = threading.Semaphore(0)

        def write(key: str) -> None:
            turn = 0
            try:
                while True:
                    oss.put(key, contents[key][turn % 2])
                    turn += 1
                    enough.release()
            except StepError:
                return

        writers = [threading.Thread(target=write, args=(key,)) for key in contents]
        for writer in writers:
            writer.start()
        for _ in range(40):
            enough.acquire()
    for writer in writers:
        writer.join()
    with running(tmp_path) as bucket:
        oss = store(bucket)
        for key, written in contents.items():
            body = oss.get(key)  # which compares the CRC-64
            assert body in written
            assert (tmp_path / "objects" / NAME / key).read_bytes() == body
        assert len(list((tmp_path / "blobs").iterdir())) == len(contents)
        assert list((tmp_path / "drafts").iterdir()) == []


def test_a_kill_in_the_middle_of_a_part_leaves_no_part(tmp_path: Path) -> None:
    with killed(tmp_path) as oss:
        upload = oss.start_upload("big")
        address = oss._multipart._api.sign_url("PUT", "big", 60, params={"uploadId": upload.id, "partNumber": "1"})
        parts = urlsplit(address)
        connection = HTTPConnection(parts.netloc, timeout=30)
        connection.putrequest("PUT", f"{parts.path}?{parts.query}")
        connection.putheader("Content-Length", str(2 * PART))
        connection.endheaders(os.urandom(PART))
    with running(tmp_path) as bucket:
        assert store(bucket).parts(upload) == []
    connection.close()


def test_files_that_no_row_names_are_swept(tmp_path: Path) -> None:
    with running(tmp_path) as bucket:
        store(bucket).put("f/a", b"content")
    for stray in ("blobs/stray", "drafts/stray", f"objects/{NAME}/f/stray", "uploads/stray/all"):
        (tmp_path / stray).parent.mkdir(exist_ok=True)
        (tmp_path / stray).write_bytes(b"half")
    (tmp_path / "objects" / NAME / "f" / "a").unlink()
    with running(tmp_path) as bucket:
        assert [found.key for found in store(bucket).scan("")] == ["f/a"]
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files[0].startswith("blobs/")
    assert files[1:] == ["meta/index.sqlite", f"objects/{NAME}/f/a"]
    assert (tmp_path / "objects" / NAME / "f" / "a").read_bytes() == b"content"


def test_an_object_is_a_plain_file_in_its_folder(tmp_path: Path) -> None:
    with running(tmp_path) as bucket:
        oss = store(bucket)
        oss.put("m/Qwen/config.json", b"{}")
        file = tmp_path / "objects" / NAME / "m" / "Qwen" / "config.json"
        assert file.read_bytes() == b"{}"
        oss.put("m/Qwen/config.json", b"{1}")
        assert file.read_bytes() == b"{1}"
        oss.delete(["m/Qwen/config.json"])
        assert list((tmp_path / "objects" / NAME).iterdir()) == []


@pytest.mark.parametrize("keys", [["a", "a/b"], ["a/b", "a"], ["a/", "a"], ["../x", "a"], ["a/../b", "a"]])
def test_keys_that_no_file_can_have_are_served_all_the_same(tmp_path: Path, keys: list[str]) -> None:
    folder = tmp_path / "bucket"
    with running(folder) as bucket:
        oss = store(bucket)
        for key in keys:
            oss.put(key, key.encode())
        assert [oss.get(key) for key in keys] == [key.encode() for key in keys]
        oss.delete(keys)
        assert list(oss.scan("")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["bucket"]
    assert [path for path in (folder / "objects").rglob("*") if path.is_file()] == []


def test_completing_moves_no_byte_of_parts_of_one_size(tmp_path: Path) -> None:
    with running(tmp_path) as bucket:
        oss = store(bucket)
        upload = oss.start_upload("big")
        bodies = [os.urandom(PART), os.urandom(PART), b"end"]
        parts = [oss.upload_part(upload, number, memoryview(bodies[number - 1])) for number in (2, 1, 3)]
        inode = (tmp_path / "uploads" / upload.id / "all").stat().st_ino
        oss.complete_upload(upload, parts, crc64=fastcrc.crc64.xz(b"".join(bodies)))
        assert (tmp_path / "objects" / NAME / "big").stat().st_ino == inode
        assert oss.get("big") == b"".join(bodies)


@pytest.mark.parametrize("order", [(3, 1, 2), (1, 3), (2, 3)], ids=["the short one first", "a gap", "no first"])
def test_parts_in_any_order_and_number_make_the_right_object(tmp_path: Path, order: tuple[int, ...]) -> None:
    bodies = {1: os.urandom(PART), 2: os.urandom(PART), 3: b"end"}
    with running(tmp_path) as bucket:
        oss = store(bucket)
        upload = oss.start_upload("big")
        parts = [oss.upload_part(upload, number, memoryview(bodies[number])) for number in order]
        whole = b"".join(bodies[number] for number in sorted(order))
        oss.complete_upload(upload, parts, crc64=fastcrc.crc64.xz(whole))
        assert oss.get("big") == whole


def test_parts_that_are_left_out_are_not_in_the_object(tmp_path: Path) -> None:
    with running(tmp_path) as bucket:
        oss = store(bucket)
        upload = oss.start_upload("big")
        first = oss.upload_part(upload, 1, memoryview(b"first"))
        oss.upload_part(upload, 2, memoryview(b"more"))
        oss.complete_upload(upload, [first], crc64=fastcrc.crc64.xz(b"first"))
        assert oss.get("big") == b"first"


def test_a_bucket_of_checksums_keeps_what_is_known_of_large_objects(tmp_path: Path) -> None:
    body = os.urandom(3 << 20)
    with running(tmp_path, keep="checksums") as bucket:
        oss = store(bucket)
        upload = oss.start_upload("big")
        parts: list[StoredPart] = []
        for number, start in enumerate(range(0, len(body), 1 << 20), start=1):
            parts.append(oss.upload_part(upload, number, memoryview(body)[start : start + (1 << 20)]))
        assert oss.parts(upload) == parts
        oss.complete_upload(upload, parts, crc64=fastcrc.crc64.xz(body))
        assert oss.put("small", b"manifest") is not None
        assert oss.get("small") == b"manifest"
        with pytest.raises(StepError, match="keeps checksums, not bytes"):
            oss.get("big")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 100_000


def test_two_buckets_cannot_share_a_folder(tmp_path: Path) -> None:
    with running(tmp_path), pytest.raises(FolderUnusableError, match="Next: stop the other process"):
        Bucket(tmp_path, access_key_id="x", access_key_secret="y")


def test_an_index_that_is_not_one_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "index.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(FolderUnusableError, match=r"index\.sqlite: file is not a database.*Next: "):
        Bucket(tmp_path, access_key_id="x", access_key_secret="y")
