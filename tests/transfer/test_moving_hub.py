"""A revision that moves at the hub during a run: the run stays on its pinned digest, or stops with a sentence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from steps.errors import Exit
from steps.release import Release
from tests.support.commands import Ended, Moment, call
from tests.transfer.test_end_to_end import BUCKET, FILES, Services, services

LARGE, SMALL, VOCABULARY = "model-00001-of-00003.safetensors", "config.json", "tokenizer/vocab.json"
STAGED, SHARDS = "--set=transfer.mode=staged", "--set=transfer.shards=2"
ONE = "--set=transfer.workers=1"  # so that parts move one after another, in the same order each time
Way = Callable[[Services, str], Ended]


def streamed(found: Services, digest: str) -> Ended:
    return call(found, "mirror-model", digest, ONE)


def staged(found: Services, digest: str) -> Ended:
    fetched = call(found, "download-model", digest, STAGED, ONE)
    return fetched if fetched.code else call(found, "upload-model", digest, STAGED, ONE)


def sharded(found: Services, digest: str) -> Ended:
    """Both shards, each independent of the other one; then the task behind them, if both succeeded."""
    shards = [call(found, "mirror-model", digest, ONE, SHARDS, f"--shard={number}") for number in range(2)]
    worst = max(shards, key=lambda ended: ended.code)
    return worst if worst.code else call(found, "mirror-model", digest, ONE, SHARDS, "--shard=all")


WAYS: list[Way] = [streamed, staged, sharded]


@contextmanager
def hub_with(folder: Path, moment: Moment) -> Iterator[Services]:
    found = services(folder, hub_faults=moment)
    try:
        yield found
    finally:
        found.hub.stop()
        found.bucket.stop()


def move(found: Services, path: str) -> None:
    """Other bytes of the same length, all at once, as a commit shows them."""
    draft = found.folder / "draft"
    draft.write_bytes(bytes([FILES[path][0] ^ 1]) + FILES[path][1:])
    draft.replace(found.model / path)


def assert_stored(found: Services, release: Release, files: dict[str, bytes]) -> None:
    """The prefix holds only these files and the manifest of this revision; no upload is open."""
    root = found.folder / "bucket" / "objects" / BUCKET / release.prefix
    stored = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    manifest = stored.pop(".slipway/manifest.json").decode()
    assert stored == files
    assert release.model_digest in manifest
    assert found.store().uploads(f"{release.prefix}/") == []


def assert_the_next_run_is_clean(found: Services, way: Way) -> None:
    release = found.release()
    ended = way(found, release.model_digest)
    assert ended.code == Exit.DONE, ended.said
    assert_stored(found, release, {path: (found.model / path).read_bytes() for path in FILES})


@dataclass(frozen=True)
class Case:
    """A file moves right before the hub answers the n-th request that contains all `parts`."""

    parts: tuple[str, ...]
    count: int
    moves: str
    sentences: tuple[str, ...]


_LINK = (f"{LARGE} changed at the hub after it was listed", "the revision moved during the run; start a new run")
_SUM = (
    f"{SMALL} ({len(FILES[SMALL])} bytes) has the SHA-256",
    "if the revision has moved since this run began, submit a new run",
)
CASES = {
    "before it is fetched": Case(("FilePath=", LARGE), 1, LARGE, _LINK),
    "while it is fetched": Case(("/prod/lfs-objects/", LARGE), 4, LARGE, _LINK),
    "and has no link that names its sum": Case(("FilePath=", SMALL), 1, SMALL, _SUM),
}


# Each case in one way, and one case in each way; all of both in the full check.
MET = [
    pytest.param(
        case,
        way,
        id=f"{name}, {way.__name__}",
        marks=[pytest.mark.exhaustive] if way is not streamed and case is not CASES["before it is fetched"] else [],
    )
    for name, case in CASES.items()
    for way in WAYS
]


@pytest.mark.parametrize(("case", "way"), MET)
def test_a_file_that_moves_stops_the_run_and_the_next_one_is_clean(tmp_path: Path, case: Case, way: Way) -> None:
    moment = Moment(*case.parts)
    with hub_with(tmp_path, moment) as found:
        pinned = found.release()
        moment.at(case.count, lambda: move(found, case.moves))
        ended = way(found, pinned.model_digest)
        assert moment.is_over
        assert ended.code == Exit.BLOCKED, ended.said
        for sentence in case.sentences:
            assert sentence in ended.said
        assert found.store().head(pinned.manifest_key) is None
        assert_the_next_run_is_clean(found, way)


@pytest.mark.parametrize("way", [streamed, staged], ids=lambda way: way.__name__)
def test_a_file_that_moves_once_it_was_fetched_leaves_the_run_what_it_pinned(tmp_path: Path, way: Way) -> None:
    moment, fetched = Moment("/prod/lfs-objects/", LARGE), []

    def move_what_is_there() -> None:
        fetched.extend(found.hub.received("vocab.json"))
        move(found, VOCABULARY)

    with hub_with(tmp_path, moment) as found:
        pinned = found.release()
        moment.at(7, move_what_is_there)
        ended = way(found, pinned.model_digest)
        assert len(fetched) == 1
        assert ended.code == Exit.DONE, ended.said
        assert_stored(found, pinned, FILES)
        assert_the_next_run_is_clean(found, way)
        assert_stored(found, pinned, FILES)


def test_a_revision_that_moves_between_two_shards_is_published_by_nobody(tmp_path: Path) -> None:
    with hub_with(tmp_path, Moment("nothing")) as found:
        pinned = found.release()
        assert call(found, "mirror-model", pinned.model_digest, SHARDS, "--shard=0").code == Exit.DONE
        move(found, SMALL)
        for shard in ("1", "all"):
            ended = call(found, "mirror-model", pinned.model_digest, SHARDS, f"--shard={shard}")
            assert ended.code == Exit.BLOCKED, ended.said
            digests = f"now lists {found.release().model_digest}, but this run is pinned to {pinned.model_digest}"
            assert digests in ended.said
            assert "two revisions are never mixed. Next: submit a new run" in ended.said
        assert found.store().head(pinned.manifest_key) is None
        assert_the_next_run_is_clean(found, sharded)


def test_a_revision_that_moves_between_download_and_upload_is_stored_as_it_was_pinned(tmp_path: Path) -> None:
    with hub_with(tmp_path, Moment("nothing")) as found:
        pinned = found.release()
        assert call(found, "download-model", pinned.model_digest, STAGED).code == Exit.DONE
        move(found, LARGE)
        assert call(found, "upload-model", pinned.model_digest, STAGED).code == Exit.DONE
        assert_stored(found, pinned, FILES)
        assert_the_next_run_is_clean(found, staged)
