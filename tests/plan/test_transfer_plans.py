"""What the three steps of a transfer decide, from what they saw: no hub, no bucket, no disk."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from steps import download_model, mirror_model, upload_model
from steps.model import Listing, ModelFile
from steps.ports.oss import StoredObject, Upload
from steps.reconcile.plan import Plan
from steps.release import Release
from steps.transfer import manifest
from steps.transfer.bucket import object_key, state_key, why_unverified
from steps.transfer.inventory import Inventory, Unfinished
from steps.transfer.layout import MIB, MOST_PARTS, layout
from steps.transfer.manifest import CorruptManifest, ManifestFile
from steps.transfer.plans import MOST_LINES, Abort, Copies, Forget, Moves, Publish
from steps.transfer.resume_point import ResumeRecord
from steps.transfer.scratch import Scratch
from steps.transfer.staging import RemoveFolder, Staged, WriteListing
from tests.support.samples import service

DOCUMENT = service()


def file(path: str, size: int = 1000, sha: str = "") -> ModelFile:
    return ModelFile(path, size, (sha or path[0]).encode().hex().ljust(64, "0")[:64])


A, B = file("a.safetensors"), file("b.json", 10)
LISTING = Listing.of([A, B])
RELEASE = Release(DOCUMENT, LISTING.digest)
SCRATCH = Scratch(Path("/scratch/0123456789abcdef"))
UPLOAD = Upload(object_key(RELEASE, A.path), "upload-1")
MANIFEST = manifest.compose(RELEASE, [ManifestFile(f.path, f.size, f.sha256, 1) for f in LISTING.files], 0.0)


def stored(item: ModelFile, crc64: int | None = 7) -> StoredObject:
    return StoredObject(object_key(RELEASE, item.path), item.size, "etag", crc64, {"sha256": item.sha256})


def elsewhere(item: ModelFile) -> StoredObject:
    return StoredObject(f"models/Qwen/Qwen3-32B/0ld0ld0ld0ld0ld0/{item.path}", item.size, "etag", 7)


def mirrored(**seen: Any) -> Plan:
    return mirror_model.plan(RELEASE, mirror_model.Facts(None, LISTING, Inventory(**seen)))


BOTH = {A.path: stored(A), B.path: stored(B)}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, [("create", "a.safetensors", "absent at OSS, 1.0 kB"), ("create", "b.json", "absent at OSS, 10 B")]),
        ({"stored": {A.path: stored(A)}}, [("create", "b.json", "absent at OSS, 10 B")]),
        (
            {"stored": {A.path: stored(A)}, "unverified": {B.path: "size 9, expected 10"}},
            [("update", "b.json", "differs: size 9, expected 10, 10 B")],
        ),
        (
            {"stored": {B.path: stored(B)}, "unfinished": {A.path: Unfinished(UPLOAD, "state", 600)}},
            [("create", "a.safetensors", "600 B arrived in an earlier run, 1.0 kB")],
        ),
        (
            {"stored": {B.path: stored(B)}, "elsewhere": {A.sha256: elsewhere(A)}},
            [("create", "a.safetensors", "same bytes as revision 0ld0ld0ld0ld0ld0")],
        ),
        ({"stored": BOTH}, [("create", ".slipway/manifest.json", "all 2 files are there and verified")]),
    ],
    ids=["nothing there", "one there", "a wrong object", "half a file", "in another revision", "all there"],
)
def test_what_happens_to_each_file(seen: Mapping[str, Any], expected: list[tuple[str, str, str]]) -> None:
    plan = mirrored(**seen)
    prefix = f"oss://llm-models/{RELEASE.prefix}/"
    assert [(c.action, c.target.removeprefix(prefix), c.reason) for c in plan.changes] == expected
    assert not plan.failed


def test_the_manifest_waits_until_nothing_half_made_is_left() -> None:
    plan = mirrored(stored=BOTH, orphans=(UPLOAD,), stale=("a/state.json",))
    assert [type(change.payload) for change in plan.changes] == [Abort, Forget]
    assert {change.action for change in plan.changes} == {"delete"}


def test_an_upload_whose_file_is_copied_instead_is_aborted_and_forgotten() -> None:
    begun = {A.path: Unfinished(UPLOAD, state_key(RELEASE, A.path), 600)}
    plan = mirrored(stored={B.path: stored(B)}, unfinished=begun, elsewhere={A.sha256: elsewhere(A)})
    assert [type(change.payload) for change in plan.changes] == [Abort, Forget, Copies]


def test_the_state_of_an_object_that_is_mistrusted_stays_until_the_object_is_gone() -> None:
    begun = {A.path: Unfinished(UPLOAD, state_key(RELEASE, A.path), 600)}
    seen = {"stored": {B.path: stored(B)}, "unfinished": begun, "unverified": {A.path: "crc64"}}
    plan = mirrored(**seen, elsewhere={A.sha256: elsewhere(A)})
    assert [type(change.payload) for change in plan.changes] == [Abort, Copies]
    assert plan.changes[-1].payload.copies[0].replace


def test_an_object_without_a_crc_is_never_vouched_for() -> None:
    plan = mirrored(stored={A.path: stored(A, None), B.path: stored(B)})
    assert "a.safetensors has no CRC-64" in plan.failed[0]


def test_a_manifest_ends_every_step() -> None:
    plans = (
        mirror_model.plan(RELEASE, mirror_model.Facts(MANIFEST)),
        download_model.plan(RELEASE, SCRATCH, download_model.Facts(MANIFEST)),
        upload_model.plan(RELEASE, SCRATCH, upload_model.Facts(MANIFEST)),
    )
    assert all(plan.converged for plan in plans)
    assert {plan.ok for plan in plans} == {
        (f"oss://llm-models/{RELEASE.prefix}: 2 files, 1.0 kB, verified 1970-01-01T00:00:00+00:00",)
    }


def test_scratch_is_emptied_only_once_the_manifest_is_there() -> None:
    staged = Staged(listing=LISTING, verified=frozenset((A.path, B.path)), exists=True)
    before = upload_model.plan(RELEASE, SCRATCH, upload_model.Facts(None, Inventory(stored=BOTH), staged))
    after = upload_model.plan(RELEASE, SCRATCH, upload_model.Facts(MANIFEST, staged=Staged(exists=True)))
    assert [type(change.payload) for change in before.changes] == [Publish]
    assert [type(change.payload) for change in after.changes] == [RemoveFolder]


@pytest.mark.parametrize(
    ("inventory", "verified", "begun", "expected"),
    [
        (Inventory(), (), (), [("a.safetensors", False), ("b.json", False)]),
        (Inventory(), (B.path,), (A.path,), [("a.safetensors", True)]),
        (Inventory(stored={A.path: stored(A)}), (), (), [("b.json", False)]),
        (Inventory(elsewhere={A.sha256: elsewhere(A)}), (), (), [("b.json", False)]),
        (Inventory(stored=BOTH), (), (), []),
    ],
    ids=[
        "nothing anywhere",
        "one begun, one there",
        "one in the bucket",
        "one in another revision",
        "all in the bucket",
    ],
)
def test_a_download_fetches_what_neither_bucket_nor_scratch_holds(
    inventory: Inventory, verified: tuple[str, ...], begun: tuple[str, ...], expected: list[tuple[str, bool]]
) -> None:
    staged = Staged(listing=LISTING, verified=frozenset(verified), begun=frozenset(begun), free=10**9)
    plan = download_model.plan(RELEASE, SCRATCH, download_model.Facts(None, LISTING, inventory, staged))
    moves = [move for change in plan.changes for move in change.payload.moves]
    assert sorted((move.file.path, move.resume) for move in moves) == expected


@pytest.mark.parametrize(("free", "allocated", "fits"), [(1010, 0, True), (1009, 0, False), (1009, 1, True)])
def test_what_drafts_have_taken_need_not_be_free(free: int, allocated: int, fits: bool) -> None:
    staged = Staged(free=free, allocated=allocated)
    plan = download_model.plan(RELEASE, SCRATCH, download_model.Facts(None, LISTING, Inventory(), staged))
    assert bool(plan.failed) is not fits
    assert fits == any(isinstance(change.payload, WriteListing) for change in plan.changes)


def test_an_upload_never_begins_without_every_file_that_it_needs() -> None:
    staged = Staged(listing=LISTING, verified=frozenset((A.path,)), exists=True)
    plan = upload_model.plan(RELEASE, SCRATCH, upload_model.Facts(None, Inventory(), staged))
    assert plan.changes == ()
    assert "does not hold b.json" in plan.failed[0]


PROVED = ResumeRecord(
    path=A.path, sha256=A.sha256, size=A.size, part_size=500, parts=2, sha256_state="", crc64="7", upload="u"
)


@pytest.mark.parametrize(
    ("found", "state", "doubt"),
    [
        (stored(A), None, ""),
        (stored(A), PROVED, ""),
        (StoredObject("k", A.size, "e", 7, {"sha256": A.sha256, "crc64": "7"}), None, ""),
        (StoredObject("k", A.size, "e", 7, {"sha256": A.sha256, "crc64": "8"}), None, "crc64 7, expected 8"),
        (StoredObject("k", A.size, "e", 7, {}), None, "sha256 unknown"),
        (StoredObject("k", A.size, "e", 7, {"sha256": "0" * 64}), None, "sha256 0000"),
        (StoredObject("k", 999, "e", 7, {"sha256": A.sha256}), None, "size 999, expected 1000"),
        (stored(A, 8), PROVED, "crc64 8, not proved"),
        (stored(A), PROVED.model_copy(update={"parts": 1}), "not proved"),
    ],
)
def test_when_a_stored_object_is_believed(found: StoredObject, state: ResumeRecord | None, doubt: str) -> None:
    said = why_unverified(found, A, state)
    assert doubt in said
    assert bool(said) is bool(doubt)


@pytest.mark.parametrize(
    ("size", "part_size", "parts", "grown"),
    [
        (0, 16 * MIB, 1, 16 * MIB),
        (1, 16 * MIB, 1, 16 * MIB),
        (16 * MIB, 16 * MIB, 1, 16 * MIB),
        (16 * MIB + 1, 16 * MIB, 2, 16 * MIB),
        (MOST_PARTS * MIB, MIB, MOST_PARTS, MIB),
        (MOST_PARTS * MIB + 1, MIB, MOST_PARTS // 2 + 1, 2 * MIB),
        (3 * 10**12, 16 * MIB, 8997, 318 * MIB),
    ],
)
def test_parts_cover_a_file_and_stay_below_the_limit_of_oss(size: int, part_size: int, parts: int, grown: int) -> None:
    cut = layout(size, part_size)
    assert cut.part_size == grown
    assert cut.parts == parts <= MOST_PARTS
    ends = [(part.start, part.start + part.length) for part in map(cut.part, range(1, cut.parts + 1))]
    assert ends[0][0] == 0
    assert ends[-1][1] == size
    assert all(before[1] == after[0] for before, after in pairwise(ends))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "the object"),
        (b"{}", "schema"),
        (manifest.encode(MANIFEST)[:80], "the object"),
        (manifest.encode(MANIFEST).replace(b'"b.json"', b'"../b.json"'), "not a plain relative path"),
        (manifest.encode(MANIFEST).replace(b'"schema": 1', b'"schema": "1"'), "schema"),
        (manifest.encode(MANIFEST).replace(b'"size": 10\n', b'"size": 11\n'), "its own files give"),
        (manifest.encode(MANIFEST).replace(b'"totalBytes": 1010', b'"totalBytes": 1011'), "totals"),
    ],
)
def test_a_manifest_that_is_damaged_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(CorruptManifest, match=why):
        manifest.decode(body)


def test_a_manifest_reads_back_as_it_was_written() -> None:
    assert manifest.decode(manifest.encode(MANIFEST)) == MANIFEST


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """How many Python functions are called meanwhile: unlike seconds, the same on a busy machine."""
    count = [0]

    def count_one(frame: FrameType, event: str, argument: Any) -> None:
        count[0] += event == "call"

    before = sys.getprofile()
    sys.setprofile(count_one)
    try:
        yield count
    finally:
        sys.setprofile(before)


def test_a_plan_over_3000_files_is_cheap_and_can_be_read() -> None:
    listing = Listing.of(file(f"shard-{number:04}.safetensors", sha=f"{number}") for number in range(3_000))
    release = Release(DOCUMENT, listing.digest)
    seen = Inventory(
        stored={item.path: stored(item) for item in listing.files[:1_000]},
        elsewhere={item.sha256: elsewhere(item) for item in listing.files[1_000:2_000]},
    )
    with counted_calls() as calls:
        plan = mirror_model.plan(release, mirror_model.Facts(None, listing, seen))
    # About ten million calls are a second.
    assert calls[0] < 30 * len(listing.files)
    copied = [copy for change in plan.changes if isinstance(change.payload, Copies) for copy in change.payload.copies]
    moved = [move for change in plan.changes if isinstance(change.payload, Moves) for move in change.payload.moves]
    assert [copy.file for copy in copied] == list(listing.files[1_000:2_000])
    assert [move.file for move in moved] == list(listing.files[2_000:])
    assert len(plan.changes) <= 2 * MOST_LINES
    assert "and 9 more (absent at OSS, 10.0 kB)" in str(plan.changes[-1])
    assert plan.ok == ("1000 of 3000 files changed, 1.0 MB of 3.0 MB to move; 1000 copied inside the bucket",)
