import hashlib
import os

import pytest
from fastcrc import crc64
from hypothesis import given
from hypothesis import strategies as st

from steps.transfer import hashing


@given(st.binary(max_size=2_000), st.integers(0, 30))
def test_a_sum_goes_on_from_a_saved_state(body: bytes, blocks: int) -> None:
    cut = min(blocks, len(body) // hashing.BLOCK) * hashing.BLOCK
    first = hashing.sha256()
    first.update(memoryview(bytearray(body[:cut])))
    state = first.state()
    second = hashing.resumed(state, cut)
    assert second is not None
    second.update(memoryview(bytearray(body[cut:])))
    assert second.hexdigest() == hashlib.sha256(body).hexdigest()


def test_a_state_is_the_words_of_the_standard_so_any_machine_can_go_on() -> None:
    # The initial words of FIPS 180-4, section 5.3.3.
    assert hashing.sha256().state() == "6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19"


@pytest.mark.parametrize(
    ("state", "length"),
    [("", 64), ("6a09", 64), ("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19", 65)],
    ids=["nothing saved", "cut off", "not between two blocks"],
)
def test_a_state_that_cannot_be_continued_is_refused(state: str, length: int) -> None:
    assert hashing.resumed(state, length) is None


def test_a_state_inside_a_block_is_not_saved() -> None:
    running = hashing.sha256()
    running.update(memoryview(bytearray(b"abc")))
    assert running.state() == ""


def test_lengths_beyond_32_bits_of_bits_are_kept() -> None:
    state = hashing.sha256().state()
    far, near = hashing.resumed(state, 1 << 30), hashing.resumed(state, 64)
    assert far is not None
    assert near is not None
    assert far.hexdigest() != near.hexdigest()
    # 2**30 bytes are 2**33 bits: a counter of 32 bits would have wrapped to the same as no bytes at all.
    assert far.hexdigest() != hashing.sha256().hexdigest()


def test_without_libcrypto_files_are_still_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_library", lambda: None)
    running = hashing.sha256()
    running.update(memoryview(bytearray(b"abc")))
    assert running.hexdigest() == hashlib.sha256(b"abc").hexdigest()
    assert hashing.resumed("0" * 64, 64) is None


@given(st.binary(), st.binary())
def test_a_crc_chains_over_parts(head: bytes, tail: bytes) -> None:
    assert hashing.crc(memoryview(tail), hashing.crc(memoryview(head))) == crc64.xz(head + tail)


def test_the_crc_is_the_one_of_oss() -> None:
    # The check value of CRC-64/XZ. https://reveng.sourceforge.io/crc-catalogue/all.htm#crc.cat.crc-64-xz
    assert hashing.crc(memoryview(b"123456789")) == 0x995DC9BBDF1939FA


@pytest.mark.parametrize("length", [0, 1, 7, 64, 4095, 1 << 16])
def test_the_sum_of_a_whole_is_joined_from_the_sums_of_its_parts(length: int) -> None:
    head, tail = os.urandom(1000), os.urandom(length)
    assert hashing.joined(crc64.xz(head), crc64.xz(tail), length) == crc64.xz(head + tail)
    assert hashing.joined(0, crc64.xz(tail), length) == crc64.xz(tail)  # no bytes have the sum 0
