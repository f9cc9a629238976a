"""Keeps secret addresses out of logs, at every level.

urllib3, also below requests, logs the path and query of each request at DEBUG. The query of a signed link is a
credential, and so is the path of a webhook.
"""

import logging
from urllib.parse import urlsplit

_SECRETS: set[str] = set()


def hide_queries() -> None:
    """Keep the query of every address out of urllib3's log. A second call has no effect."""
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(_hide)


def keep_secret(url: str) -> None:
    """Keep the path of this address out of that log, too."""
    hide_queries()
    try:
        path = urlsplit(url).path
    except ValueError:
        return  # not an address, so no request goes to it
    if path.strip("/"):
        _SECRETS.add(path)


def _hide(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(_hidden(value) for value in record.args)
    return True


def _hidden(value: object) -> object:
    if not isinstance(value, str):
        return value
    path, query, _ = value.partition("?")
    for secret in _SECRETS:
        path = path.replace(secret, "/...")
    return f"{path}?..." if query else path
