"""A process that dies at any moment: another one, on another host, resumes from the stored bytes."""

import itertools
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.errors import Interrupted, TransientError
from steps.mirror_model import MirrorModel
from steps.ports.oss import ModelStore
from steps.reconcile.converge import converge
from steps.release import Release
from steps.transfer import bucket, hashing
from steps.transfer.file_job import SAVE_PARTS
from steps.transfer.layout import MIB
from steps.transfer.resume_point import ResumeRecord
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.memory_ports import (
    KillAt,
    Killed,
    MemorySource,
    MemoryStore,
    content,
    listing_of,
    nothing,
    transfer_threads,
)
from tests.support.samples import service

WORKERS = 2
DOCUMENT = service("transfer.mode=streamed", "transfer.partSize=1Mi", f"transfer.workers={WORKERS}")
FILES = {
    "config.json": content("config.json", 700),
    "model-1.safetensors": content("model-1.safetensors", 9 * MIB + 17),
    "model-2.safetensors": content("model-2.safetensors", 3 * MIB),
}
RELEASE = Release(DOCUMENT, listing_of(FILES).digest)


def mirror(source: MemorySource, store: ModelStore, release: Release = RELEASE) -> RecordingReport:
    report = RecordingReport()
    converge(MirrorModel(release, source, store, FakeClock()), report, FakeClock())
    return report


def assert_whole(store: MemoryStore, files: dict[str, bytes], release: Release = RELEASE) -> None:
    found = {key.removeprefix(f"{release.prefix}/"): entry.body for key, entry in store.objects.items()}
    assert json.loads(found.pop(".slipway/manifest.json"))["modelDigest"] == release.model_digest
    assert found == files
    assert not store.open


def trusted_at(store: MemoryStore) -> Iterator[str]:
    """Whole paths for a next run: right metadata, and no state against them."""
    for file in listing_of(FILES).files:
        entry = store.objects.get(bucket.object_key(RELEASE, file.path))
        if entry and bucket.state_key(RELEASE, file.path) not in store.objects:
            yield file.path


@settings(max_examples=25)
@given(kills=st.lists(st.integers(0, 45), min_size=1, max_size=4))
def test_killed_anywhere_the_next_process_goes_on_and_leaves_nothing_behind(kills: list[int]) -> None:
    store = MemoryStore()
    for operations in kills:
        # Source and bucket die together, as for a process; each run resumes from the bucket alone.
        hook = KillAt(operations)
        store.hook = hook
        with suppress(Killed):
            mirror(MemorySource(FILES, hook=hook), store)
        for path in trusted_at(store):
            assert store.objects[bucket.object_key(RELEASE, path)].body == FILES[path]
    store.hook = nothing
    mirror(MemorySource(FILES), store)
    assert_whole(store, FILES)


def test_a_killed_transfer_goes_on_inside_a_file_and_moves_at_most_what_was_in_flight() -> None:
    big = {"model.safetensors": content("big", 40 * MIB)}
    release = Release(DOCUMENT, listing_of(big).digest)
    store = MemoryStore()
    first, parts = MemorySource(big), []

    def die_at_part_30(operation: str, key: str) -> None:
        parts.append(operation == "part")
        if sum(parts) >= 30:
            raise Killed

    store.hook = die_at_part_30
    with pytest.raises(Killed):
        mirror(first, store, release)
    store.hook = nothing
    second = MemorySource(big)
    report = mirror(second, store, release)
    assert_whole(store, big, release)
    in_flight = (SAVE_PARTS + 2 * WORKERS) * MIB
    assert first.bytes_read + second.bytes_read <= 40 * MIB + in_flight
    assert any("arrived in an earlier run" in line for line in report.of("changed"))


def test_no_answer_saves_how_far_every_file_is() -> None:
    # One worker sends the parts in order, so it is known which of them had been stored.
    alone = Release(service("transfer.partSize=1Mi", "transfer.workers=1"), RELEASE.model_digest)
    store, reads = MemoryStore(), []

    def give_up(operation: str, key: str) -> None:
        reads.append(operation == "read")
        if sum(reads) == 7:
            raise TransientError("no answer")

    first, second = MemorySource(FILES, hook=give_up), MemorySource(FILES)
    with pytest.raises(TransientError):
        mirror(first, store, alone)
    mirror(second, store, alone)
    assert_whole(store, FILES)
    assert first.bytes_read + second.bytes_read == sum(map(len, FILES.values()))


def test_without_a_state_of_the_sum_a_file_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    store.hook = KillAt(25)
    with pytest.raises(Killed):
        mirror(MemorySource(FILES), store)
    store.hook = nothing
    monkeypatch.setattr(hashing, "_library", lambda: None)
    mirror(MemorySource(FILES), store)
    assert_whole(store, FILES)


def unfinished() -> tuple[MemoryStore, str]:
    """A bucket that a killed run has left, and the key of the state of its large file."""
    store, parts = MemoryStore(), []

    def die(operation: str, key: str) -> None:
        parts.append(operation == "part" and key.endswith("model-1.safetensors"))
        if sum(parts) > 9:
            raise Killed

    store.hook = die
    # One worker sends the parts in order, so that a checkpoint has been saved by then.
    alone = Release(service("transfer.partSize=1Mi", "transfer.workers=1"), RELEASE.model_digest)
    with pytest.raises(Killed):
        mirror(MemorySource(FILES), store, alone)
    store.hook = nothing
    key = bucket.state_key(RELEASE, "model-1.safetensors")
    assert json.loads(store.objects[key].body)["parts"] >= 1
    return store, key


def test_a_state_whose_upload_is_gone_starts_over() -> None:
    store, _ = unfinished()
    store.open.clear()
    mirror(MemorySource(FILES), store)
    assert_whole(store, FILES)


def test_a_state_that_was_cut_off_is_thrown_away_with_its_upload() -> None:
    store, key = unfinished()
    store.objects[key].body = store.objects[key].body[:50]
    report = mirror(MemorySource(FILES), store)
    assert_whole(store, FILES)
    assert any("uploadId=" in line for line in report.of("changed"))


def test_a_part_that_somebody_replaced_is_noticed_before_the_file_is_made_whole() -> None:
    store, _ = unfinished()
    upload = next(found for found in store.open.values() if found.key.endswith("model-1.safetensors"))
    upload.parts[1] = bytes(MIB)
    made: list[bool] = []

    def look(operation: str, key: str) -> None:
        if operation == "answer complete":
            made.append(store.objects[key].body == FILES[key.rpartition("/")[2]])

    store.hook = look
    mirror(MemorySource(FILES), store)
    assert_whole(store, FILES)
    assert all(made)


def test_an_object_that_its_own_upload_does_not_vouch_for_is_moved_again() -> None:
    store = MemoryStore()
    small = next(file for file in listing_of(FILES).files if file.path == "config.json")
    state = ResumeRecord(
        path=small.path, sha256=small.sha256, size=small.size, part_size=MIB, parts=1, sha256_state="", crc64="1"
    )
    store.put(bucket.object_key(RELEASE, small.path), bytes(small.size), metadata={"sha256": small.sha256})
    store.put(bucket.state_key(RELEASE, small.path), state.encode())
    mirror(MemorySource(FILES), store)
    assert_whole(store, FILES)


@pytest.mark.parametrize("field", ["sha256_state", "crc64"])
def test_a_state_that_lies_never_makes_a_wrong_file_whole(field: str) -> None:
    store, key = unfinished()
    state = json.loads(store.objects[key].body)
    state[field] = "0" * 64 if field == "sha256_state" else "1"
    store.objects[key].body = json.dumps(state).encode()
    mirror(MemorySource(FILES), store)
    assert_whole(store, FILES)


def test_another_part_size_in_the_document_starts_the_file_over() -> None:
    store, _ = unfinished()
    other = service("transfer.mode=streamed", "transfer.partSize=2Mi", "transfer.workers=2")
    release = Release(other, RELEASE.model_digest)
    mirror(MemorySource(FILES), store, release)
    assert_whole(store, FILES)


def test_parts_so_large_that_the_file_is_one_leave_no_state() -> None:
    store, _ = unfinished()
    other = service("transfer.mode=streamed", "transfer.partSize=64Mi", "transfer.workers=2")
    mirror(MemorySource(FILES), store, Release(other, RELEASE.model_digest))
    assert_whole(store, FILES)


def test_an_upload_that_nobody_remembers_is_aborted() -> None:
    store = MemoryStore()
    store.start_upload(bucket.object_key(RELEASE, "model-1.safetensors"))
    foreign = store.start_upload("models/another/model/0123456789abcdef/file")
    mirror(MemorySource(FILES), store)
    assert [found.key for found in store.open.values()] == [foreign.key]


def test_a_lost_answer_to_complete_is_success() -> None:
    store, lost = MemoryStore(), iter([True])

    def lose(operation: str, key: str) -> None:
        if operation == "answer complete" and next(lost, False):
            raise TransientError("the connection ended before the answer")

    store.hook = lose
    source = MemorySource(FILES)
    mirror(source, store)
    assert_whole(store, FILES)
    assert source.bytes_read == sum(map(len, FILES.values()))


@pytest.mark.parametrize("answer", ["answer complete", "complete"])
def test_killed_around_complete_nothing_is_moved_again(answer: str) -> None:
    store = MemoryStore()

    def die(operation: str, key: str) -> None:
        if operation == answer and key.endswith("model-1.safetensors"):
            store.hook = KillAt(0)
            raise Killed

    store.hook = die
    with pytest.raises(Killed):
        mirror(MemorySource({**FILES}), store)
    store.hook = nothing
    second = MemorySource(FILES)
    # The other files may have been on their way; the large one was not.
    reads: list[str] = []
    second.hook = lambda operation, key: reads.append(key)
    mirror(second, store)
    assert "model-1.safetensors" not in reads
    assert_whole(store, FILES)


@pytest.fixture
def sigterm_is_an_interruption() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted("stopped by SIGTERM")

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("sigterm_is_an_interruption")
def test_sigterm_stops_the_threads_and_saves_how_far_the_files_are() -> None:
    store, reads = MemoryStore(), itertools.count(1)
    all_at_work = threading.Barrier(WORKERS, timeout=60)

    def terminate(operation: str, key: str) -> None:
        if operation != "read":
            return
        read = next(reads)
        if read <= WORKERS:
            all_at_work.wait()
        if read == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    first = MemorySource(FILES, hook=terminate)
    with pytest.raises(Interrupted):
        mirror(first, store)
    assert not transfer_threads()
    second = MemorySource(FILES)
    mirror(second, store)
    assert_whole(store, FILES)
    assert second.bytes_read <= sum(map(len, FILES.values()))


@pytest.mark.usefixtures("sigterm_is_an_interruption")
def test_a_thread_that_hangs_in_a_request_does_not_hold_up_the_end() -> None:
    first, released = iter([True]), threading.Event()

    def hang(operation: str, key: str) -> None:
        if key == "model-2.safetensors" and next(first, False):
            os.kill(os.getpid(), signal.SIGTERM)
            released.wait(60)

    clock = _Hurried()
    step = MirrorModel(RELEASE, MemorySource(FILES, hook=hang), MemoryStore(), clock)
    with pytest.raises(Interrupted):
        converge(step, RecordingReport(), clock)
    assert not released.is_set()
    released.set()
    for thread in transfer_threads():
        thread.join(60)


class _Hurried(FakeClock):
    """Seconds pass with every call, so that no test waits for the grace of real threads."""

    def now(self) -> float:
        self.seconds += 1.0
        return self.seconds
