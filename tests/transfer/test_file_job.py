from functools import partial
from itertools import permutations

import pytest

from steps.transfer import hashing
from steps.transfer.file_job import SAVE_PARTS, FileJob
from steps.transfer.layout import FilePart, Layout
from steps.transfer.resume_point import ResumePoint
from steps.transfer.schedule import Schedule
from steps.transfer.sink import Corrupted, Move
from tests.support.fakes import FakeClock
from tests.support.memory_ports import MemorySource, content, listing_of

PART = 64


class MemoryFile:
    """A sink of one file that records its calls."""

    def __init__(self) -> None:
        self.body: dict[int, bytes] = {}
        self.saved: list[ResumePoint] = []
        self.finished: ResumePoint | None = None

    def make_room(self) -> None:
        self.body.clear()

    def resume(self) -> ResumePoint | None:
        return self.saved[-1] if self.saved else None

    def put(self, body: memoryview, crc64: int) -> None:
        self.body[1] = bytes(body)

    def write(self, part: FilePart, body: memoryview, crc64: int) -> None:
        assert crc64 == hashing.crc(body)
        self.body[part.number] = bytes(body)

    def save(self, checkpoint: ResumePoint) -> None:
        self.saved.append(checkpoint)

    def finish(self, checkpoint: ResumePoint) -> None:
        self.finished = checkpoint

    def discard(self) -> None:
        self.body.clear()
        self.saved.clear()

    def close(self) -> None:
        pass


def job(size: int, sink: MemoryFile, *, flips: int = 0, window: int = 100) -> FileJob:
    source = MemorySource({"model": content("model", size)})
    source.flips["model"] = flips
    return FileJob(listing_of(source.files).files[0], Layout(size, PART), source, sink, FakeClock(), window)


def move_one(found: FileJob, part: FilePart) -> bool:
    return found.move(part, memoryview(bytearray(PART)), lambda: None)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_parts_may_move_in_any_order(order: tuple[int, ...]) -> None:
    sink = MemoryFile()
    found = job(4 * PART - 3, sink)
    parts = [found.hand_out() for _ in range(4)]
    assert [move_one(found, parts[index]) for index in order] == [False, False, False, True]
    found.complete()
    assert b"".join(body for _, body in sorted(sink.body.items())) == content("model", 4 * PART - 3)
    assert sink.finished is not None


def test_all_parts_saved_means_that_the_sum_was_right_so_it_is_said_only_by_finish() -> None:
    sink = MemoryFile()
    found = job(3 * PART, sink, flips=1)
    while found.has_parts_left:
        move_one(found, found.hand_out())
    found.save()
    assert [checkpoint.parts for checkpoint in sink.saved] == [2]
    with pytest.raises(Corrupted):
        found.complete()
    assert sink.finished is None


def test_a_checkpoint_never_holds_a_part_that_came_before_its_neighbours() -> None:
    sink = MemoryFile()
    found = job(5 * PART, sink)
    parts = [found.hand_out() for _ in range(5)]
    for number in (0, 2, 3):
        move_one(found, parts[number])
    found.save()
    assert [checkpoint.parts for checkpoint in sink.saved] == [1]


@pytest.mark.parametrize("stored", range(5))
def test_another_job_goes_on_from_each_checkpoint(stored: int) -> None:
    sink = MemoryFile()
    first = job(5 * PART, sink)
    for _ in range(stored):
        move_one(first, first.hand_out())
    first.save()
    second = job(5 * PART, sink)
    second.prepare(Move(second.file, resume=True))
    moved = 0
    while second.has_parts_left:
        move_one(second, second.hand_out())
        moved += 1
    second.complete()
    assert moved == 5 - stored


def test_a_buffer_is_given_back_once_it_is_hashed_and_stored() -> None:
    sink, given_back = MemoryFile(), []
    found = job(2 * PART, sink)
    first, second = found.hand_out(), found.hand_out()
    found.move(second, memoryview(bytearray(PART)), lambda: given_back.append(2))
    assert given_back == [], "the second part waits to be hashed after the first"
    found.move(first, memoryview(bytearray(PART)), lambda: given_back.append(1))
    assert sorted(given_back) == [1, 2]


def test_a_part_that_is_held_up_lets_others_go_on_only_within_the_window() -> None:
    sink = MemoryFile()
    found = job(60 * PART, sink, window=SAVE_PARTS + 4)
    schedule = Schedule([found], buffers=4, buffer_size=PART)
    schedule.take()
    found.prepare(Move(found.file))
    schedule.ready(found)
    held_up = [schedule.take()]

    def go_on() -> int:
        moved = 0
        while task := schedule._next():
            assert task.part is not None
            assert task.buffer is not None
            found.move(task.part, memoryview(task.buffer), partial(schedule.give_back, task.buffer))
            found.save_if_due()
            moved += 1
        return moved

    # The held-up part was hashed, so the others need no buffer for long; only the window stops them.
    slow = held_up[0]
    assert slow is not None
    assert slow.part is not None
    assert slow.buffer is not None
    body = memoryview(slow.buffer)
    found._source.read(found.file, 0, body)
    found._now.sums.add(1, body, hashing.crc(body), lambda: None)
    assert go_on() == SAVE_PARTS + 4 - 1
    found._store(slow.part)
    found.save_if_due()
    assert go_on() == 60 - (SAVE_PARTS + 4)
    found.complete()
    assert sink.finished is not None
