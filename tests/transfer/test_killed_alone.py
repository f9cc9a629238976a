"""kill -9 of one process in the middle of a large file: the next one, on an empty disk, goes on inside of it."""

import re
import subprocess  # noqa: TID251  # for the type of a process that is killed
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from steps.adapters.oss.store import OssStore
from steps.errors import Exit
from steps.release import Release
from steps.transfer.bucket import STATE_FOLDER, object_key, state_key
from steps.transfer.file_job import SAVE_PARTS
from steps.transfer.layout import MIB
from tests.support.commands import STATIC, Ended, Moment, kill_at, settle, start, wait
from tests.support.memory_ports import content
from tests.transfer.test_end_to_end import Services, services
from workflows.simulator.faults.request_faults import KINDS, RequestFaults

WORKERS = 2
IN_FLIGHT = (SAVE_PARTS + 2 * WORKERS) * MIB
SIZES = {"model-a.safetensors": 44 * MIB + 5, "model-b.safetensors": 33 * MIB}
SETS = (f"--set=transfer.workers={WORKERS}", "--set=transfer.partSize=1Mi")


class World:
    """A model of two large files, and processes that each have an empty disk of their own."""

    def __init__(self, folder: Path) -> None:
        self.moments = {path: Moment("PUT ", path, "partNumber=") for path in SIZES}
        self.found: Services = services(folder, bucket_faults=_Each(self.moments.values()))
        for file in self.found.model.rglob("*.safetensors"):
            file.unlink()
        for path, size in SIZES.items():
            (self.found.model / path).write_bytes(content(path, size))
        self.release: Release = self.found.release()
        self._disks = folder / "disks"
        self._numbers = count()

    def start(self, *more: str) -> "subprocess.Popen[str]":
        disk = self._disks / str(next(self._numbers))
        disk.mkdir(parents=True)
        environment = {**STATIC, "HOME": str(disk), "TMPDIR": str(disk)}
        return start(self.found, "mirror-model", self.release.model_digest, *SETS, *more, environment=environment)

    def kill_at(self, part: int, path: str, *more: str) -> None:
        """A process dies of signal 9 while this part of a file is on its way."""
        kill_at(self.moments[path], part, lambda: self.start(*more))

    def fetched(self, path: str) -> int:
        """Bytes of a file that the hub was asked for so far; at most so many came."""
        spans = [
            re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers["range"])
            for request in self.found.hub.received("/prod/lfs-objects/")
            if path in request.target
        ]
        return sum(int(span[2]) - int(span[1]) + 1 for span in spans if span)

    def sent(self, path: str) -> int:
        """Parts of a file that the bucket was sent so far."""
        return sum(path in request and "partNumber=" in request for request in list(self.found.bucket.requests))

    def assert_published(self) -> None:
        """Every SHA-256, no open upload, no state, and an empty disk."""
        self.found.assert_whole(self.release)
        assert not list(self.store.scan(f"{self.release.prefix}/{STATE_FOLDER}/"))
        assert not [path for disk in self._disks.iterdir() for path in disk.rglob("*")]
        for path, size in SIZES.items():
            assert size <= self.fetched(path) <= size + IN_FLIGHT
            assert self.sent(path) * MIB <= size + MIB + IN_FLIGHT

    @property
    def store(self) -> OssStore:
        return self.found.store()

    def left(self, path: str) -> tuple[list[str], bool]:
        """Leftovers of a dead process for a file: uploads, and whether a state names them."""
        uploads = [upload.id for upload in self.store.uploads(object_key(self.release, path))]
        return uploads, self.store.head(state_key(self.release, path)) is not None


class _Each(RequestFaults):
    """Asks every moment."""

    def __init__(self, moments: Iterable[Moment]) -> None:
        super().__init__()
        self._moments = tuple(moments)

    def next(self, request: str, possible: Collection[str] = KINDS) -> str | None:
        for moment in self._moments:
            moment.next(request, possible)
        return None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    here = World(tmp_path)
    yield here
    here.found.hub.stop()
    here.found.bucket.stop()


def assert_done(ended: Ended) -> None:
    assert ended.code == Exit.DONE, ended.said


def test_two_shards_die_and_each_goes_on_alone_without_a_touch_of_the_other(world: World) -> None:
    (first, second), shards = SIZES, "--set=transfer.shards=2"
    with ThreadPoolExecutor(2) as pool:
        dead = [
            pool.submit(world.kill_at, 30, first, shards, "--shard=0"),
            pool.submit(world.kill_at, 14, second, shards, "--shard=1"),
        ]
    for process in dead:
        process.result()
    settle(world.found)
    left = world.left(second)
    assert (len(left[0]), left[1]) == (1, True)
    sent = world.sent(second), world.fetched(second)
    assert_done(wait(world.start(shards, "--shard=0")))
    assert world.left(second) == left
    assert (world.sent(second), world.fetched(second)) == sent
    assert world.left(first) == ([], False)
    assert world.store.head(world.release.manifest_key) is None
    assert_done(wait(world.start(shards, "--shard=1")))
    before = len(world.found.hub.received("/prod/lfs-objects/"))
    assert_done(wait(world.start(shards, "--shard=all")))
    assert len(world.found.hub.received("/prod/lfs-objects/")) == before
    world.assert_published()


@pytest.mark.parametrize(
    "part", [30, *(pytest.param(part, marks=pytest.mark.exhaustive) for part in (1, 13, 44))], ids="part {}".format
)
def test_a_process_dies_and_the_next_one_moves_at_most_what_was_in_flight(world: World, part: int) -> None:
    world.kill_at(part, "model-a.safetensors")
    settle(world.found)
    assert world.left("model-a.safetensors")[1]
    assert_done(wait(world.start()))
    world.assert_published()
