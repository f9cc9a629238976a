"""Verifies that a request was signed with a known key: versions 1 and 4, in the header or in the address.

Version 1: https://www.alibabacloud.com/help/en/oss/developer-reference/include-signatures-in-the-authorization-header
Version 4: https://www.alibabacloud.com/help/en/oss/developer-reference/recommend-to-use-signature-version-4
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import reduce
from urllib.parse import quote

from workflows.simulator.core.bucket.errors import OssError, access_denied, invalid_argument
from workflows.simulator.core.bucket.keys import Key, KeyRing
from workflows.simulator.core.bucket.request import OssRequest

MAX_SKEW = 900  # seconds
V4 = "OSS4-HMAC-SHA256"
_V4_SCOPE_PARTS = 4  # date, region, product, aliyun_v4_request

# Query parameters that version 1 signs.
# https://www.alibabacloud.com/help/en/oss/developer-reference/include-signatures-in-the-authorization-header
_SUBRESOURCES = frozenset(
    [
        "acl",
        "append",
        "asyncFetch",
        "bucketInfo",
        "callback",
        "callback-var",
        "cname",
        "comp",
        "continuation-token",
        "cors",
        "delete",
        "encryption",
        "endTime",
        "group",
        "inventory",
        "inventoryId",
        "lifecycle",
        "link",
        "live",
        "location",
        "logging",
        "objectInfo",
        "objectMeta",
        "partNumber",
        "policy",
        "position",
        "qos",
        "qosInfo",
        "referer",
        "regionList",
        "replication",
        "replicationLocation",
        "replicationProgress",
        "requestPayment",
        "resourceGroup",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
        "restore",
        "security-token",
        "sequential",
        "startTime",
        "stat",
        "status",
        "style",
        "styleName",
        "symlink",
        "tagging",
        "transferAcceleration",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "vod",
        "website",
        "worm",
        "wormExtend",
        "wormId",
        "x-oss-async-process",
        "x-oss-process",
        "x-oss-request-payer",
        "x-oss-traffic-limit",
    ]
)


@dataclass(frozen=True)
class _Claim:
    """What a request says about itself."""

    key_id: str
    signature: str
    token: str


@dataclass(frozen=True)
class _Signed:
    signature: str
    details: dict[str, str]  # what OSS shows of its own calculation when the signature is another


def verify(request: OssRequest, keys: KeyRing, now: float, region: str = "") -> str:
    """The id of the key that signed the request; an empty `region` accepts any. Raises OssError."""
    authorization = request.header("Authorization")
    if authorization.startswith(V4):
        return _header_v4(request, authorization, keys, now, region)
    if authorization.startswith("OSS "):
        return _header_v1(request, authorization, keys, now)
    if "x-oss-signature" in request.query:
        return _query_v4(request, keys, now, region)
    if "Signature" in request.query:
        return _query_v1(request, keys, now)
    if authorization:
        raise invalid_argument("Authorization header is invalid.", "Authorization", authorization.split()[0])
    raise access_denied("You have no right to access this object because of bucket acl.")


def _header_v1(request: OssRequest, authorization: str, keys: KeyRing, now: float) -> str:
    key_id, _, signature = authorization.removeprefix("OSS ").partition(":")
    key = _key(_Claim(key_id, signature, request.header("x-oss-security-token")), keys, now)
    date = request.header("x-oss-date") or request.header("Date")
    _check_clock(_http_time(date), now)
    return _compare(key, signature, _sign_v1(key, request, date), "0002-00000040")


def _query_v1(request: OssRequest, keys: KeyRing, now: float) -> str:
    query = request.query
    token = query.get("security-token", "")
    key = _key(_Claim(query.get("OSSAccessKeyId", ""), query["Signature"], token), keys, now)
    expires = query.get("Expires", "")
    if not expires.isdigit() or int(expires) < now:
        raise access_denied("Request has expired.", "0002-00000069")
    return _compare(key, query["Signature"], _sign_v1(key, request, expires), "0002-00000040")


def _sign_v1(key: Key, request: OssRequest, date: str) -> _Signed:
    resource = f"/{request.bucket}/{request.key}" if request.bucket else "/"
    signed = sorted((name, value) for name, value in request.query.items() if name in _SUBRESOURCES)
    if signed:
        resource += "?" + "&".join(f"{name}={value}" if value else name for name, value in signed)
    headers = _lines((name, value) for name, value in _headers(request) if name.startswith("x-oss-"))
    first = (request.method, request.header("Content-MD5"), request.header("Content-Type"), date)
    # Header values are bytes read as Latin-1, the resource is text: each goes back to its own bytes.
    text = ("\n".join(first) + "\n" + headers).encode("latin-1") + resource.encode()
    signature = base64.b64encode(hmac.digest(key.secret.encode(), text, "sha1")).decode()
    return _Signed(signature, {"StringToSign": text.decode("utf-8", "replace")})


def _header_v4(request: OssRequest, authorization: str, keys: KeyRing, now: float, region: str) -> str:
    fields = dict(re.findall(r"(\w+)=([^,\s]+)", authorization.removeprefix(V4)))
    key_id, _, scope = fields.get("Credential", "").partition("/")
    key = _key(_Claim(key_id, fields.get("Signature", ""), request.header("x-oss-security-token")), keys, now)
    date = request.header("x-oss-date")
    moment = _iso_time(date) if date else _http_time(request.header("Date"))
    _check_clock(moment, now)
    _check_scope(scope, moment, region, "Authorization header")
    additional = fields.get("AdditionalHeaders", "")
    expected = _sign_v4(key, request, moment, scope, additional)
    return _compare(key, fields.get("Signature", ""), expected, "0002-00000201")


def _query_v4(request: OssRequest, keys: KeyRing, now: float, region: str) -> str:
    query = request.query
    key_id, _, scope = query.get("x-oss-credential", "").partition("/")
    claim = _Claim(key_id, query["x-oss-signature"], query.get("x-oss-security-token", ""))
    key = _key(claim, keys, now)
    moment = _iso_time(query.get("x-oss-date", ""))
    expires = query.get("x-oss-expires", "")
    if not expires.isdigit() or moment.timestamp() + int(expires) < now:
        raise access_denied("Request has expired.", "0002-00000069")
    _check_scope(scope, moment, region, "x-oss-credential")
    expected = _sign_v4(key, request, moment, scope, query.get("x-oss-additional-headers", ""))
    return _compare(key, claim.signature, expected, "0002-00000201")


def _sign_v4(key: Key, request: OssRequest, moment: datetime, scope: str, additional: str) -> _Signed:
    names = {name for name in additional.lower().split(";") if name}
    signed = ((name, value) for name, value in _headers(request) if _is_signed(name, names))
    uri = quote(f"/{request.bucket}/{request.key}" if request.bucket else "/", safe="/")
    query = sorted(
        (quote(name, safe=""), quote(value, safe=""))
        for name, value in request.query.items()
        if name != "x-oss-signature"
    )
    canonical = "\n".join(
        (
            request.method,
            uri,
            "&".join(f"{name}={value}" if value else name for name, value in query),
            _lines(signed),
            ";".join(sorted(names)),
            request.header("x-oss-content-sha256", "UNSIGNED-PAYLOAD"),
        )
    ).encode("latin-1")
    text = "\n".join((V4, moment.strftime("%Y%m%dT%H%M%SZ"), scope, hashlib.sha256(canonical).hexdigest()))
    secret = ("aliyun_v4" + key.secret).encode()
    signing_key = reduce(lambda found, part: hmac.digest(found, part.encode(), "sha256"), scope.split("/"), secret)
    signature = hmac.digest(signing_key, text.encode(), "sha256").hex()
    return _Signed(signature, {"StringToSign": text, "CanonicalRequest": canonical.decode("utf-8", "replace")})


def _is_signed(name: str, additional: set[str]) -> bool:
    return name.startswith("x-oss-") or name in ("content-type", "content-md5") or name in additional


def _headers(request: OssRequest) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in request.headers.items()]


def _lines(headers: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{name}:{value.strip()}\n" for name, value in sorted(headers))


def _key(claim: _Claim, keys: KeyRing, now: float) -> Key:
    """The key that the request names, if it may still be used."""
    key = keys.find(claim.key_id)
    if key is None:
        ec = "0002-00000002" if claim.token else "0002-00000902"
        message = "The OSS Access Key Id you provided does not exist in our records."
        raise OssError(403, "InvalidAccessKeyId", message, ec, {"OSSAccessKeyId": claim.key_id})
    if not hmac.compare_digest(claim.token.encode(), key.token.encode()):
        raise OssError(403, "InvalidSecurityToken", "The security token you provided is invalid.", "0002-00000004")
    if key.expires is not None and key.expires <= now:
        raise OssError(403, "SecurityTokenExpired", "The security token you provided has expired.", "0002-00000007")
    return key


def _compare(key: Key, provided: str, expected: _Signed, ec: str) -> str:
    if not hmac.compare_digest(provided.encode(), expected.signature.encode()):
        message = (
            "The request signature we calculated does not match the signature you provided. Check your key and "
            "signing method."
        )
        details = {"OSSAccessKeyId": key.id, "SignatureProvided": provided, **expected.details}
        raise OssError(403, "SignatureDoesNotMatch", message, ec, details)
    return key.id


def _check_clock(moment: datetime, now: float) -> None:
    if abs(moment.timestamp() - now) > MAX_SKEW:
        details = {
            "MaxAllowedSkewMilliseconds": str(MAX_SKEW * 1000),
            "RequestTime": moment.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "ServerTime": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }
        message = "The difference between the request time and the current time is too large."
        raise OssError(403, "RequestTimeTooSkewed", message, "0002-00000504", details)


def _check_scope(scope: str, moment: datetime, region: str, where: str) -> None:
    parts = scope.split("/")
    if len(parts) != _V4_SCOPE_PARTS or parts[2:] != ["oss", "aliyun_v4_request"]:
        raise invalid_argument(f"Invalid scope in {where}.", where, scope)
    if parts[0] != moment.strftime("%Y%m%d"):
        raise invalid_argument(f"Invalid signing date in {where}.", where, scope)
    if region and parts[1] != region:
        raise invalid_argument(f"Invalid signing region in {where}.", where, scope, "0002-00000226")


def _http_time(text: str) -> datetime:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError as error:
        raise access_denied("OSS authentication requires a valid Date.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _iso_time(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise access_denied("OSS authentication requires a valid Date.") from error
