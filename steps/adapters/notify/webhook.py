"""A webhook that takes the result of a run as one JSON message. Its address is a secret."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import requests
from urllib3.exceptions import LocationValueError

from steps.adapters import quiet_logs
from steps.errors import Blocked, TransientError
from steps.reconcile.retry_policy import RetryPolicy

TIMEOUT = 10.0  # seconds, for the connection and for each wait for a byte
RETRIES = RetryPolicy(attempts=4, first_pause=0.5, longest_pause=5.0)

_NEXT = "check the Secret of notifications and that the webhook is up; no other task depends on it"


class WebhookNotifier:
    """Implements `steps.ports.notify.Notifier`."""

    def __init__(self, url: str, *, retries: RetryPolicy = RETRIES) -> None:
        quiet_logs.keep_secret(url)
        self._url = url
        self._retries = retries

    def send(self, message: Mapping[str, Any]) -> None:
        """Raises Blocked if the webhook refuses the message, TransientError if it does not answer."""
        self._retries.run(lambda: self._post(dict(message)))

    def _post(self, message: dict[str, Any]) -> None:
        # `from None`: the exceptions of requests hold the address.
        try:
            reply = requests.post(self._url, json=message, timeout=TIMEOUT, allow_redirects=False)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise TransientError(f"the webhook did not answer ({type(error).__name__})", _NEXT) from None
        except (requests.RequestException, LocationValueError) as error:
            raise Blocked(f"the webhook cannot be called ({type(error).__name__})", _NEXT) from None
        status = reply.status_code
        if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500:  # noqa: PLR2004  # 5xx
            raise TransientError(f"the webhook answered with status {status}", _NEXT)
        if not reply.ok or reply.is_redirect:
            raise Blocked(f"the webhook refused the message with status {status}", _NEXT)
