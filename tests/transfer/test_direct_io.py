"""A file is the same whether its bytes go through the page cache or past it."""

import os
from pathlib import Path

import pytest

from steps.transfer import direct_io
from steps.transfer.direct_io import BLOCK, DirectFile, buffer


@pytest.mark.parametrize("direct", [direct_io._DIRECT, 0], ids=["past the cache", "through it"])
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
@pytest.mark.parametrize("offset", [0, BLOCK, 3])
def test_what_was_written_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: int, size: int, offset: int
) -> None:
    monkeypatch.setattr(direct_io, "_DIRECT", direct)
    content = os.urandom(size)
    memory = memoryview(buffer(size))[:size]
    memory[:] = content
    file = DirectFile(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    done = 0
    while done < size:
        done += file.write(memory[done:], offset + done)
    file.close()
    assert (tmp_path / "file").read_bytes()[offset:] == content
    again = DirectFile(tmp_path / "file", os.O_RDONLY)
    memory[:] = bytes(size)
    done = 0
    while done < size:
        done += again.read(memory[done:], offset + done)
    again.close()
    assert bytes(memory) == content


def test_memory_that_does_not_begin_at_a_block_is_taken_through_the_cache(tmp_path: Path) -> None:
    memory = memoryview(buffer(3 * BLOCK))[1 : BLOCK + 1]
    memory[:] = os.urandom(BLOCK)
    file = DirectFile(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert file.write(memory, 0) == BLOCK
    file.close()
    assert (tmp_path / "file").read_bytes() == bytes(memory)


def test_the_end_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short")
    file = DirectFile(tmp_path / "file", os.O_RDONLY)
    assert file.read(memoryview(buffer(BLOCK)), 0) == 5
    assert file.read(memoryview(buffer(BLOCK)), BLOCK) == 0
    file.close()
