"""download-model and upload-model: hub to scratch volume to bucket, with fakes of hub and bucket in memory."""

import errno
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.download_model import DownloadModel
from steps.errors import Blocked, TransientError
from steps.reconcile.converge import Outcome, converge
from steps.release import Release
from steps.transfer import directory, scratch
from steps.transfer.file_job import SAVE_PARTS
from steps.transfer.layout import MIB
from steps.transfer.scratch import Scratch
from steps.upload_model import UploadModel
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.memory_ports import KillAt, Killed, MemorySource, MemoryStore, content, listing_of, nothing
from tests.support.samples import service

DOCUMENT = service("transfer.partSize=1Mi", "transfer.workers=2")
SIZES = {
    "config.json": 700,
    "empty.txt": 0,
    "model-1.safetensors": 5 * MIB + 17,
    "sub/model-2.safetensors": 3 * MIB,
}
TOTAL = sum(SIZES.values())


def files() -> dict[str, bytes]:
    return {path: content(path, size) for path, size in SIZES.items()}


def release_of(source: MemorySource) -> Release:
    return Release(DOCUMENT, listing_of(source.files).digest)


def folder_of(source: MemorySource, volume: Path) -> Path:
    return Scratch.of(volume, release_of(source).model_digest).root


def download(source: MemorySource, store: MemoryStore, volume: Path, report: RecordingReport | None = None) -> Outcome:
    step = DownloadModel(release_of(source), source, store, volume, FakeClock())
    return converge(step, report or RecordingReport(), FakeClock())


def upload(source: MemorySource, store: MemoryStore, volume: Path, report: RecordingReport | None = None) -> Outcome:
    step = UploadModel(release_of(source), store, volume, FakeClock())
    return converge(step, report or RecordingReport(), FakeClock())


def assert_staged(source: MemorySource, volume: Path) -> None:
    root = folder_of(source, volume)
    found = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".slipway" not in path.parts
    }
    assert found == source.files
    assert not list(root.glob(".slipway/transfer/*")), "no draft and no checkpoint"


def assert_stored(source: MemorySource, store: MemoryStore) -> None:
    release = release_of(source)
    prefix = f"{release.prefix}/"
    found = {key.removeprefix(prefix): entry.body for key, entry in store.objects.items() if key.startswith(prefix)}
    assert json.loads(found.pop(".slipway/manifest.json"))["modelDigest"] == release.model_digest
    assert found == source.files
    assert not store.open


def test_both_steps_end_with_the_same_objects_as_one_stream(tmp_path: Path) -> None:
    source, store = MemorySource(files()), MemoryStore()
    downloaded = download(source, store, tmp_path)
    assert_staged(source, tmp_path)
    uploaded = upload(source, store, tmp_path)
    assert_stored(source, store)
    assert source.bytes_read == downloaded.outputs.bytes_moved == uploaded.outputs.bytes_moved == TOTAL


def test_the_scratch_folder_is_emptied_once_the_bucket_has_everything(tmp_path: Path) -> None:
    source, store = MemorySource(files()), MemoryStore()
    download(source, store, tmp_path)
    outcome = upload(source, store, tmp_path)
    assert outcome.changes[-1].target == str(folder_of(source, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_either_step_can_be_retried_after_the_folder_is_gone(tmp_path: Path) -> None:
    source, store = MemorySource(files()), MemoryStore()
    download(source, store, tmp_path)
    upload(source, store, tmp_path)
    source.bytes_read = store.bytes_received = 0
    assert upload(source, store, tmp_path).changes == ()
    again = download(source, store, tmp_path)
    assert (again.changes, again.outputs.bytes_moved, source.bytes_read, store.bytes_received) == ((), 0, 0, 0)


def test_a_download_again_neither_fetches_nor_reads_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, store = MemorySource(files()), MemoryStore()
    download(source, store, tmp_path)
    source.bytes_read = 0
    monkeypatch.setattr(directory.DirectorySource, "read", None)
    assert download(source, store, tmp_path).changes == ()
    assert source.bytes_read == 0


def test_a_file_that_was_touched_since_is_fetched_again(tmp_path: Path) -> None:
    source, store = MemorySource(files()), MemoryStore()
    download(source, store, tmp_path)
    damaged = folder_of(source, tmp_path) / "config.json"
    damaged.write_bytes(b"x" * SIZES["config.json"])
    os.utime(damaged, ns=(1, 1))
    source.bytes_read = 0
    download(source, store, tmp_path)
    assert_staged(source, tmp_path)
    assert source.bytes_read == SIZES["config.json"]


def flip_unseen(path: Path) -> None:
    """Flip a bit as a failing disk does: size and times stay."""
    before = path.stat()
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("path", ["model-1.safetensors", "config.json"])
def test_a_byte_that_flips_on_the_scratch_volume_is_caught_and_a_new_run_mends_it(tmp_path: Path, path: str) -> None:
    source, store = MemorySource(files()), MemoryStore()
    download(source, store, tmp_path)
    flip_unseen(folder_of(source, tmp_path) / path)
    with pytest.raises(Blocked, match="SHA-256") as refusal:
        upload(source, store, tmp_path)
    assert path in refusal.value.reason
    assert "submit a new run" in refusal.value.hint
    assert f"{release_of(source).prefix}/{path}" not in store.objects
    source.bytes_read = 0
    download(source, store, tmp_path)
    upload(source, store, tmp_path)
    assert_stored(source, store)
    assert source.bytes_read == SIZES[path]


def test_a_byte_that_flips_in_flight_is_fetched_once_more(tmp_path: Path) -> None:
    source, store = MemorySource(files(), flips=Counter({"model-1.safetensors": 1})), MemoryStore()
    download(source, store, tmp_path)
    assert_staged(source, tmp_path)


def test_what_another_revision_has_is_neither_downloaded_nor_uploaded(tmp_path: Path) -> None:
    source, store = MemorySource(files()), MemoryStore()
    download(source, store, tmp_path)
    upload(source, store, tmp_path)
    source.files["config.json"] = b"{}"
    source.bytes_read = store.bytes_received = 0
    fetched, sent = download(source, store, tmp_path), upload(source, store, tmp_path)
    assert_stored(source, store)
    assert fetched.outputs.bytes_moved == sent.outputs.bytes_moved == source.bytes_read == 2
    assert sent.outputs.files_copied == len(SIZES) - 1


def test_a_run_on_an_empty_disk_fetches_only_what_the_bucket_lacks(tmp_path: Path) -> None:
    source, store = MemorySource(files()), MemoryStore()
    download(source, store, tmp_path / "first host")

    def die_after_a_file(operation: str, key: str) -> None:
        if operation == "delete":
            store.objects.pop(key)
            raise Killed

    store.hook = die_after_a_file
    with pytest.raises(Killed):
        upload(source, store, tmp_path / "first host")
    store.hook = nothing
    stored = [key for key in store.objects if "/.slipway/" not in key]
    assert stored
    source.bytes_read = 0
    download(source, store, tmp_path / "second host")
    upload(source, store, tmp_path / "second host")
    assert_stored(source, store)
    assert source.bytes_read < TOTAL


@pytest.mark.parametrize("what", ["nothing", "another model", "half a listing", "one file less"])
def test_an_upload_without_its_files_says_what_to_do(tmp_path: Path, what: str) -> None:
    source, store = MemorySource(files()), MemoryStore()
    root = folder_of(source, tmp_path)
    if what != "nothing":
        download(source, store, tmp_path)
    if what == "another model":
        Scratch(root).write_listing(listing_of({"other": b""}))
    if what == "half a listing":
        path = Scratch(root).listing_path
        path.write_bytes(path.read_bytes()[:40])
    if what == "one file less":
        (root / "config.json").unlink()
    with pytest.raises(Blocked, match="submit a new run"):
        upload(source, store, tmp_path)
    assert not store.objects


def test_a_disk_that_is_too_small_is_refused_before_a_byte_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, store = MemorySource(files()), MemoryStore()
    monkeypatch.setattr(Scratch, "free", lambda self: 1_000_000)
    with pytest.raises(Blocked, match=r"1\.0 MB free, but 8\.4 MB more are needed"):
        download(source, store, tmp_path)
    assert source.bytes_read == 0


def test_a_disk_that_becomes_full_says_how_much_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, store = MemorySource(files()), MemoryStore()

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Blocked, match=r"no space for .*model-.*: .* to write, .* free"):
        download(source, store, tmp_path)


def test_a_stopped_download_goes_on_inside_a_file(tmp_path: Path) -> None:
    big = {"model.safetensors": content("big", 40 * MIB)}
    reads: list[str] = []

    def give_up(operation: str, key: str) -> None:
        reads.append(key)
        if operation == "read" and len(reads) > 30:
            raise TransientError("no answer")

    first, second, store = MemorySource(big, hook=give_up), MemorySource(big), MemoryStore()
    with pytest.raises(TransientError):
        download(first, store, tmp_path)
    report = RecordingReport()
    download(second, store, tmp_path, report)
    assert_staged(second, tmp_path)
    assert first.bytes_read + second.bytes_read <= 40 * MIB + (SAVE_PARTS + 4) * MIB
    assert any("began in an earlier run" in line for line in report.of("changed"))


def test_a_checkpoint_whose_draft_is_damaged_starts_the_file_over(tmp_path: Path) -> None:
    big = {"model.safetensors": content("big", 20 * MIB)}
    reads: list[str] = []

    def give_up(operation: str, key: str) -> None:
        reads.append(key)
        if operation == "read" and len(reads) > 15:
            raise TransientError("no answer")

    source, store = MemorySource(big, hook=give_up), MemoryStore()
    with pytest.raises(TransientError):
        download(source, store, tmp_path)
    folder, file = Scratch(folder_of(source, tmp_path)), listing_of(big).files[0]
    assert folder.resume_record(file).exists()
    os.truncate(folder.draft(file), MIB)
    source.hook = nothing
    download(source, store, tmp_path)
    assert_staged(source, tmp_path)


@settings(max_examples=20)
@given(kills=st.lists(st.integers(0, 60), min_size=1, max_size=3))
def test_a_download_killed_at_any_file_operation_goes_on(kills: list[int]) -> None:
    source, store = MemorySource(files()), MemoryStore()
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        volume = Path(name)
        for operations in kills:
            with suppress(Killed), dying_after(operations, patch):
                download(source, store, volume)
            for file in listing_of(source.files).files:
                folder = Scratch(folder_of(source, volume))
                if folder.is_verified(file):
                    assert folder.path(file).read_bytes() == source.files[file.path]
        download(source, store, volume)
        assert_staged(source, volume)


@contextmanager
def dying_after(operations: int, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kill before one of the operations on the file system, and before each that follows."""
    kill, real = KillAt(operations), scratch.explained

    @contextmanager
    def dying(path: Path, needed: int) -> Iterator[None]:
        kill("file", str(path))
        with real(path, needed):
            yield

    with patch.context() as inner:
        inner.setattr(scratch, "explained", dying)
        inner.setattr(directory, "explained", dying)
        yield
