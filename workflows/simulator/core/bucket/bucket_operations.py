"""Operations on a bucket as a whole: listings of objects and uploads, and deletion of many objects.

https://www.alibabacloud.com/help/en/oss/developer-reference/bucket-operations
"""

import base64
import hashlib

from workflows.simulator.core.bucket import documents
from workflows.simulator.core.bucket.errors import OssError, invalid_argument
from workflows.simulator.core.bucket.request import OssReply, OssRequest
from workflows.simulator.core.bucket.state import BucketState

PAGE = 1000


def list_objects_v2(store: BucketState, request: OssRequest) -> OssReply:
    store.objects.bucket_created(request.bucket)
    query = request.query
    prefix, token, start = (query.get(name, "") for name in ("prefix", "continuation-token", "start-after"))
    encoding, text = query.get("encoding-type", ""), query.get("max-keys") or "100"
    if not text.isdigit() or not 1 <= int(text) <= PAGE:
        raise invalid_argument("Argument max-keys must be an integer between 1 and 1000.", "max-keys", text)
    limit = int(text)
    found = store.objects.after(request.bucket, prefix, _marker(token) if token else start, limit + 1)
    page, truncated = found[:limit], len(found) > limit
    tree: documents.Tree = [
        ("Name", request.bucket),
        ("Prefix", documents.encoded(prefix, encoding)),
        *([("StartAfter", documents.encoded(start, encoding))] if start else []),
        *([("ContinuationToken", token)] if token else []),
        ("MaxKeys", text),
        ("Delimiter", ""),
        *([("EncodingType", encoding)] if encoding else []),
        ("IsTruncated", documents.flag(truncated)),
        *([("NextContinuationToken", base64.b64encode(page[-1].key.encode()).decode())] if truncated else []),
        ("KeyCount", str(len(page))),
    ]
    for row in page:
        contents: documents.Tree = [
            ("Key", documents.encoded(row.key, encoding)),
            ("LastModified", documents.timestamp(row.modified)),
            ("ETag", f'"{row.etag}"'),
            ("Type", row.kind),
            ("Size", str(row.size)),
            ("StorageClass", "Standard"),
        ]
        tree.append(("Contents", contents))
    return documents.reply("ListBucketResult", tree)


def _marker(token: str) -> str:
    try:
        return base64.b64decode(token, validate=True).decode()
    except ValueError as error:
        raise invalid_argument("The continuation token is invalid.", "continuation-token", token) from error


def list_uploads(store: BucketState, request: OssRequest) -> OssReply:
    store.objects.bucket_created(request.bucket)
    query = request.query
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
