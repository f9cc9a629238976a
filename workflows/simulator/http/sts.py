"""The embedded STS: temporary keys for the token of a service account, as RRSA issues them.

https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerolewithoidc
"""

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from werkzeug import Request, Response

from workflows.simulator.core.bucket.keys import Key
from workflows.simulator.http.server import LoopbackServer, json_reply

SHORTEST, LONGEST = 900, 43200  # seconds of a temporary key


class Sts:
    """Serves AssumeRoleWithOIDC for one role; `issue` makes the keys, such as `Bucket.issue`."""

    def __init__(
        self, *, role_arn: str, provider_arn: str, token: str, issue: Callable[[float], Key], port: int = 0
    ) -> None:
        self._role, self._provider, self._token, self._issue = role_arn, provider_arn, token, issue
        self._refusals: list[tuple[int, str]] = []  # status and code of the next responses
        self.asked: list[dict[str, str]] = []  # the parameters of every request so far
        self._server = LoopbackServer(self._serve, port)

    @property
    def url(self) -> str:
        return self._server.url

    def refuse(self, status: int, code: str, times: int = 1) -> None:
        """Let the next requests fail."""
        self._refusals.extend([(status, code)] * times)

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def _serve(self, request: Request) -> Response:
        asked = request.values.to_dict()
        self.asked.append(asked)
        refusal = self._refusals.pop(0) if self._refusals else self._refusal(asked)
        head = {"RequestId": str(uuid.uuid4()).upper()}
        if refusal:
            status, code = refusal
            body = {**head, "HostId": "sts", "Code": code, "Message": f"The request was refused: {code}."}
            return json_reply(body, status)
        key = self._issue(float(asked["DurationSeconds"]))
        credentials = {
            "AccessKeyId": key.id,
            "AccessKeySecret": key.secret,
            "SecurityToken": key.token,
            "Expiration": datetime.fromtimestamp(key.expires or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return json_reply({**head, "Credentials": credentials})

    def _refusal(self, asked: Mapping[str, str]) -> tuple[int, str] | None:
        if (asked.get("Action"), asked.get("Version")) != ("AssumeRoleWithOIDC", "2015-04-01"):
            return 404, "InvalidAction.NotFound"
        if not SHORTEST <= int(asked.get("DurationSeconds", "3600")) <= LONGEST:
            return 400, "InvalidParameter.DurationSeconds"
        if asked.get("RoleArn") != self._role:
            return 404, "EntityNotExist.Role"
        if asked.get("OIDCProviderArn") != self._provider:
            return 400, "AuthenticationFail.OIDCProvider.NotExist"
        return None if asked.get("OIDCToken") == self._token else (400, "AuthenticationFail.OIDCToken.Invalid")
