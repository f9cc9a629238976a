"""What every bucket behind the adapter does: the embedded one always, a real one when the environment names it."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import fastcrc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steps.adapters.oss.credentials import static_credentials
from steps.adapters.oss.store import OssStore
from steps.errors import Blocked, TransientError
from steps.ports.oss import AccessKey, StoredObject, StoredPart, Upload
from tests.support.buckets import running, store

PART = 100 << 10  # bytes: the smallest part that OSS allows
REAL = "SLIPWAY_TEST_OSS_"  # ENDPOINT, REGION, BUCKET, KEY_ID, KEY_SECRET and, for a temporary key, TOKEN
ENVIRONMENT = os.environ  # noqa: TID251  # the switch of this suite
NAMED = (REAL + name for name in ("ENDPOINT", "REGION", "BUCKET", "KEY_ID", "KEY_SECRET"))
ABSENT = [name for name in NAMED if name not in ENVIRONMENT]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OssStore]:
    with running(tmp_path_factory.mktemp("bucket")) as bucket:
        yield store(bucket)


@pytest.fixture(scope="module", params=["embedded"] if ABSENT else ["embedded", "real"])
def oss(request: pytest.FixtureRequest) -> OssStore:
    if request.param == "embedded":
        found: OssStore = request.getfixturevalue("embedded")
        return found
    key = AccessKey(ENVIRONMENT[REAL + "KEY_ID"], ENVIRONMENT[REAL + "KEY_SECRET"], ENVIRONMENT.get(REAL + "TOKEN", ""))
    endpoint, region, bucket = (ENVIRONMENT[REAL + name] for name in ("ENDPOINT", "REGION", "BUCKET"))
    return OssStore(endpoint, region, bucket, static_credentials(key))


@pytest.mark.skipif(bool(ABSENT), reason=f"no real OSS to compare with: {', '.join(ABSENT)} not set")
def test_the_promises_of_this_module_hold_at_a_real_oss_too(oss: OssStore) -> None:
    assert oss.head(f"slipway-test/{uuid.uuid4().hex}") is None


@pytest.fixture
def folder(oss: OssStore) -> Iterator[str]:
    """A prefix of its own, empty again afterwards."""
    prefix = f"slipway-test/{uuid.uuid4().hex}/"
    yield prefix
    for upload in oss.uploads(prefix):
        oss.abort_upload(upload)
    oss.delete(found.key for found in oss.scan(prefix))


def crc(body: bytes) -> int:
    return int(fastcrc.crc64.xz(body))


def upload_all(oss: OssStore, key: str, bodies: list[bytes]) -> tuple[Upload, list[StoredPart]]:
    upload = oss.start_upload(key, metadata={"sha256": "5" * 64})
    return upload, [oss.upload_part(upload, number, memoryview(body)) for number, body in enumerate(bodies, start=1)]


def test_what_was_put_is_read_again_with_its_metadata(oss: OssStore, folder: str) -> None:
    body = os.urandom(3000)
    put = oss.put(folder + "a", body, metadata={"sha256": "ab"})
    assert put == StoredObject(folder + "a", 3000, put.etag if put else "", crc(body), {"sha256": "ab"})
    assert oss.head(folder + "a") == put
    assert oss.get(folder + "a") == body


def test_a_memoryview_is_put_as_it_is(oss: OssStore, folder: str) -> None:
    oss.put(folder + "a", memoryview(b"0123456789")[2:5])
    assert oss.get(folder + "a") == b"234"


def test_an_empty_object_is_an_object(oss: OssStore, folder: str) -> None:
    oss.put(folder + "a", memoryview(b""))
    assert oss.get(folder + "a") == b""
    assert (found := oss.head(folder + "a")) is not None
    assert found.size == 0


def test_what_is_not_there_is_none(oss: OssStore, folder: str) -> None:
    assert oss.head(folder + "absent") is None
    assert oss.get(folder + "absent") is None
    assert list(oss.scan(folder + "absent")) == []
    assert oss.uploads(folder + "absent") == []
    assert oss.parts(Upload(folder + "absent", "0" * 32)) is None


def test_a_range_fills_exactly_the_buffer(oss: OssStore, folder: str) -> None:
    body = os.urandom(500_000)
    oss.put(folder + "a", body)
    buffer = bytearray(300_000)
    oss.read(folder + "a", 100_000, memoryview(buffer))
    assert buffer == body[100_000:400_000]
    oss.read(folder + "a", 0, memoryview(buffer)[:10])
    assert buffer[:10] == body[:10]
    oss.read(folder + "a", 7, memoryview(buffer)[:0])


@pytest.mark.parametrize("start", [0, 5, 10, 11], ids=["whole", "tail", "behind the end", "far behind"])
def test_a_range_beyond_the_end_is_refused(oss: OssStore, folder: str, start: int) -> None:
    oss.put(folder + "a", b"0123456789")
    with pytest.raises(Blocked, match="cannot read bytes"):
        oss.read(folder + "a", start, memoryview(bytearray(11)))


def test_reading_an_absent_object_is_an_error(oss: OssStore, folder: str) -> None:
    with pytest.raises(Blocked, match="NoSuchKey"):
        oss.read(folder + "absent", 0, memoryview(bytearray(1)))


def test_an_object_that_may_not_be_overwritten_stays(oss: OssStore, folder: str) -> None:
    assert oss.put(folder + "a", b"first", forbid_overwrite=True) is not None
    assert oss.put(folder + "a", b"second", forbid_overwrite=True) is None
    assert oss.get(folder + "a") == b"first"
    oss.put(folder + "a", b"third")
    assert oss.get(folder + "a") == b"third"


def test_a_listing_is_sorted_and_keeps_to_its_prefix(oss: OssStore, folder: str) -> None:
    for name in ("b/2", "a", "b/1", "c", "b"):
        oss.put(folder + name, name.encode())
    assert [found.key.removeprefix(folder) for found in oss.scan(folder)] == ["a", "b", "b/1", "b/2", "c"]
    assert [(found.key, found.size) for found in oss.scan(folder + "b/")] == [(folder + "b/1", 3), (folder + "b/2", 3)]


def test_deleting_what_is_absent_is_fine(oss: OssStore, folder: str) -> None:
    oss.put(folder + "a", b"1")
    oss.put(folder + "b", b"2")
    oss.delete([folder + "a", folder + "absent"])
    oss.delete([folder + "b"])
    oss.delete([])
    assert list(oss.scan(folder)) == []


def test_an_upload_becomes_an_object_when_it_is_completed(oss: OssStore, folder: str) -> None:
    bodies = [os.urandom(PART), os.urandom(PART), os.urandom(5)]
    key = folder + "big"
    upload, parts = upload_all(oss, key, bodies)
    assert oss.uploads(folder) == [upload]
    assert oss.head(key) is None
    assert oss.parts(upload) == parts
    assert [part.crc64 for part in parts] == [crc(body) for body in bodies]
    made = oss.complete_upload(upload, reversed(parts), crc64=crc(b"".join(bodies)))
    assert (made.size, made.crc64, made.metadata) == (2 * PART + 5, crc(b"".join(bodies)), {"sha256": "5" * 64})
    assert oss.get(key) == b"".join(bodies)
    assert oss.uploads(folder) == []
    assert oss.parts(upload) is None


def test_a_part_that_is_sent_again_replaces_the_first(oss: OssStore, folder: str) -> None:
    upload, parts = upload_all(oss, folder + "big", [os.urandom(PART), b"old end"])
    first = bytearray(PART)
    again = [oss.upload_part(upload, 1, memoryview(first)), oss.upload_part(upload, 2, memoryview(b"new end"))]
    assert oss.parts(upload) == again != parts
    oss.complete_upload(upload, again, crc64=crc(bytes(first) + b"new end"))
    assert oss.get(folder + "big") == bytes(first) + b"new end"


def test_completing_twice_is_fine_if_the_object_is_the_one(oss: OssStore, folder: str) -> None:
    upload, parts = upload_all(oss, folder + "big", [b"only"])
    made = oss.complete_upload(upload, parts, crc64=crc(b"only"))
    assert oss.complete_upload(upload, parts, crc64=crc(b"only")) == made


def test_an_upload_that_is_gone_cannot_be_completed(oss: OssStore, folder: str) -> None:
    upload, parts = upload_all(oss, folder + "big", [b"only"])
    oss.abort_upload(upload)
    oss.abort_upload(upload)
    with pytest.raises(TransientError, match=r"is gone.*Next: run it again, the file starts over"):
        oss.complete_upload(upload, parts, crc64=crc(b"only"))


def test_an_object_with_another_sum_than_wanted_is_taken_away(oss: OssStore, folder: str) -> None:
    upload, parts = upload_all(oss, folder + "big", [b"only"])
    with pytest.raises(Blocked, match="the object was deleted"):
        oss.complete_upload(upload, parts, crc64=1)
    assert oss.head(folder + "big") is None


def test_a_copy_has_the_bytes_and_the_metadata(oss: OssStore, folder: str) -> None:
    source = oss.put(folder + "a b", b"content", metadata={"sha256": "ab"})
    assert source is not None
    copied = oss.copy(source, folder + "copy")
    assert (copied.size, copied.crc64) == (source.size, source.crc64)
    assert oss.head(folder + "copy") == copied
    assert oss.get(folder + "copy") == b"content"


def test_a_copy_can_get_metadata_of_its_own(oss: OssStore, folder: str) -> None:
    oss.put(folder + "a", b"content", metadata={"old": "1"})
    listed = next(iter(oss.scan(folder)))  # without a sum, which is then asked for
    copied = oss.copy(listed, folder + "copy", metadata={"new": "2"})
    assert oss.head(folder + "copy") == copied
    assert copied.metadata == {"new": "2"}


def test_a_large_copy_goes_part_by_part(oss: OssStore, folder: str) -> None:
    body = os.urandom(2 * PART + 1)
    source = oss.put(folder + "a", body)
    assert source is not None
    wanted = StoredObject(folder + "copy", source.size, "", source.crc64, {"sha256": "ab"})
    copied = oss._multipart.copy(source, wanted, part_size=PART)
    assert oss.get(folder + "copy") == body
    assert (copied.crc64, copied.metadata) == (source.crc64, {"sha256": "ab"})


def test_what_is_too_large_for_one_copy_is_copied_in_parts(
    oss: OssStore, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steps.adapters.oss.store.MAX_COPY", 6)
    source = oss.put(folder + "a", b"content", metadata={"sha256": "ab"})
    assert source is not None
    copied = oss.copy(source, folder + "copy")
    assert oss.get(folder + "copy") == b"content"
    assert (copied.crc64, copied.metadata) == (source.crc64, {"sha256": "ab"})
    assert copied.etag.endswith("-1")  # of an upload


def test_a_large_copy_that_fails_leaves_no_upload(oss: OssStore, folder: str) -> None:
    source = StoredObject(folder + "absent", 2 * PART, "", 1)
    with pytest.raises(Blocked, match="cannot copy part 1"):
        oss._multipart.copy(source, StoredObject(folder + "copy", 2 * PART, "", 1), part_size=PART)
    assert oss.uploads(folder) == []


@pytest.mark.parametrize(
    "name",
    ["a b", "a+b", "100%", "ü/模型", "a&b=c?d#e", "'\"<>", "~user", "a;b,c", "%2F", "..a", "x" * 200, "a//b", "d/"],
)
def test_keys_with_unusual_characters_work(oss: OssStore, folder: str, name: str) -> None:
    source = oss.put(folder + name, b"content")
    assert source is not None
    assert [found.key for found in oss.scan(folder)] == [folder + name]
    assert oss.get(folder + name) == b"content"
    oss.copy(source, folder + "copy of " + name)
    upload, _ = upload_all(oss, folder + name, [b"part"])
    assert oss.uploads(folder + name) == [upload]
    oss.delete([folder + name, folder + "copy of " + name])
    assert list(oss.scan(folder)) == []


# XML 1.0 cannot hold most control characters, so no key may hold them; surrogates are no text.
NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="￾￿"), min_size=1, max_size=30)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES, body=st.binary(max_size=200))
def test_any_key_and_any_bytes_come_back(embedded: OssStore, name: str, body: bytes) -> None:
    key = f"any/{name}"
    embedded.put(key, body)
    assert embedded.get(key) == body
    assert [found.key for found in embedded.scan(key)] == [key]
    embedded.delete([key])


def test_listings_of_more_than_one_page_are_whole(tmp_path: Path) -> None:
    names = [f"p/{number:05}" for number in range(1001)]
    with running(tmp_path) as bucket:
        oss = store(bucket)
        source = oss.put(names[0], b"1")
        assert source is not None
        for name in names[1:]:
            oss.copy(source, name)
        bucket.requests.clear()
        assert [found.key for found in oss.scan("p/")] == names
        assert len(bucket.requests) == 2
        oss.delete(names)
        assert list(oss.scan("")) == []


def test_more_than_a_page_of_uploads_and_of_parts_is_listed_whole(tmp_path: Path) -> None:
    with running(tmp_path) as bucket:
        oss = store(bucket)
        uploads = [oss.start_upload(f"u/{number % 7}") for number in range(1001)]
        assert sorted(oss.uploads("u/"), key=repr) == sorted(uploads, key=repr)
        parts = [oss.upload_part(uploads[0], number, memoryview(b"x")) for number in range(1, 1002)]
        assert oss.parts(uploads[0]) == parts
