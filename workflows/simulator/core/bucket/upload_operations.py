"""Multipart uploads: InitiateMultipartUpload, UploadPart, UploadPartCopy, ListParts, CompleteMultipartUpload and
AbortMultipartUpload.

https://www.alibabacloud.com/help/en/oss/developer-reference/multipart-upload-operations
"""

import hashlib
import os
import re
import sqlite3
import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce

from steps.transfer import hashing
from workflows.simulator.core.bucket import documents
from workflows.simulator.core.bucket.errors import OssError, exists_already, invalid_argument
from workflows.simulator.core.bucket.index import ObjectRow, PartRow, UploadRow
from workflows.simulator.core.bucket.object_operations import (
    CRC64_HEADER,
    DEFAULT_TYPE,
    check_key,
    check_md5,
    copy_source,
    forbids_overwrite,
    sums,
)
from workflows.simulator.core.bucket.receive import Received, receive
from workflows.simulator.core.bucket.request import OssReply, OssRequest
from workflows.simulator.core.bucket.state import BucketState
from workflows.simulator.core.bucket.uploads import Slot

MAX_PARTS = 10_000
MAX_PART = 5 << 30  # bytes
MIN_PART = 100 << 10  # bytes, of every part but the last
PAGE = 1000


def initiate(store: BucketState, request: OssRequest) -> OssReply:
    store.objects.bucket_created(request.bucket)
    check_key(request.key)
    if forbids_overwrite(request) and store.objects.find(request.bucket, request.key):
        raise exists_already(request.key)
    upload = UploadRow(
        *(uuid.uuid4().hex.upper(), request.bucket, request.key, request.header("Content-Type", DEFAULT_TYPE)),
        *(request.metadata, store.clock()),
    )
    store.uploads.start(upload)
    encoding = request.query.get("encoding-type", "")
    tree: documents.Tree = [
        ("Bucket", upload.bucket),
        ("Key", documents.encoded(upload.key, encoding)),
        ("UploadId", upload.id),
    ]
    return documents.reply("InitiateMultipartUploadResult", tree)


def upload_part(store: BucketState, request: OssRequest) -> OssReply:
    upload = _upload(store, request)
    number = _part_number(request)
    if request.length > MAX_PART:
        raise OssError(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.")
    slot = store.uploads.slot(upload, number, request.length, keep=store.keep == "bytes")
    received = _take_part(store, request, slot)
    store.uploads.keep(slot, received, store.clock())
    return OssReply(headers=sums(received))


def upload_part_copy(store: BucketState, request: OssRequest) -> OssReply:
    upload = _upload(store, request)
    number = _part_number(request)
    source, file = store.objects.open(*copy_source(request))
    with file:
        start, size = _copy_range(request, source)
        file.seek(start)
        slot = store.uploads.slot(upload, number, size, keep=store.keep == "bytes")
        received = _take_part(store, replace(request, body=file, length=size), slot)
    part = store.uploads.keep(slot, received, store.clock())
    tree: documents.Tree = [("LastModified", documents.timestamp(part.modified)), ("ETag", f'"{part.etag}"')]
    reply = documents.reply("CopyPartResult", tree)
    return OssReply(200, {**reply.headers, "ETag": f'"{part.etag}"', CRC64_HEADER: str(part.crc64)}, reply.body)


def list_parts(store: BucketState, request: OssRequest) -> OssReply:
    upload = _upload(store, request)
    encoding = request.query.get("encoding-type", "")
    after = int(request.query.get("part-number-marker") or 0)
    limit = min(int(request.query.get("max-parts") or PAGE), PAGE)
    found = store.uploads.parts(upload, after, limit + 1)
    parts = found[:limit]
    tree: documents.Tree = [
        ("Bucket", upload.bucket),
        ("Key", documents.encoded(upload.key, encoding)),
        ("UploadId", upload.id),
        *([("EncodingType", encoding)] if encoding else []),
        ("StorageClass", "Standard"),
        ("PartNumberMarker", str(after)),
        ("NextPartNumberMarker", str(parts[-1].number) if parts else "0"),
        ("MaxParts", str(limit)),
        ("IsTruncated", documents.flag(len(found) > limit)),
        *(("Part", _part(part)) for part in parts),
    ]
    return documents.reply("ListPartsResult", tree)


def _part(part: PartRow) -> documents.Tree:
    return [
        ("PartNumber", str(part.number)),
        ("LastModified", documents.timestamp(part.modified)),
        ("ETag", f'"{part.etag}"'),
        ("HashCrc64ecma", str(part.crc64)),
        ("Size", str(part.size)),
    ]


def complete(store: BucketState, request: OssRequest) -> OssReply:
    upload = _upload(store, request)
    forbid = forbids_overwrite(request)
    if forbid and store.objects.find(upload.bucket, upload.key):
        raise exists_already(upload.key)
    named = documents.part_list(request.body.read(request.length))
    parts = _chosen(named, store.uploads.parts(upload))
    row = _object(upload, parts, store)
    store.objects.put(row, forbid_overwrite=forbid, also=partial(_forget, store, upload))
    store.uploads.clear(upload)
    encoding = request.query.get("encoding-type", "")
    tree: documents.Tree = [
        *([("EncodingType", encoding)] if encoding else []),
        ("Location", f"http://{request.header('Host')}/{upload.bucket}/{documents.encoded(upload.key, 'url')}"),
        ("Bucket", upload.bucket),
        ("Key", documents.encoded(upload.key, encoding)),
        ("ETag", f'"{row.etag}"'),
    ]
    reply = documents.reply("CompleteMultipartUploadResult", tree)
    return OssReply(200, {**reply.headers, "ETag": f'"{row.etag}"', CRC64_HEADER: str(row.crc64)}, reply.body)


def abort(store: BucketState, request: OssRequest) -> OssReply:
    store.uploads.abort(_upload(store, request))
    return OssReply(204)


def _upload(store: BucketState, request: OssRequest) -> UploadRow:
    store.objects.bucket_created(request.bucket)
    return store.uploads.get(request.query["uploadId"], request.bucket, request.key)


def _part_number(request: OssRequest) -> int:
    text = request.query["partNumber"]
    if not text.isdigit() or not 1 <= int(text) <= MAX_PARTS:
        message = "Part number must be an integer between 1 and 10000, inclusive."
        raise invalid_argument(message, "partNumber", text)
    return int(text)


def _take_part(store: BucketState, request: OssRequest, slot: Slot) -> Received:
    """Receive the body into its slot, and check Content-MD5. Raises OssError."""
    wanted = request.header("Content-MD5")
    md5 = bool(wanted) or store.keep == "bytes"
    try:
        received = _receive_part(request, slot, md5=md5)
        check_md5(wanted, received)
    except Exception:
        store.uploads.release(slot)
        raise
    return received


def _receive_part(request: OssRequest, slot: Slot, *, md5: bool) -> Received:
    if slot.folder is None:
        return receive(request.body, request.length, None, md5=md5, flip=request.flip)
    descriptor = os.open(slot.folder / slot.file, os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        return receive(request.body, request.length, slot.writer(descriptor), md5=md5, flip=request.flip)
    finally:
        os.close(descriptor)


def _copy_range(request: OssRequest, source: ObjectRow) -> tuple[int, int]:
    """Offset and number of bytes that x-oss-copy-source-range names; without it, all."""
    text = request.header("x-oss-copy-source-range")
    if not text:
        return 0, source.size
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", text)
    first, last = (int(number) for number in found.groups()) if found else (0, -1)
    if not 0 <= first <= last < source.size:
        raise OssError(416, "InvalidRange", "The requested range cannot be satisfied", details={"RangeRequested": text})
    return first, last - first + 1


def _chosen(named: Sequence[tuple[int, str]], stored: Sequence[PartRow]) -> list[PartRow]:
    """The parts that the client named, as it knows them. Raises OssError."""
    numbers = [number for number, _ in named]
    if numbers != sorted(set(numbers)):
        raise OssError(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
    by_number = {part.number: part for part in stored}
    parts = []
    for number, etag in named:
        part = by_number.get(number)
        if part is None or part.etag != etag:
            message = (
                "One or more of the specified parts could not be found or the specified entity tag might not have "
                "matched the part's entity tag."
            )
            raise OssError(400, "InvalidPart", message, details={"PartNumber": str(number)})
        parts.append(part)
    if any(part.size < MIN_PART for part in parts[:-1]):
        message = "Your proposed upload smaller than the minimum allowed size."
        raise OssError(400, "EntityTooSmall", message, details={"MinSizeAllowed": str(MIN_PART)})
    return parts


def _object(upload: UploadRow, parts: Sequence[PartRow], store: BucketState) -> ObjectRow:
    blob = ""
    if all(part.file for part in parts):
        draft = store.objects.draft()
        store.uploads.assemble(upload, parts, draft)
        blob = store.objects.adopt(draft)
    etags = b"".join(bytes.fromhex(part.etag) for part in parts)
    return ObjectRow(
        *(upload.bucket, upload.key, blob, sum(part.size for part in parts)),
        f"{hashlib.md5(etags, usedforsecurity=False).hexdigest().upper()}-{len(parts)}",
        reduce(lambda crc64, part: hashing.joined(crc64, part.crc64, part.size), parts, 0),
        *(upload.content_type, upload.metadata, "Multipart", store.clock()),
    )


def _forget(store: BucketState, upload: UploadRow, rows: sqlite3.Connection) -> None:
    store.uploads.get(upload.id, upload.bucket, upload.key)  # another request may have completed it
    store.uploads.forget(rows, upload)
