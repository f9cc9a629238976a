"""The embedded STS: gives temporary keys for the token of a service account, as RRSA does.

https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerolewithoidc
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

from workflows.simulator.core.bucket.keys import Key
from workflows.simulator.http.server import Handler, LoopbackServer

SHORTEST, LONGEST = 900, 43200  # seconds of a temporary key


@dataclass
class _Trust:
    role_arn: str
    provider_arn: str
    token: str
    issue: Callable[[float], Key]
    refuse: list[tuple[int, str]] = field(default_factory=list)  # (status, code) of the next answers
    asked: list[dict[str, str]] = field(default_factory=list)


class _StsHandler(Handler):
    trust: _Trust  # set on the subclass that a server makes for itself

    def do_POST(self) -> None:
        form = parse_qsl(self.read_body().decode())
        question = dict([*parse_qsl(urlsplit(self.path).query), *form])
        self.trust.asked.append(question)
        refusal = self._refusal(question)
        if refusal:
            self._refuse(*refusal)
            return
        self._give(float(question["DurationSeconds"]))

    def _refusal(self, question: dict[str, str]) -> tuple[int, str] | None:
        trust = self.trust
        if trust.refuse:
            return trust.refuse.pop(0)
        if (question.get("Action"), question.get("Version")) != ("AssumeRoleWithOIDC", "2015-04-01"):
            return 404, "InvalidAction.NotFound"
        if not SHORTEST <= int(question.get("DurationSeconds", "3600")) <= LONGEST:
            return 400, "InvalidParameter.DurationSeconds"
        if question.get("RoleArn") != trust.role_arn:
            return 404, "EntityNotExist.Role"
        if question.get("OIDCProviderArn") != trust.provider_arn:
            return 400, "AuthenticationFail.OIDCProvider.NotExist"
        return None if question.get("OIDCToken") == trust.token else (400, "AuthenticationFail.OIDCToken.Invalid")

    def _refuse(self, status: int, code: str) -> None:
        body = {
            "RequestId": _request_id(),
            "HostId": "sts",
            "Code": code,
            "Message": f"The request was refused: {code}.",
        }
        self.send_json(status, body)

    def _give(self, lifetime: float) -> None:
        key = self.trust.issue(lifetime)
        until = datetime.fromtimestamp(key.expires or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        credentials = {
            "AccessKeyId": key.id,
            "AccessKeySecret": key.secret,
            "SecurityToken": key.token,
            "Expiration": until,
        }
        self.send_json(200, {"RequestId": _request_id(), "Credentials": credentials})


def _request_id() -> str:
    return str(uuid.uuid4()).upper()


class Sts:
    """Serves AssumeRoleWithOIDC for one role; `issue` makes the keys, such as `Bucket.issue`."""

    def __init__(
        self, *, role_arn: str, provider_arn: str, token: str, issue: Callable[[float], Key], port: int = 0
    ) -> None:
        self._trust = _Trust(role_arn, provider_arn, token, issue)
        self._server = LoopbackServer(type("_BoundHandler", (_StsHandler,), {"trust": self._trust}), port)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def asked(self) -> list[dict[str, str]]:
        """The parameters of every request so far."""
        return self._trust.asked

    def refuse(self, status: int, code: str, times: int = 1) -> None:
        """Let the next requests fail."""
        self._trust.refuse.extend([(status, code)] * times)

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()
