"""Independent clients accept the embedded bucket, and it refuses them like OSS."""

import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import alibabacloud_oss_v2 as oss
import fastcrc
import oss2
import oss2.exceptions
import pytest
import requests
from oss2.models import PartInfo

from tests.support.buckets import KEY_ID, KEY_SECRET, NAME, REGION, running
from workflows.simulator.http.bucket import Bucket

PART = 100 << 10  # bytes: the smallest part that OSS allows


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    with running(tmp_path) as found:
        yield found


def new_client(bucket: Bucket, secret: str = KEY_SECRET) -> oss.Client:
    config = oss.config.load_default()
    config.credentials_provider = oss.credentials.StaticCredentialsProvider(KEY_ID, secret)
    config.endpoint, config.region, config.signature_version = bucket.url, REGION, "v4"
    config.retry_max_attempts = 1
    return oss.Client(config)


def plain_oss2(bucket: Bucket, auth: oss2.AuthV4, region: str = REGION) -> oss2.Bucket:
    return oss2.Bucket(auth, bucket.url, NAME, region=region)


def test_the_second_sdk_writes_reads_and_lists(bucket: Bucket) -> None:
    client = new_client(bucket)
    body = os.urandom(5000)
    put = client.put_object(oss.PutObjectRequest(NAME, "a b+/ü", body=body, metadata={"sha256": "ab"}))
    assert int(put.hash_crc64) == fastcrc.crc64.xz(body)
    got = client.get_object(oss.GetObjectRequest(NAME, "a b+/ü"))
    assert got.body.content == body
    head = client.head_object(oss.HeadObjectRequest(NAME, "a b+/ü"))
    assert (head.content_length, head.etag, dict(head.metadata)) == (5000, put.etag, {"sha256": "ab"})
    listed = client.list_objects_v2(oss.ListObjectsV2Request(NAME, prefix="a b", encoding_type="url"))
    assert [found.key for found in listed.contents] == ["a b+/ü"]
    client.delete_object(oss.DeleteObjectRequest(NAME, "a b+/ü"))
    assert not client.is_object_exist(NAME, "a b+/ü")


def test_the_second_sdk_uploads_a_file_in_parts(bucket: Bucket) -> None:
    client = new_client(bucket)
    body = os.urandom(3 * PART + 17)
    done = client.uploader(part_size=PART, parallel_num=3).upload_from(
        oss.PutObjectRequest(NAME, "big"), io.BytesIO(body)
    )
    assert done.upload_id
    assert client.get_object(oss.GetObjectRequest(NAME, "big")).body.content == body
    assert client.head_object(oss.HeadObjectRequest(NAME, "big")).hash_crc64 == str(fastcrc.crc64.xz(body))


def test_the_second_sdk_downloads_a_file_in_ranges(bucket: Bucket, tmp_path: Path) -> None:
    client = new_client(bucket)
    body = os.urandom(3 * PART + 17)
    client.put_object(oss.PutObjectRequest(NAME, "big", body=body))
    client.downloader(part_size=PART, parallel_num=3).download_file(
        oss.GetObjectRequest(NAME, "big"), str(tmp_path / "big")
    )
    assert (tmp_path / "big").read_bytes() == body


def test_the_second_sdk_sees_parts_with_their_sums_and_aborts(bucket: Bucket) -> None:
    client = new_client(bucket)
    upload = client.initiate_multipart_upload(oss.InitiateMultipartUploadRequest(NAME, "big")).upload_id
    client.upload_part(oss.UploadPartRequest(NAME, "big", part_number=2, upload_id=upload, body=b"part"))
    pages = client.list_parts_paginator().iter_page(oss.ListPartsRequest(NAME, "big", upload_id=upload))
    parts = [part for page in pages for part in page.parts or ()]
    assert [(part.part_number, part.size, int(part.hash_crc64)) for part in parts] == [
        (2, 4, fastcrc.crc64.xz(b"part"))
    ]
    uploads = client.list_multipart_uploads(oss.ListMultipartUploadsRequest(NAME)).uploads
    assert [(found.key, found.upload_id) for found in uploads] == [("big", upload)]
    client.abort_multipart_upload(oss.AbortMultipartUploadRequest(NAME, "big", upload_id=upload))
    assert not client.list_multipart_uploads(oss.ListMultipartUploadsRequest(NAME)).uploads


def test_the_second_sdk_copies_and_deletes_many(bucket: Bucket) -> None:
    client = new_client(bucket)
    client.put_object(oss.PutObjectRequest(NAME, "a", body=b"content"))
    client.copy_object(oss.CopyObjectRequest(NAME, "b c", source_key="a"))
    assert client.get_object(oss.GetObjectRequest(NAME, "b c")).body.content == b"content"
    doomed = [oss.DeleteObject(key="a"), oss.DeleteObject(key="b c")]
    client.delete_multiple_objects(oss.DeleteMultipleObjectsRequest(NAME, objects=doomed, encoding_type="url"))
    assert not client.list_objects_v2(oss.ListObjectsV2Request(NAME)).contents


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (lambda client: client.get_object(oss.GetObjectRequest(NAME, "absent")), "NoSuchKey"),
        (lambda client: client.get_object(oss.GetObjectRequest("other-bucket", "a")), "NoSuchBucket"),
        (lambda client: client.list_parts(oss.ListPartsRequest(NAME, "a", upload_id="0" * 32)), "NoSuchUpload"),
    ],
)
def test_the_second_sdk_is_told_what_is_absent(
    bucket: Bucket, operation: Callable[[oss.Client], object], code: str
) -> None:
    with pytest.raises(oss.exceptions.OperationError) as caught:
        operation(new_client(bucket))
    answer = caught.value.unwrap()
    assert (answer.status_code, answer.code) == (404, code)
    assert len(answer.request_id) == 24
    assert answer.ec


def test_a_wrong_secret_is_refused(bucket: Bucket) -> None:
    with pytest.raises(oss.exceptions.OperationError) as caught:
        new_client(bucket, secret="wrong").put_object(oss.PutObjectRequest(NAME, "a", body=b"x"))
    assert caught.value.unwrap().code == "SignatureDoesNotMatch"
    assert bucket_keys(bucket) == []


def test_a_signature_for_another_region_is_refused(bucket: Bucket) -> None:
    with pytest.raises(oss2.exceptions.InvalidArgument, match="Invalid signing region"):
        plain_oss2(bucket, oss2.AuthV4(KEY_ID, KEY_SECRET), "cn-beijing").put_object("a", b"x")


def bucket_keys(bucket: Bucket) -> list[str]:
    return [found.key for found in oss2.ObjectIteratorV2(plain_oss2(bucket, oss2.AuthV4(KEY_ID, KEY_SECRET)))]


def test_the_first_sdk_does_everything_with_stock_settings(bucket: Bucket) -> None:
    client = plain_oss2(bucket, oss2.AuthV4(KEY_ID, KEY_SECRET))
    client.put_object("a b+/ü", b"content")
    assert client.get_object("a b+/ü").read() == b"content"
    assert client.get_object("a b+/ü", byte_range=(1, 3)).read() == b"ont"
    upload = client.init_multipart_upload("big").upload_id
    bodies = {2: os.urandom(PART), 1: os.urandom(PART), 3: b"end"}
    parts = []
    for number, body in bodies.items():
        sent = client.upload_part("big", upload, number, body)
        parts.append(PartInfo(number, sent.etag, size=len(body), part_crc=sent.crc))
    client.complete_multipart_upload("big", upload, parts)  # compares the CRC-64 of the whole
    assert client.get_object("big").read() == b"".join(bodies[number] for number in (1, 2, 3))
    assert client.copy_object(NAME, "big", "copy").crc == client.head_object("big").server_crc
    assert [found.key for found in oss2.ObjectIteratorV2(client)] == ["a b+/ü", "big", "copy"]
    assert sorted(client.batch_delete_objects(["big", "copy"]).deleted_keys) == ["big", "copy"]


def test_a_clock_that_is_off_is_refused(tmp_path: Path) -> None:
    with (
        running(tmp_path, clock=lambda: time.time() + 1000) as bucket,
        pytest.raises(oss2.exceptions.ServerError, match="RequestTimeTooSkewed"),
    ):
        plain_oss2(bucket, oss2.AuthV4(KEY_ID, KEY_SECRET)).list_objects_v2()


@pytest.mark.parametrize("header", ["x-oss-meta-sha256", "Content-Type", "Content-MD5"])
def test_a_header_that_was_changed_after_signing_is_refused(bucket: Bucket, header: str) -> None:
    client = plain_oss2(bucket, oss2.AuthV4(KEY_ID, KEY_SECRET))
    client.session = Meddling(header)
    with pytest.raises(oss2.exceptions.SignatureDoesNotMatch):
        client.put_object("a", b"x")


class Meddling(oss2.Session):  # type: ignore[misc]  # oss2 has no types
    """Changes a header on the way."""

    def __init__(self, header: str) -> None:
        super().__init__()
        self._header = header

    def do_request(self, req: oss2.http.Request, timeout: float) -> oss2.http.Response:
        req.headers[self._header] = "changed"
        return super().do_request(req, timeout)


def test_without_a_signature_nothing_is_allowed(bucket: Bucket) -> None:
    answer = requests.get(f"{bucket.url}/{NAME}/a", timeout=30)
    assert (answer.status_code, "<Code>AccessDenied</Code>" in answer.text) == (403, True)


def test_an_unknown_key_is_named(bucket: Bucket) -> None:
    with pytest.raises(oss2.exceptions.ServerError, match="InvalidAccessKeyId") as caught:
        plain_oss2(bucket, oss2.AuthV4("nobody", KEY_SECRET)).list_objects_v2()
    assert caught.value.ec == "0002-00000902"


def test_a_temporary_key_needs_its_token_and_ends(bucket: Bucket) -> None:
    key = bucket.issue(3600)
    plain_oss2(bucket, oss2.StsAuth(key.id, key.secret, key.token, "v4")).put_object("a", b"x")
    with pytest.raises(oss2.exceptions.ServerError, match="InvalidSecurityToken"):
        plain_oss2(bucket, oss2.StsAuth(key.id, key.secret, "other", "v4")).put_object("a", b"x")
    bucket.expire_keys()
    with pytest.raises(oss2.exceptions.ServerError, match="SecurityTokenExpired"):
        plain_oss2(bucket, oss2.StsAuth(key.id, key.secret, key.token, "v4")).put_object("a", b"x")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda parts: [*parts[:1], PartInfo(2, "0" * 32)], "InvalidPart"),
        (lambda parts: [*parts, PartInfo(7, parts[0].etag)], "InvalidPart"),
        (lambda parts: [*parts, parts[1]], "InvalidPartOrder"),
        (lambda parts: [], "MalformedXML"),
    ],
    ids=["another etag", "an absent part", "a part twice", "no part"],
)
def test_a_part_list_must_be_right(
    bucket: Bucket, change: Callable[[list[PartInfo]], list[PartInfo]], code: str
) -> None:
    client = plain_oss2(bucket, oss2.AuthV4(KEY_ID, KEY_SECRET))
    client.enable_crc = False
    upload = client.init_multipart_upload("big").upload_id
    sent = {number: client.upload_part("big", upload, number, os.urandom(PART)) for number in (1, 2)}
    parts = [PartInfo(number, answer.etag) for number, answer in sent.items()]
    with pytest.raises(oss2.exceptions.ServerError) as caught:
        client.complete_multipart_upload("big", upload, change(parts))
    assert caught.value.code == code
    client.complete_multipart_upload("big", upload, parts)


def test_a_small_part_in_the_middle_is_refused(bucket: Bucket) -> None:
    client = plain_oss2(bucket, oss2.AuthV4(KEY_ID, KEY_SECRET))
    upload = client.init_multipart_upload("big").upload_id
    parts = [PartInfo(number, client.upload_part("big", upload, number, b"x").etag) for number in (1, 2)]
    with pytest.raises(oss2.exceptions.ServerError, match="EntityTooSmall"):
        client.complete_multipart_upload("big", upload, parts)


def test_a_body_that_is_not_what_its_md5_says_is_refused(bucket: Bucket) -> None:
    client = plain_oss2(bucket, oss2.AuthV4(KEY_ID, KEY_SECRET))
    with pytest.raises(oss2.exceptions.InvalidDigest):
        client.put_object("a", b"x", headers={"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="})
    assert bucket_keys(bucket) == []


def test_what_the_bucket_does_without_is_not_taken_for_something_else(bucket: Bucket) -> None:
    client = plain_oss2(bucket, oss2.AuthV4(KEY_ID, KEY_SECRET))
    client.put_object("a", b"x")
    with pytest.raises(oss2.exceptions.ServerError, match="NotImplemented"):
        client.put_object_tagging("a", "k=v")
    assert client.get_object("a").read() == b"x"
