"""A webhook that takes one JSON message: how a run ended. Its address is a secret."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from urllib3.exceptions import LocationValueError

from steps.adapters import quiet_logs
from steps.errors import Blocked, TransientError

log = logging.getLogger(__name__)

TIMEOUT = 10.0  # seconds, for the connection and for each wait for a byte
ATTEMPTS = 4
LONGEST_PAUSE = 5.0  # seconds

_NEXT = "check the Secret of notifications and that the webhook is up; nothing else depends on it"


class WebhookNotifier:
    """Implements `steps.ports.Notifier`. `first_pause` and `timeout` are seconds."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT, first_pause: float = 0.5) -> None:
        quiet_logs.keep_secret(url)
        self._url = url
        self._timeout = timeout
        self._first_pause = first_pause

    def send(self, message: Mapping[str, Any]) -> None:
        """Raises Blocked if the webhook refuses the message, TransientError if it does not answer."""
        attempts = Retrying(
            retry=retry_if_exception_type(TransientError),
            wait=wait_random_exponential(multiplier=self._first_pause, max=LONGEST_PAUSE),
            stop=stop_after_attempt(ATTEMPTS),
            before_sleep=lambda state: log.info("the webhook did not answer, attempt %d", state.attempt_number),
            reraise=True,
        )
        attempts(self._post, dict(message))

    def _post(self, message: dict[str, Any]) -> None:
        # `from None`: the exceptions of requests hold the address.
        try:
            reply = requests.post(self._url, json=message, timeout=self._timeout, allow_redirects=False)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise TransientError(f"the webhook did not answer ({type(error).__name__})", _NEXT) from None
        except (requests.RequestException, LocationValueError) as error:
            raise Blocked(f"the webhook cannot be called ({type(error).__name__})", _NEXT) from None
        status = reply.status_code
        if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500:  # noqa: PLR2004  # 5xx
            raise TransientError(f"the webhook answered with status {status}", _NEXT)
        if not reply.ok or reply.is_redirect:
            raise Blocked(f"the webhook refused the message with status {status}", _NEXT)
