"""PutObject, GetObject, HeadObject, CopyObject, DeleteObject.

https://www.alibabacloud.com/help/en/oss/developer-reference/object-operations
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from email.utils import formatdate
from typing import BinaryIO
from urllib.parse import unquote

from workflows.simulator.core.bucket import documents
from workflows.simulator.core.bucket.errors import OssError, exists_already, invalid_argument
from workflows.simulator.core.bucket.index import ObjectRow
from workflows.simulator.core.bucket.receive import Received, receive
from workflows.simulator.core.bucket.request import METADATA, FileBody, OssReply, OssRequest
from workflows.simulator.core.bucket.state import BucketState

CRC64_HEADER = "x-oss-hash-crc64ecma"
MAX_COPY = 1 << 30  # bytes; larger objects are copied part by part
MAX_KEY = 1023  # bytes
DEFAULT_TYPE = "application/octet-stream"


def put_object(store: BucketState, request: OssRequest) -> OssReply:
    store.objects.bucket_created(request.bucket)
    check_key(request.key)
    forbid = forbids_overwrite(request)
    if forbid and store.objects.find(request.bucket, request.key):
        raise exists_already(request.key)
    draft = store.objects.draft()
    keep = store.keeps(request.length)
    with draft.open("wb") as file:
        received = take(store, request, file if keep else None)
    blob = store.objects.adopt(draft) if keep else ""
    row = ObjectRow(
        *(request.bucket, request.key, blob, received.size, received.etag, received.crc64),
        request.header("Content-Type", DEFAULT_TYPE),
        *(request.metadata, "Normal", store.clock()),
    )
    store.objects.put(row, forbid_overwrite=forbid)
    return OssReply(headers=sums(received))


def take(store: BucketState, request: OssRequest, file: BinaryIO | None) -> Received:
    """Receive the body, write it to `file`, and check Content-MD5. Raises OssError."""
    wanted = request.header("Content-MD5")

    def write(chunk: memoryview, _offset: int) -> None:
        if file:
            file.write(chunk)

    md5 = bool(wanted) or store.keep == "bytes"
    received = receive(request.body, request.length, write, md5=md5, flip=request.flip)
    check_md5(wanted, received)
    return received


def check_md5(wanted: str, received: Received) -> None:
    if wanted and received.md5 and base64.b64encode(received.md5).decode() != wanted:
        message = "The Content-MD5 you specified did not match what we received."
        raise OssError(400, "InvalidDigest", message, details={"Content-MD5": wanted})


def sums(received: Received) -> dict[str, str]:
    headers = {"ETag": f'"{received.etag}"', CRC64_HEADER: str(received.crc64)}
    if received.md5:
        headers["Content-MD5"] = base64.b64encode(received.md5).decode()
    return headers


def get_object(store: BucketState, request: OssRequest) -> OssReply:
    store.objects.bucket_created(request.bucket)
    row, file = store.objects.open(request.bucket, request.key)
    try:
        check_conditions(request, row)
        span = _range(request, row)
    except OssError:
        file.close()
        raise
    if span is None:
        return OssReply(200, describe(row), FileBody(file, 0, row.size))
    start, end = span
    headers = {**describe(row), "Content-Range": f"bytes {start}-{end}/{row.size}"}
    return OssReply(206, headers, FileBody(file, start, end - start + 1))


def head_object(store: BucketState, request: OssRequest) -> OssReply:
    store.objects.bucket_created(request.bucket)
    row = store.objects.get(request.bucket, request.key)
    check_conditions(request, row)
    return OssReply(200, describe(row), length=row.size)


def check_conditions(request: OssRequest, row: ObjectRow) -> None:
    wanted, unwanted = request.header("If-Match").strip('"'), request.header("If-None-Match").strip('"')
    if wanted and wanted.upper() != row.etag:
        message = "At least one of the pre-conditions you specified did not hold."
        raise OssError(412, "PreconditionFailed", message, details={"Condition": "If-Match"})
    if unwanted and unwanted.upper() == row.etag:
        raise OssError(304, "NotModified", "Not Modified")


def describe(row: ObjectRow) -> dict[str, str]:
    return {
        "Content-Type": row.content_type,
        "ETag": f'"{row.etag}"',
        "Last-Modified": formatdate(row.modified, usegmt=True),
        "Accept-Ranges": "bytes",
        "x-oss-object-type": row.kind,
        "x-oss-storage-class": "Standard",
        CRC64_HEADER: str(row.crc64),
        **{METADATA + name: value for name, value in row.metadata.items()},
    }


def _range(request: OssRequest, row: ObjectRow) -> tuple[int, int] | None:
    """First and last byte to send, or None for all. By default OSS ignores a range that does not fit.

    https://www.alibabacloud.com/help/en/oss/developer-reference/getobject (x-oss-range-behavior)
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.header("Range"))
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if first:
        start, end = int(first), int(last) if last else row.size - 1
    else:
        start, end = max(0, row.size - int(last)), row.size - 1
    standard = request.header("x-oss-range-behavior") == "standard"
    if start >= row.size or end < start:
        if standard:
            details = {"ActualObjectSize": str(row.size), "RangeRequested": f"{start}-{end}"}
            raise OssError(416, "InvalidRange", "The requested range cannot be satisfied", details=details)
        return None
    return (start, min(end, row.size - 1)) if standard or end < row.size else None


def copy_object(store: BucketState, request: OssRequest) -> OssReply:
    store.objects.bucket_created(request.bucket)
    check_key(request.key)
    source = copy_source(request)
    store.objects.bucket_created(source[0])
    replaces = request.header("x-oss-metadata-directive", "COPY").upper() == "REPLACE"

    def make(row: ObjectRow) -> ObjectRow:
        if row.size > MAX_COPY:
            raise OssError(400, "EntityTooLarge", "Your proposed copy exceeds the maximum allowed object size.")
        metadata: Mapping[str, str] = request.metadata if replaces else row.metadata
        return replace(row, bucket=request.bucket, key=request.key, metadata=metadata, modified=store.clock())

    row = store.objects.copy(source, make, forbids_overwrite(request))
    tree: documents.Tree = [("ETag", f'"{row.etag}"'), ("LastModified", documents.timestamp(row.modified))]
    headers = {"Content-Type": documents.CONTENT_TYPE, "ETag": f'"{row.etag}"', CRC64_HEADER: str(row.crc64)}
    return OssReply(200, headers, documents.document("CopyObjectResult", tree))


def copy_source(request: OssRequest) -> tuple[str, str]:
    """Bucket and key of x-oss-copy-source."""
    text = request.header("x-oss-copy-source")
    bucket, _, key = unquote(text).lstrip("/").partition("/")
    if not bucket or not key:
        raise invalid_argument("Copy Source must mention the source bucket and key.", "x-oss-copy-source", text)
    return bucket, key


def delete_object(store: BucketState, request: OssRequest) -> OssReply:
    store.objects.bucket_created(request.bucket)
    store.objects.delete(request.bucket, request.key)
    return OssReply(204)


def check_key(key: str) -> None:
    if len(key.encode()) > MAX_KEY or key.startswith(("/", "\\")):
        raise OssError(400, "InvalidObjectName", "The specified object is not valid.", details={"ObjectName": key})


def forbids_overwrite(request: OssRequest) -> bool:
    return request.header("x-oss-forbid-overwrite").lower() == "true"
