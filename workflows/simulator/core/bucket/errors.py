"""Errors of OSS: a status, a code, and an XML body with the request id.

https://www.alibabacloud.com/help/en/oss/support/http-status-codes-and-error-codes
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape


@dataclass
class OssError(Exception):  # it is an answer, like Blocked
    status: int
    code: str
    message: str
    ec: str = ""  # OSS's number of the precise cause; empty where it is not publicly known
    details: Mapping[str, str] = field(default_factory=dict)  # more elements of the body
    headers: Mapping[str, str] = field(default_factory=dict)

    def xml(self, request_id: str, host: str) -> bytes:
        elements = {
            "Code": self.code,
            "Message": self.message,
            "RequestId": request_id,
            "HostId": host,
            **self.details,
            **({"EC": self.ec, "RecommendDoc": f"https://api.aliyun.com/troubleshoot?q={self.ec}"} if self.ec else {}),
        }
        body = "".join(f"  <{name}>{escape(value)}</{name}>\n" for name, value in elements.items())
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>\n{body}</Error>\n'.encode()


def access_denied(message: str, ec: str = "0003-00000001") -> OssError:
    return OssError(403, "AccessDenied", message, ec)


def no_such_bucket(bucket: str) -> OssError:
    return OssError(
        404, "NoSuchBucket", "The specified bucket does not exist.", "0015-00000101", {"BucketName": bucket}
    )


def no_such_key(key: str) -> OssError:
    return OssError(404, "NoSuchKey", "The specified key does not exist.", "0026-00000001", {"Key": key})


def no_such_upload(upload: str) -> OssError:
    message = (
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
        "completed."
    )
    return OssError(404, "NoSuchUpload", message, "0042-00000002", {"UploadId": upload})


def invalid_argument(message: str, name: str, value: str, ec: str = "") -> OssError:
    return OssError(400, "InvalidArgument", message, ec, {"ArgumentName": name, "ArgumentValue": value})


def exists_already(key: str) -> OssError:
    message = "The object you specified already exists and can not be overwritten."
    return OssError(409, "FileAlreadyExists", message, details={"Key": key})


def not_implemented(header: str) -> OssError:
    message = "A header or parameter you provided implies functionality that is not implemented."
    return OssError(501, "NotImplemented", message, details={"Header": header})
