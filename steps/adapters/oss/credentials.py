"""Credentials for OSS: an access key from a Secret, or a RAM role of the pod's service account (RRSA).

RRSA: the pod has a token of its service account; STS gives a temporary key for it, with one request that needs no
signature. https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerolewithoidc
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from oss2.credentials import Credentials as Key
from oss2.credentials import CredentialsProvider

from steps.errors import Blocked, TransientError
from steps.ports.oss import AccessKey
from steps.reconcile.retry_policy import RetryPolicy

log = logging.getLogger(__name__)

# ack-pod-identity-webhook sets these in a pod.
# https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/use-rrsa-to-authorize-pods-to-access-different-cloud-services
ROLE_ARN = "ALIBABA_CLOUD_ROLE_ARN"
PROVIDER_ARN = "ALIBABA_CLOUD_OIDC_PROVIDER_ARN"
TOKEN_FILE = "ALIBABA_CLOUD_OIDC_TOKEN_FILE"  # noqa: S105  # a name, not a secret
STS_ENDPOINT = "SLIPWAY_STS_ENDPOINT"  # set by local runs and tests, and outside Alibaba Cloud's VPCs

LIFETIME = 3600  # seconds of a temporary key
AHEAD = 900.0  # seconds between the replacement of a key and its end
RETRIES = RetryPolicy(budget=60.0, longest_pause=10.0)  # for one key
TIMEOUTS = (5, 30)  # seconds to connect, and between two bytes of an answer
SERVER_ERROR = 500


class Credentials(CredentialsProvider):  # type: ignore[misc]  # oss2 has no types
    """The source of oss2's key, read before each request; safe to use from several threads."""

    def get_credentials(self) -> Key:
        raise NotImplementedError

    def renew(self) -> bool:
        """Replace the last key of this thread, which OSS refused. False if there is no other one."""
        raise NotImplementedError

    @property
    def advice(self) -> str:
        """The next step after a final refusal of the key; empty where the hint of the error code is better."""
        return ""


class StaticCredentials(Credentials):
    def __init__(self, key: AccessKey) -> None:
        self._key = Key(key.id, key.secret, key.token)

    def get_credentials(self) -> Key:
        return self._key

    def renew(self) -> bool:
        return False


@dataclass(frozen=True)
class RamRole:
    arn: str
    provider_arn: str
    token_file: Path
    endpoint: str  # of STS


@dataclass(frozen=True)
class _Temporary:
    key: Key = field(repr=False)
    until: float  # seconds since 1970


class _Used(threading.local):
    """The key of the last request of one thread."""

    key: Key | None = None


class RoleCredentials(Credentials):
    """Temporary keys of a role, each replaced before its end, so that no transfer is too long for them."""

    def __init__(
        self, role: RamRole, *, clock: Callable[[], float] = time.time, retries: RetryPolicy = RETRIES
    ) -> None:
        self.role = role
        self._clock = clock
        self._retries = retries
        self._lock = threading.Lock()
        self._current: _Temporary | None = None
        self._used = _Used()

    def get_credentials(self) -> Key:
        current = self._current
        if current is None or current.until - AHEAD <= self._clock():
            current = self._replace()
        self._used.key = current.key
        return current.key

    def renew(self) -> bool:
        """Replace the refused key once for all threads, even a new one."""
        with self._lock:
            if self._current is None or self._current.key is self._used.key:
                self._current = self._fetch()
        return True

    @property
    def advice(self) -> str:
        return (
            f"OSS refuses the new key of {self.role.arn}, too: check that the role exists and its sessions are not "
            f"revoked, that {self.role.endpoint} and the bucket belong to the same cloud, and the clock of this node"
        )

    def _replace(self) -> _Temporary:
        with self._lock:
            current, now = self._current, self._clock()
            if current and current.until - AHEAD > now:
                return current  # another thread was faster
            try:
                current = self._fetch()
            except TransientError as error:
                if current is None or current.until <= now:
                    raise
                log.warning("%s; the current key is valid for %.0f s more", error, current.until - now)
            self._current = current
            return current

    def _fetch(self) -> _Temporary:
        return self._retries.run(self._request)

    def _request(self) -> _Temporary:
        now = self._clock()
        body = {
            "RoleArn": self.role.arn,
            "OIDCProviderArn": self.role.provider_arn,
            "OIDCToken": self._token(),
            "RoleSessionName": "slipway",
            "DurationSeconds": str(LIFETIME),
        }
        try:
            # Without a session: trust_env would send the token through a proxy of the environment.
            with requests.Session() as session:
                session.trust_env = False
                answer = session.post(self.role.endpoint, params=_action(now), data=body, timeout=TIMEOUTS)
                content = _json(answer)
        except requests.RequestException as error:
            raise TransientError(
                f"cannot assume {self.role.arn}: {self.role.endpoint} does not answer: {type(error).__name__}",
                "check the network between this pod and STS, then run it again",
            ) from error
        if answer.status_code >= SERVER_ERROR or content.get("Code") == "Throttling.User":
            raise TransientError(
                f"cannot assume {self.role.arn}: {self.role.endpoint} answers {_described(answer, content)}",
                "run it again; if the error stays, check the status of STS",
            )
        if not answer.ok:
            raise Blocked(
                f"cannot assume {self.role.arn}: {self.role.endpoint} answers {_described(answer, content)}", _HINT
            )
        return _temporary(content, self.role)

    def _token(self) -> str:
        """Read the file again each time, because Kubernetes replaces the token."""
        try:
            return self.role.token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Blocked(f"cannot read the token of the service account: {error}", _SETUP) from error


def static_credentials(key: AccessKey) -> StaticCredentials:
    """Credentials of a fixed key; a temporary one is not replaced at its end."""
    return StaticCredentials(key)


def role_credentials(region: str, environment: Mapping[str, str], name: str) -> RoleCredentials:
    """Credentials of the role in the pod's environment. Raises Blocked unless it is the role `name`.

    Services of one workflow namespace share their accounts, so a later install of another document may change it.
    """
    absent = [name for name in (ROLE_ARN, PROVIDER_ARN, TOKEN_FILE) if not environment.get(name, "").strip()]
    if absent:
        raise Blocked(
            f"the document has credentials of kind rrsa, but the environment lacks {', '.join(absent)}", _SETUP
        )
    if environment[ROLE_ARN].rpartition("/")[2].casefold() != name.casefold():
        raise Blocked(
            f"the document names the RAM role {name}, but the account of this pod has {environment[ROLE_ARN]}",
            "apply the folder `install` of this document again; services with different roles need different "
            "workflow.namespace",
        )
    endpoint = environment.get(STS_ENDPOINT, "").strip() or f"https://sts-vpc.{region}.aliyuncs.com"
    return RoleCredentials(
        RamRole(environment[ROLE_ARN], environment[PROVIDER_ARN], Path(environment[TOKEN_FILE]), endpoint)
    )


_SETUP = (
    "enable RRSA for the cluster, label the namespace pod-identity.alibabacloud.com/injection=on, and annotate the "
    "service account with pod-identity.alibabacloud.com/role-name"
)
_HINT = (
    "check that the role exists, that its trust policy names this cluster's OIDC provider, namespace and service "
    "account, and that RRSA is enabled"
)


def _action(now: float) -> dict[str, str]:
    return {
        "Action": "AssumeRoleWithOIDC",
        "Version": "2015-04-01",
        "Format": "JSON",
        "Timestamp": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "SignatureNonce": uuid.uuid4().hex,
    }


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except requests.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _described(answer: requests.Response, content: dict[str, Any]) -> str:
    error = f"{answer.status_code} {content.get('Code', 'without a code')}: {content.get('Message', 'no message')}"
    return f"{error} (request {content.get('RequestId', 'without id')})"


def _temporary(content: dict[str, Any], role: RamRole) -> _Temporary:
    try:
        found = content["Credentials"]
        key = Key(found["AccessKeyId"], found["AccessKeySecret"], found["SecurityToken"])
        until = datetime.strptime(found["Expiration"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except (TypeError, KeyError, ValueError) as error:
        raise Blocked(
            f"cannot assume {role.arn}: the answer of {role.endpoint} holds no key", "check that this is STS"
        ) from error
    return _Temporary(key, until)
