"""Verifies the signature of a request: version 4, in its header.

https://www.alibabacloud.com/help/en/oss/developer-reference/recommend-to-use-signature-version-4
"""

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


@dataclass(frozen=True)
class _Claim:
    """The key and signature that a request names."""

    key_id: str
    signature: str
    token: str


@dataclass(frozen=True)
class _Signed:
    signature: str
    details: dict[str, str]  # shown by OSS when the signatures differ


def verify(request: OssRequest, keys: KeyRing, now: float, region: str = "") -> str:
    """The id of the key that signed the request; an empty `region` accepts any. Raises OssError."""
    authorization = request.header("Authorization")
    if authorization.startswith(V4):
        return _verify_header(request, authorization, keys, now, region)
    if authorization:
        raise invalid_argument("Authorization header is invalid.", "Authorization", authorization.split()[0])
    raise access_denied("You have no right to access this object because of bucket acl.")


def _verify_header(request: OssRequest, authorization: str, keys: KeyRing, now: float, region: str) -> str:
    fields = dict(re.findall(r"(\w+)=([^,\s]+)", authorization.removeprefix(V4)))
    key_id, _, scope = fields.get("Credential", "").partition("/")
    key = _key(_Claim(key_id, fields.get("Signature", ""), request.header("x-oss-security-token")), keys, now)
    date = request.header("x-oss-date")
    moment = _iso_time(date) if date else _http_time(request.header("Date"))
    _check_clock(moment, now)
    _check_scope(scope, moment, region, "Authorization header")
    additional = fields.get("AdditionalHeaders", "")
    expected = _sign(key, request, moment, scope, additional)
    return _compare(key, fields.get("Signature", ""), expected, "0002-00000201")


def _sign(key: Key, request: OssRequest, moment: datetime, scope: str, additional: str) -> _Signed:
    names = {name for name in additional.lower().split(";") if name}
    signed = ((name, value) for name, value in request.headers.items() if _is_signed(name, names))
    uri = quote(f"/{request.bucket}/{request.key}" if request.bucket else "/", safe="/")
    query = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in request.query.items())
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
