"""The operation of a request, and the RAM action that it needs."""

from collections.abc import Callable
from dataclasses import dataclass

from workflows.simulator.core.bucket import bucket_operations, object_operations, upload_operations
from workflows.simulator.core.bucket.errors import OssError, not_implemented
from workflows.simulator.core.bucket.request import OssReply, OssRequest
from workflows.simulator.core.bucket.state import BucketState


@dataclass(frozen=True)
class Operation:
    """One operation; of several that match a request, the first one counts."""

    method: str
    level: str  # bucket or object
    action: str  # of RAM: https://www.alibabacloud.com/help/en/oss/user-guide/ram-policy-overview
    run: Callable[[BucketState, OssRequest], OssReply]
    query: frozenset[str] = frozenset()  # parameters that must be there
    header: str = ""  # header that must be there

    def matches(self, request: OssRequest) -> bool:
        return (
            self.method == request.method
            and self.level == _level(request)
            and self.query <= request.query.keys()
            and (not self.header or bool(request.header(self.header)))
        )


_COPY = "x-oss-copy-source"
_PART = frozenset(("uploadId", "partNumber"))
_UPLOAD = frozenset(("uploadId",))

OPERATIONS = (
    Operation("GET", "bucket", "oss:ListMultipartUploads", bucket_operations.list_uploads, frozenset(("uploads",))),
    Operation("GET", "bucket", "oss:ListObjects", bucket_operations.list_objects_v2, frozenset(("list-type",))),
    Operation("POST", "bucket", "oss:DeleteObject", bucket_operations.delete_objects, frozenset(("delete",))),
    Operation("PUT", "object", "oss:PutObject", upload_operations.upload_part_copy, _PART, _COPY),
    Operation("PUT", "object", "oss:PutObject", upload_operations.upload_part, _PART),
    Operation("PUT", "object", "oss:PutObject", object_operations.copy_object, header=_COPY),
    Operation("PUT", "object", "oss:PutObject", object_operations.put_object),
    Operation("POST", "object", "oss:PutObject", upload_operations.initiate, frozenset(("uploads",))),
    Operation("POST", "object", "oss:PutObject", upload_operations.complete, _UPLOAD),
    Operation("GET", "object", "oss:ListParts", upload_operations.list_parts, _UPLOAD),
    Operation("GET", "object", "oss:GetObject", object_operations.get_object),
    Operation("HEAD", "object", "oss:GetObject", object_operations.head_object),
    Operation("DELETE", "object", "oss:AbortMultipartUpload", upload_operations.abort, _UPLOAD),
    Operation("DELETE", "object", "oss:DeleteObject", object_operations.delete_object),
)

# A request with another parameter is for an operation that this bucket lacks, and must not pass for a plain one.
_KNOWN = frozenset(
    {
        *("list-type", "prefix", "delimiter", "max-keys", "continuation-token", "start-after", "fetch-owner"),
        *("encoding-type", "delete", "uploads", "uploadId", "partNumber", "max-parts", "part-number-marker"),
        *("key-marker", "upload-id-marker", "max-uploads", "objectMeta", "sequential"),
    }
)


def operation(request: OssRequest) -> Operation:
    """Raises OssError for one that this bucket does not have."""
    unknown = request.query.keys() - _KNOWN
    if unknown or request.query.get("delimiter"):
        raise not_implemented(min(unknown, default="delimiter"))
    for candidate in OPERATIONS:
        if candidate.matches(request):
            return candidate
    details = {"Method": request.method, "ResourceType": _level(request)}
    raise OssError(
        405, "MethodNotAllowed", "The specified method is not allowed against this resource.", details=details
    )


def _level(request: OssRequest) -> str:
    return "object" if request.key else "bucket"
