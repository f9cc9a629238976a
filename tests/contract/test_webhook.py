"""The webhook against a server on loopback."""

import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from werkzeug import Request, Response

from steps.adapters.notify.targets import Targets
from steps.adapters.notify.webhook import RETRIES, WebhookNotifier
from steps.errors import Blocked, TransientError
from workflows.simulator.http.server import LoopbackServer, json_reply, target_of

SECRET = "/services/T00000000/B00000000/not-a-secret-0123456789"
MESSAGE = {"run": "demo-1", "status": "Succeeded", "reason": "", "text": "fertig ✓"}


class Hook:
    """A webhook that answers with `statuses`, one after the other, and then with 200."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.received: list[tuple[str, str, Any]] = []
        self.server = LoopbackServer(self._serve)

    def _serve(self, request: Request) -> Response:
        self.received.append((target_of(request), request.headers["Content-Type"], json.loads(request.get_data())))
        status = self.statuses.pop(0) if self.statuses else 200
        return json_reply({}, status, {"Location": "http://127.0.0.1:1/elsewhere"} if status == 302 else None)

    @property
    def notifier(self) -> WebhookNotifier:
        return WebhookNotifier(f"{self.server.url}{SECRET}?token=abc", retries=replace(RETRIES, first_pause=0.001))


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    hook.server.start()
    yield hook
    hook.server.stop()


def test_a_message_arrives_as_json_and_once(hook: Hook) -> None:
    hook.notifier.send(MESSAGE)
    assert hook.received == [(f"{SECRET}?token=abc", "application/json", MESSAGE)]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_webhook_that_is_busy_is_called_again(hook: Hook, status: int) -> None:
    hook.statuses = [status, status]
    hook.notifier.send(MESSAGE)
    assert len(hook.received) == 3


def test_a_webhook_that_stays_busy_is_no_answer_after_a_few_calls(hook: Hook) -> None:
    hook.statuses = [503] * 20
    with pytest.raises(TransientError, match="status 503"):
        hook.notifier.send(MESSAGE)
    assert len(hook.received) == RETRIES.attempts


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 410])
def test_a_webhook_that_refuses_is_not_asked_again(hook: Hook, status: int) -> None:
    hook.statuses = [status]
    with pytest.raises(Blocked, match=f"refused the message with status {status}"):
        hook.notifier.send(MESSAGE)
    assert len(hook.received) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_success_is_a_success(hook: Hook, status: int) -> None:
    hook.statuses = [status]
    hook.notifier.send(MESSAGE)
    assert len(hook.received) == 1


def test_nobody_there_is_no_answer() -> None:
    hook = Hook()
    notifier = hook.notifier
    hook.server.stop()
    with pytest.raises(TransientError, match="did not answer"):
        notifier.send(MESSAGE)


@pytest.mark.parametrize("url", ["not-an-address", "ftp://host/path", "http://[broken/path"])
def test_an_address_that_is_none_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(Blocked, match="cannot be called") as refused:
        WebhookNotifier(url, retries=replace(RETRIES, first_pause=0.001)).send(MESSAGE)
    assert url not in str(refused.value)


def test_the_address_reaches_no_log_and_no_message(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    texts = []
    notifier = hook.notifier
    hook.statuses = [500, 403]
    with pytest.raises(Blocked) as refused:
        notifier.send(MESSAGE)
    texts += traceback.format_exception(refused.value)
    hook.server.stop()
    with pytest.raises(TransientError) as unanswered:
        notifier.send(MESSAGE)
    texts += traceback.format_exception(unanswered.value)
    log = "\n".join([*texts, *(logging.Formatter().format(record) for record in caplog.records)])
    assert "POST" in log  # urllib3 did write at DEBUG
    assert "not-a-secret" not in log
    assert "token=abc" not in log


class Target:
    def __init__(self, *results: Exception | None) -> None:
        self.results = list(results)
        self.messages: list[Mapping[str, Any]] = []

    def send(self, message: Mapping[str, Any]) -> None:
        self.messages.append(message)
        if error := self.results.pop(0):
            raise error


def test_each_target_gets_the_message_once_whichever_of_the_others_fails() -> None:
    late, good, wrong = Target(TransientError("late", ""), None), Target(None), Target(Blocked("wrong", ""))
    targets = Targets([lambda: late, lambda: good, lambda: wrong])
    with pytest.raises(TransientError, match="late"):
        targets.send(MESSAGE)
    with pytest.raises(Blocked, match="wrong"):
        targets.send(MESSAGE)
    assert [len(target.messages) for target in (late, good, wrong)] == [2, 1, 1]
