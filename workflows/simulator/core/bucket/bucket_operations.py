"""Operations on a bucket as a whole: listings, deleting many objects, and the few facts that clients ask for.

https://www.alibabacloud.com/help/en/oss/developer-reference/bucket-operations
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from workflows.simulator.core.bucket import documents
from workflows.simulator.core.bucket.errors import OssError, invalid_argument, not_implemented
from workflows.simulator.core.bucket.index import ObjectRow
from workflows.simulator.core.bucket.request import OssReply, OssRequest
from workflows.simulator.core.bucket.state import BucketState

PAGE = 1000
_LAST = "\U0010ffff"  # sorts behind every key that goes on
_OWNER: documents.Tree = [("ID", "0000000000000000"), ("DisplayName", "rehearsal")]


@dataclass(frozen=True)
class _Page:
    entries: list["ObjectRow | str"]  # objects, and common prefixes as text; in key order
    truncated: bool

    @property
    def last(self) -> str:
        entry = self.entries[-1]
        return entry if isinstance(entry, str) else entry.key


@dataclass(frozen=True)
class _Question:
    prefix: str
    delimiter: str
    limit: int
    encoding: str
    extra: documents.Tree = field(default_factory=list)

    @classmethod
    def of(cls, request: OssRequest) -> "_Question":
        query = request.query
        text = query.get("max-keys") or "100"
        if not text.isdigit() or not 1 <= int(text) <= PAGE:
            raise invalid_argument("Argument max-keys must be an integer between 1 and 1000.", "max-keys", text)
        return cls(query.get("prefix", ""), query.get("delimiter", ""), int(text), query.get("encoding-type", ""))


def list_objects(store: BucketState, request: OssRequest) -> OssReply:
    """ListObjects, the first version."""
    question = _Question.of(request)
    marker = request.query.get("marker", "")
    page = _page(store, request.bucket, question, marker)
    tree: documents.Tree = [
        ("Name", request.bucket),
        ("Prefix", documents.encoded(question.prefix, question.encoding)),
        ("Marker", documents.encoded(marker, question.encoding)),
        ("MaxKeys", str(question.limit)),
        ("Delimiter", documents.encoded(question.delimiter, question.encoding)),
        *([("EncodingType", question.encoding)] if question.encoding else []),
        ("IsTruncated", documents.flag(page.truncated)),
        *([("NextMarker", documents.encoded(page.last, question.encoding))] if page.truncated else []),
        *_entries(page, question.encoding, owner=True),
    ]
    return documents.reply("ListBucketResult", tree)


def list_objects_v2(store: BucketState, request: OssRequest) -> OssReply:
    question = _Question.of(request)
    token, start = request.query.get("continuation-token", ""), request.query.get("start-after", "")
    marker = _marker(token) if token else start
    page = _page(store, request.bucket, question, marker)
    tree: documents.Tree = [
        ("Name", request.bucket),
        ("Prefix", documents.encoded(question.prefix, question.encoding)),
        *([("StartAfter", documents.encoded(start, question.encoding))] if start else []),
        *([("ContinuationToken", token)] if token else []),
        ("MaxKeys", str(question.limit)),
        ("Delimiter", documents.encoded(question.delimiter, question.encoding)),
        *([("EncodingType", question.encoding)] if question.encoding else []),
        ("IsTruncated", documents.flag(page.truncated)),
        *([("NextContinuationToken", base64.b64encode(page.last.encode()).decode())] if page.truncated else []),
        ("KeyCount", str(len(page.entries))),
        *_entries(page, question.encoding, owner=request.query.get("fetch-owner") == "true"),
    ]
    return documents.reply("ListBucketResult", tree)


def _marker(token: str) -> str:
    try:
        return base64.b64decode(token, validate=True).decode()
    except ValueError as error:
        raise invalid_argument("The continuation token is invalid.", "continuation-token", token) from error


def _page(store: BucketState, bucket: str, question: _Question, marker: str) -> _Page:
    store.objects.bucket_created(bucket)
    entries = list(islice(_walk(store, bucket, question, marker), question.limit + 1))
    return _Page(entries[: question.limit], len(entries) > question.limit)


def _walk(store: BucketState, bucket: str, question: _Question, marker: str) -> Iterator[ObjectRow | str]:
    """Objects and common prefixes behind `marker`, in key order."""
    cursor = marker
    while rows := store.objects.after(bucket, question.prefix, cursor, PAGE + 1):
        for row in rows:
            cursor = row.key
            group = _group(row.key, question)
            if not group:
                yield row
                continue
            if group > marker:
                yield group
            cursor = group + _LAST
            break  # one entry stands for the whole folder: look again behind it


def _group(key: str, question: _Question) -> str:
    """The common prefix that stands for `key`; empty if the key stands for itself."""
    rest = key[len(question.prefix) :]
    head, found, _ = rest.partition(question.delimiter) if question.delimiter else (rest, "", "")
    return question.prefix + head + found if found else ""


def _entries(page: _Page, encoding: str, *, owner: bool) -> documents.Tree:
    tree: documents.Tree = []
    for entry in page.entries:
        if isinstance(entry, ObjectRow):
            tree.append(("Contents", _contents(entry, encoding, owner=owner)))
        else:
            tree.append(("CommonPrefixes", [("Prefix", documents.encoded(entry, encoding))]))
    return tree


def _contents(row: ObjectRow, encoding: str, *, owner: bool) -> documents.Tree:
    return [
        ("Key", documents.encoded(row.key, encoding)),
        ("LastModified", documents.timestamp(row.modified)),
        ("ETag", f'"{row.etag}"'),
        ("Type", row.kind),
        ("Size", str(row.size)),
        ("StorageClass", "Standard"),
        *([("Owner", _OWNER)] if owner else []),
    ]


def list_uploads(store: BucketState, request: OssRequest) -> OssReply:
    store.objects.bucket_created(request.bucket)
    query = request.query
    if query.get("delimiter"):
        raise not_implemented("delimiter of ListMultipartUploads")
    encoding = query.get("encoding-type", "")
    limit = min(int(query.get("max-uploads") or PAGE), PAGE)
    key_marker = query.get("key-marker", "")
    id_marker = query.get("upload-id-marker", "") if key_marker else ""
    found = store.uploads.after(request.bucket, query.get("prefix", ""), (key_marker, id_marker), limit + 1)
    uploads, truncated = found[:limit], len(found) > limit
    tree: documents.Tree = [
        ("Bucket", request.bucket),
        *([("EncodingType", encoding)] if encoding else []),
        ("KeyMarker", documents.encoded(key_marker, encoding)),
        ("UploadIdMarker", id_marker),
        ("NextKeyMarker", documents.encoded(uploads[-1].key, encoding) if truncated else ""),
        ("NextUploadIdMarker", uploads[-1].id if truncated else ""),
        ("Delimiter", ""),
        ("Prefix", documents.encoded(query.get("prefix", ""), encoding)),
        ("MaxUploads", str(limit)),
        ("IsTruncated", documents.flag(truncated)),
    ]
    for upload in uploads:
        entry: documents.Tree = [
            ("Key", documents.encoded(upload.key, encoding)),
            ("UploadId", upload.id),
            ("StorageClass", "Standard"),
            ("Initiated", documents.timestamp(upload.initiated)),
        ]
        tree.append(("Upload", entry))
    return documents.reply("ListMultipartUploadsResult", tree)


def delete_objects(store: BucketState, request: OssRequest) -> OssReply:
    """DeleteMultipleObjects: up to 1000 keys; Content-MD5 is required."""
    store.objects.bucket_created(request.bucket)
    body = request.body.read(request.length)
    md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    wanted = request.header("Content-MD5")
    if not wanted:
        raise OssError(
            400, "MissingArgument", "Missing Some Required Arguments.", details={"ArgumentName": "Content-MD5"}
        )
    if wanted != md5:
        raise OssError(400, "InvalidDigest", "The Content-MD5 you specified did not match what we received.")
    keys, quiet = documents.keys_to_delete(body)
    if not 1 <= len(keys) <= PAGE:
        raise OssError(400, "MalformedXML", "The XML you provided was not well-formed: 1 to 1000 keys are allowed.")
    for key in keys:
        store.objects.delete(request.bucket, key)
    encoding = request.query.get("encoding-type", "")
    tree: documents.Tree = [("EncodingType", encoding)] if encoding else []
    if not quiet:
        tree += [("Deleted", [("Key", documents.encoded(key, encoding))]) for key in keys]
    return documents.reply("DeleteResult", tree)


def put_bucket(store: BucketState, request: OssRequest) -> OssReply:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", request.bucket):
        raise OssError(400, "InvalidBucketName", "The specified bucket is not valid.")
    store.objects.create_bucket(request.bucket, store.clock())
    return OssReply(200, {"Location": f"/{request.bucket}"})


def delete_bucket(store: BucketState, request: OssRequest) -> OssReply:
    store.objects.bucket_created(request.bucket)
    if store.objects.after(request.bucket, "", "", 1) or store.uploads.after(request.bucket, "", ("", ""), 1):
        raise OssError(409, "BucketNotEmpty", "The bucket has objects or uploads. Please delete them first.")
    store.objects.delete_bucket(request.bucket)
    return OssReply(204)


def get_bucket_info(store: BucketState, request: OssRequest) -> OssReply:
    created = store.objects.bucket_created(request.bucket)
    bucket: documents.Tree = [
        ("Name", request.bucket),
        ("CreationDate", documents.timestamp(created)),
        ("Location", "rehearsal"),
        ("ExtranetEndpoint", request.header("Host")),
        ("IntranetEndpoint", request.header("Host")),
        ("StorageClass", "Standard"),
        ("DataRedundancyType", "LRS"),
        ("Owner", _OWNER),
        ("AccessControlList", [("Grant", "private")]),
    ]
    return documents.reply("BucketInfo", [("Bucket", bucket)])


def get_bucket_location(store: BucketState, request: OssRequest) -> OssReply:
    store.objects.bucket_created(request.bucket)
    return documents.reply("LocationConstraint", "rehearsal")


def get_bucket_acl(store: BucketState, request: OssRequest) -> OssReply:
    store.objects.bucket_created(request.bucket)
    return documents.reply("AccessControlPolicy", [("Owner", _OWNER), ("AccessControlList", [("Grant", "private")])])


def list_buckets(store: BucketState, request: OssRequest) -> OssReply:
    prefix = request.query.get("prefix", "")
    entries: documents.Tree = [
        ("Bucket", [("Name", name), ("CreationDate", documents.timestamp(created)), ("Location", "rehearsal")])
        for name, created in store.objects.buckets()
        if name.startswith(prefix)
    ]
    return documents.reply("ListAllMyBucketsResult", [("Owner", _OWNER), ("Buckets", entries)])
