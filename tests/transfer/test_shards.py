"""Several processes share one transfer: each has its own files, any may die alone, and the manifest comes last."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.__main__ import main
from steps.errors import DocumentError, Exit
from steps.mirror_model import MirrorModel
from steps.model import Listing, ModelFile
from steps.reconcile.converge import Outcome, converge
from steps.release import Release
from steps.transfer.bucket import object_key, state_key
from steps.transfer.layout import MIB
from steps.transfer.shards import Shard, split
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.memory_ports import Killed, MemorySource, MemoryStore, content, listing_of, nothing
from tests.support.samples import DIGEST, SERVICES, service

COUNT = 3
DOCUMENT = service("transfer.mode=streamed", f"transfer.shards={COUNT}", "transfer.partSize=1Mi", "transfer.workers=1")
SIZES = {"config.json": 700, "empty.txt": 0, **{f"model-{n}.safetensors": n * 3 * MIB + n for n in range(1, 6)}}
FILES = {path: content(path, size) for path, size in SIZES.items()}
LISTING = listing_of(FILES)
RELEASE = Release(DOCUMENT, LISTING.digest)
SHARDS = [Shard(number, COUNT) for number in range(COUNT)]


def mirror(store: MemoryStore, shard: Shard | None, source: MemorySource | None = None) -> Outcome:
    step = MirrorModel(RELEASE, source or MemorySource(FILES), store, FakeClock(), shard=shard)
    return converge(step, RecordingReport(), FakeClock())


def paths(store: MemoryStore) -> set[str]:
    return {key.removeprefix(f"{RELEASE.prefix}/") for key in store.objects}


def listing(sizes: list[int]) -> Listing:
    return Listing.of(ModelFile(f"{number:04}", size, f"{number:064x}") for number, size in enumerate(sizes))


@given(sizes=st.lists(st.integers(0, 10**12), max_size=40), count=st.integers(1, 16))
def test_every_file_is_in_one_shard_and_no_shard_is_a_third_above_the_best(sizes: list[int], count: int) -> None:
    whole = listing(sizes)
    shares = split(whole, count)
    assert sorted(file for share in shares for file in share.files) == sorted(whole.files)
    # No split can be better than this, so a third above it is allowed by Graham's bound and more.
    by_size = sorted(sizes, reverse=True)
    two_together = sum(by_size[count - 1 : count + 1]) if len(sizes) > count else 0
    best = max(max(sizes, default=0), -(-sum(sizes) // count), two_together)
    assert max(share.size for share in shares) <= best * 3 // 2


def test_the_order_of_a_listing_does_not_change_the_split() -> None:
    backwards = Listing(tuple(reversed(LISTING.files)))
    assert split(backwards, COUNT) == split(LISTING, COUNT)


def test_a_shard_moves_its_own_files_alone_and_writes_no_manifest() -> None:
    store = MemoryStore()
    outcome = mirror(store, SHARDS[1])
    mine = SHARDS[1].share(LISTING)
    assert paths(store) == {file.path for file in mine.files}
    assert (outcome.outputs.files_total, outcome.outputs.bytes_moved) == (len(mine.files), mine.size)


def test_the_task_behind_the_shards_moves_nothing_and_writes_the_manifest() -> None:
    store, reads = MemoryStore(), []
    for shard in SHARDS:
        mirror(store, shard)
    source = MemorySource(FILES, hook=lambda operation, key: reads.append(operation))
    outcome = mirror(store, None, source)
    assert "read" not in reads
    assert len(outcome.changes) == 1
    assert paths(store) == {*FILES, ".slipway/manifest.json"}
    assert not store.open


def test_had_a_shard_been_lost_the_task_behind_it_would_move_its_files() -> None:
    store = MemoryStore()
    mirror(store, SHARDS[0])
    outcome = mirror(store, None)
    assert outcome.outputs.bytes_moved == LISTING.size - SHARDS[0].share(LISTING).size
    assert {path: store.objects[object_key(RELEASE, path)].body for path in FILES} == FILES


def test_shards_at_the_same_time_leave_the_uploads_of_each_other_alone() -> None:
    """Each shard stops inside a file until all others have observed and cleaned up."""
    store, together, ended = MemoryStore(), threading.Barrier(COUNT), []

    def hold(shard: Shard) -> MemorySource:
        parts: list[str] = []

        def hook(operation: str, key: str) -> None:
            parts.append(operation)
            if parts.count("read") == 3:  # an upload and its state are there by now
                parts.append("read")
                together.wait(60)

        return MemorySource(FILES, hook=hook)

    def run(shard: Shard) -> None:
        outcome = mirror(store, shard, hold(shard))
        # A second observation during the transfers of others: no leftovers to remove.
        ended.append((outcome.outputs.bytes_moved == shard.share(LISTING).size, mirror(store, shard).changes))

    threads = [threading.Thread(target=run, args=(shard,)) for shard in SHARDS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ended == [(True, ())] * COUNT
    mirror(store, None)
    assert paths(store) == {*FILES, ".slipway/manifest.json"}
    assert not store.open


def test_what_a_dead_shard_left_is_swept_by_its_next_attempt_and_by_nobody_beside_it() -> None:
    store, parts = MemoryStore(), []
    dead = next(shard for shard in SHARDS if shard.share(LISTING).size >= 9 * MIB)

    def die(operation: str, key: str) -> None:
        parts.append(operation)
        if parts.count("part") > 9:
            raise Killed

    store.hook = die
    with pytest.raises(Killed):
        mirror(store, dead)
    store.hook = nothing
    own = dead.share(LISTING).files[-1].path
    orphan = store.start_upload(object_key(RELEASE, own))
    left = set(store.open)
    states = {state_key(RELEASE, path) for path in FILES} & set(store.objects)
    for shard in SHARDS:
        if shard != dead:
            mirror(store, shard)
    assert set(store.open) == left
    assert states <= set(store.objects)
    mirror(store, dead)
    assert orphan.id not in store.open
    assert not store.open
    assert mirror(store, None).outputs.bytes_moved == 0


def test_a_stored_revision_costs_each_shard_one_read() -> None:
    store = MemoryStore()
    mirror(store, None)
    store.requests.clear()
    for shard in SHARDS:
        assert mirror(store, shard).changes == ()
    assert store.requests == {"get": COUNT}


def test_more_shards_than_files_leave_some_without_work() -> None:
    store = MemoryStore()
    step = MirrorModel(RELEASE, MemorySource(FILES), store, FakeClock(), shard=Shard(15, 16))
    assert converge(step, RecordingReport(), FakeClock()).changes == ()
    assert not store.objects


def test_staged_shards_are_refused_with_the_reason() -> None:
    with pytest.raises(DocumentError, match=r"transfer.shards .*: found 2, allowed is: 1 with transfer.mode: staged"):
        service("transfer.mode=staged", "transfer.shards=2")


def test_a_shard_that_the_document_does_not_know_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "dummy-id")
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "dummy-secret")
    document = f"--document={SERVICES / 'demo.yaml'}"
    shards = ("--set=transfer.mode=streamed", "--set=transfer.shards=2")
    assert main(["mirror-model", document, *shards, f"--model-digest={DIGEST}", "--shard=2"]) == Exit.BLOCKED
    assert "transfer.shards is 2: allowed are 0 to 1, and all" in capsys.readouterr().out
