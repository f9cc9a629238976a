"""mirror-model against a hub and a bucket in memory: every promise of the transfer, without sockets."""

import json
import threading
from collections import Counter

import pytest

from steps.errors import Blocked, TransientError
from steps.mirror_model import MirrorModel
from steps.reconcile.converge import Outcome, Past, converge
from steps.reconcile.plan import Change
from steps.reconcile.report import Progress
from steps.release import Release
from steps.transfer import mover
from steps.transfer.bucket import state_key
from steps.transfer.layout import MIB
from steps.transfer.plans import Moves
from steps.transfer.resume_point import ResumeRecord
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.memory_ports import MemorySource, MemoryStore, content, listing_of, transfer_threads
from tests.support.samples import service

SIZES = {
    "config.json": 700,
    "empty.txt": 0,
    "model-1.safetensors": 5 * MIB + 17,
    "model-2.safetensors": 3 * MIB,
    "sub/model-3.safetensors": MIB,
}
DOCUMENT = service("transfer.mode=streamed", "transfer.partSize=1Mi", "transfer.workers=4")


def files() -> dict[str, bytes]:
    return {path: content(path, size) for path, size in SIZES.items()}


def release_of(source: MemorySource) -> Release:
    return Release(DOCUMENT, listing_of(source.files).digest)


def mirror(
    source: MemorySource, store: MemoryStore, release: Release | None = None, report: RecordingReport | None = None
) -> Outcome:
    step = MirrorModel(release or release_of(source), source, store, FakeClock())
    return converge(step, report or RecordingReport(), FakeClock())


def assert_whole(store: MemoryStore, release: Release, expected: dict[str, bytes]) -> None:
    prefix = f"{release.prefix}/"
    found = {key.removeprefix(prefix): entry.body for key, entry in store.objects.items() if key.startswith(prefix)}
    manifest = json.loads(found.pop(".slipway/manifest.json"))
    assert found == expected, "every file, and no state object"
    assert not store.open, "no orphan upload"
    assert manifest["modelDigest"] == release.model_digest


def test_the_bucket_holds_the_same_files_and_a_manifest() -> None:
    source, store = MemorySource(files()), MemoryStore()
    outcome = mirror(source, store)
    release = release_of(source)
    assert_whole(store, release, source.files)
    assert outcome.outputs.bytes_moved == sum(SIZES.values()) == outcome.outputs.bytes_total
    assert outcome.outputs.files_moved == len(SIZES)
    assert outcome.outputs.prefix == f"oss://llm-models/{release.prefix}"
    manifest = json.loads(store.objects[release.manifest_key].body)
    assert manifest["crc64"]["model-1.safetensors"] == str(store.head(f"{release.prefix}/model-1.safetensors").crc64)  # type: ignore[union-attr]
    assert (manifest["modelId"], manifest["requestedRevision"]) == ("Qwen/Qwen3-32B", "master")


def test_every_byte_is_read_once() -> None:
    source, store = MemorySource(files()), MemoryStore()
    mirror(source, store)
    assert source.bytes_read == sum(SIZES.values())


def test_the_manifest_is_written_after_everything_else() -> None:
    source = MemorySource(files())
    order: list[tuple[str, str]] = []
    store = MemoryStore(hook=lambda operation, key: order.append((operation, key)))
    mirror(source, store)
    release = release_of(source)
    writes = [
        key for operation, key in order if operation in {"put", "part", "complete", "delete", "start", "copy", "abort"}
    ]
    assert writes[-1] == release.manifest_key


def test_nothing_to_do_costs_one_read_of_the_manifest() -> None:
    source, store = MemorySource(files()), MemoryStore()
    mirror(source, store)
    source.bytes_read = source.listings = 0
    store.requests.clear()
    report = RecordingReport()
    outcome = mirror(source, store, report=report)
    assert store.requests == Counter(get=1)
    assert source.listings == 0
    assert (outcome.changes, outcome.outputs.bytes_moved, outcome.outputs.files_total) == ((), 0, len(SIZES))
    assert "5 files" in report.of("ok")[0]


def test_only_what_changed_is_moved_and_the_rest_is_copied_inside_the_bucket() -> None:
    source, store = MemorySource(files()), MemoryStore()
    old = release_of(source)
    mirror(source, store)
    source.files["config.json"] = b"{}"
    source.bytes_read = store.bytes_received = 0
    report = RecordingReport()
    outcome = mirror(source, store, report=report)
    new = release_of(source)
    assert_whole(store, new, source.files)
    assert source.bytes_read == len(b"{}") == outcome.outputs.bytes_moved
    assert outcome.outputs.files_copied == len(SIZES) - 1
    assert f"same bytes as revision {old.prefix.rpartition('/')[2]}" in str(outcome.changes)
    assert_whole(store, old, files())


def test_the_plan_says_how_much_of_an_update_moves() -> None:
    source, store = MemorySource(files()), MemoryStore()
    mirror(source, store)
    source.files["config.json"] = b"{}"
    step = MirrorModel(release_of(source), source, store)
    kept = step.plan(step.observe(Past())).ok
    assert kept == ("1 of 5 files changed, 2 B of 9.4 MB to move; 4 copied inside the bucket",)


def test_a_damaged_revision_is_never_copied_from() -> None:
    source, store = MemorySource(files()), MemoryStore()
    old = release_of(source)
    mirror(source, store)
    damaged = store.objects[f"{old.prefix}/model-2.safetensors"]
    damaged.body = bytes([damaged.body[0] ^ 1]) + damaged.body[1:]
    source.files["config.json"] = b"{}"
    with pytest.raises(Blocked, match=r"model-2\.safetensors differs from its manifest"):
        mirror(source, store)
    assert f"{release_of(source).prefix}/model-2.safetensors" not in store.objects


@pytest.mark.parametrize("path", ["model-1.safetensors", "config.json"])
def test_a_byte_that_flips_in_flight_is_caught_and_the_file_fetched_once_more(path: str) -> None:
    source, store = MemorySource(files(), flips=Counter({path: 1})), MemoryStore()
    mirror(source, store)
    assert_whole(store, release_of(source), source.files)
    assert source.bytes_read == sum(SIZES.values()) + SIZES[path]


@pytest.mark.parametrize("path", ["model-1.safetensors", "config.json"])
def test_a_file_that_is_wrong_twice_stops_the_run_and_leaves_nothing_to_trust(path: str) -> None:
    source, store = MemorySource(files(), flips=Counter({path: 100})), MemoryStore()
    release = release_of(source)
    with pytest.raises(Blocked) as refusal:
        mirror(source, store)
    wanted = next(file for file in listing_of(source.files).files if file.path == path)
    assert path in refusal.value.reason
    assert wanted.sha256 in refusal.value.reason
    assert f"{release.prefix}/{path}" not in store.objects
    assert release.manifest_key not in store.objects
    assert not [found for found in store.open.values() if found.key.endswith(path)]


@pytest.mark.parametrize("path", ["model-1.safetensors", "config.json"])
def test_a_byte_that_flips_at_the_bucket_is_caught(path: str) -> None:
    source = MemorySource(files())
    lies = iter([True])

    def flip_once(key: str, body: bytes) -> bytes:
        lie = key.endswith(path) and bool(body) and next(lies, False)
        return bytes([body[0] ^ 1]) + body[1:] if lie else body

    store = MemoryStore(deceive=flip_once)
    mirror(source, store)
    assert_whole(store, release_of(source), source.files)


def test_a_bucket_that_always_keeps_other_bytes_is_refused() -> None:
    source = MemorySource(files())
    store = MemoryStore(
        deceive=lambda key, body: b"\0" + body[1:] if key.endswith("model-2.safetensors") and body else body
    )
    with pytest.raises(Blocked, match=r"model-2\.safetensors"):
        mirror(source, store)
    assert f"{release_of(source).prefix}/model-2.safetensors" not in store.objects


@pytest.mark.parametrize("wrong", [b"short", content("other", 3 * MIB)], ids=["another size", "the same size"])
def test_an_object_that_nobody_proved_is_replaced(wrong: bytes) -> None:
    source, store = MemorySource(files()), MemoryStore()
    release = release_of(source)
    store.put(f"{release.prefix}/model-2.safetensors", wrong)
    report = RecordingReport()
    mirror(source, store, report=report)
    assert_whole(store, release, source.files)
    assert any("update" in line and "differs" in line for line in report.of("changed"))


def test_a_copy_takes_the_place_of_an_object_that_its_upload_does_not_vouch_for() -> None:
    source, store = MemorySource(files()), MemoryStore()
    mirror(source, store)
    source.files["config.json"] = b"{}"
    release = release_of(source)
    same = next(file for file in listing_of(source.files).files if file.path == "model-2.safetensors")
    state = ResumeRecord(
        path=same.path, sha256=same.sha256, size=same.size, part_size=MIB, parts=3, sha256_state="", crc64="1"
    )
    store.put(f"{release.prefix}/{same.path}", bytes(same.size), metadata={"sha256": same.sha256})
    store.put(state_key(release, same.path), state.encode())
    mirror(source, store)
    assert_whole(store, release, source.files)


def test_a_file_that_is_not_of_the_model_is_not_hidden() -> None:
    source, store = MemorySource(files()), MemoryStore()
    store.put(f"{release_of(source).prefix}/model-9.safetensors", b"alien")
    with pytest.raises(Blocked, match=r"model-9\.safetensors is no file of"):
        mirror(source, store)
    assert release_of(source).manifest_key not in store.objects


def test_a_hub_that_moved_before_the_run_is_refused_with_both_digests() -> None:
    source, store = MemorySource(files()), MemoryStore()
    pinned = release_of(source)
    source.files["config.json"] = b"{}"
    with pytest.raises(Blocked) as refusal:
        mirror(source, store, pinned)
    assert pinned.model_digest in refusal.value.reason
    assert listing_of(source.files).digest in refusal.value.reason
    assert "submit a new run" in refusal.value.reason
    assert not store.objects


def test_a_hub_that_moved_after_the_revision_was_stored_changes_nothing() -> None:
    source, store = MemorySource(files()), MemoryStore()
    pinned = release_of(source)
    mirror(source, store, pinned)
    source.files["config.json"] = b"{}"
    assert mirror(source, store, pinned).changes == ()


def test_a_hub_that_moves_during_the_run_is_never_mixed_in() -> None:
    source, store = MemorySource(files()), MemoryStore()
    pinned = release_of(source)

    def move_on(operation: str, key: str) -> None:
        if operation == "put" and key.endswith("config.json"):
            source.listed = listing_of({"other": b""})

    store.hook = move_on
    mirror(source, store, pinned)
    assert_whole(store, pinned, source.files)


def test_another_run_that_wrote_the_same_manifest_first_is_fine() -> None:
    source, store = MemorySource(files()), MemoryStore()
    release = release_of(source)
    rival = MemoryStore()
    mirror(MemorySource(files()), rival)

    def be_first(operation: str, key: str) -> None:
        if operation == "put" and key == release.manifest_key:
            store.objects[key] = rival.objects[key]

    store.hook = be_first
    mirror(source, store)
    assert_whole(store, release, source.files)


def test_a_manifest_with_other_checksums_is_never_overwritten() -> None:
    source, store = MemorySource(files()), MemoryStore()
    release = release_of(source)
    rival = MemoryStore()
    mirror(MemorySource(files()), rival)
    entry = rival.objects[release.manifest_key]
    changed = json.loads(entry.body)
    changed["crc64"]["config.json"] = "1"
    entry.body = json.dumps(changed).encode()

    def be_first(operation: str, key: str) -> None:
        if operation == "put" and key == release.manifest_key:
            store.objects[key] = entry

    store.hook = be_first
    with pytest.raises(Blocked, match="another run with other checksums"):
        mirror(source, store)
    assert store.objects[release.manifest_key] is entry


@pytest.mark.parametrize("operation", ["read", "part", "put", "start", "complete", "head", "scan", "uploads"])
def test_no_answer_keeps_what_was_done_for_the_next_run(operation: str) -> None:
    source, store = MemorySource(files()), MemoryStore()
    answers = iter([True, False])  # and from then on, all is well

    def silent_the_second_time(asked: str, key: str) -> None:
        if asked == operation and not next(answers, True):
            raise TransientError(f"no answer to {asked}")

    store.hook = source.hook = silent_the_second_time
    try:
        mirror(source, store)
    except TransientError:
        assert release_of(source).manifest_key not in store.objects
        mirror(source, store)
    assert next(answers, None) is None, "the second answer was asked for"
    assert_whole(store, release_of(source), source.files)


class _SlowPrinter(RecordingReport):
    """Reports a change only after some polls of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = threading.Semaphore(0)

    def progress(self, progress: Progress) -> None:
        super().progress(progress)
        self.looks.release()

    def changed(self, change: Change) -> None:
        if isinstance(change.payload, Moves):
            for _ in range(8):
                self.looks.acquire(timeout=30)
        super().changed(change)


def test_a_transfer_does_not_end_before_its_last_change_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mover, "POLL", 0.01)
    monkeypatch.setattr(mover, "GRACE", 0.0)
    source, store, report = MemorySource(files()), MemoryStore(), _SlowPrinter()
    outcome = mirror(source, store, report=report)
    told = list(report.of("changed"))
    report.looks.release(1000)
    assert sorted(told) == sorted(map(str, outcome.changes))


def test_no_thread_stays() -> None:
    source, store = MemorySource(files(), flips=Counter({"config.json": 2})), MemoryStore()
    with pytest.raises(Blocked):
        mirror(source, store)
    mirror(source, store)
    assert not transfer_threads()
