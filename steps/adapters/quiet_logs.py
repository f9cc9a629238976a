"""Addresses that are credentials stay out of logs, at every level.

urllib3, and requests above it, write the path and query of each request to their log at DEBUG. A signed link is a
credential in its query; the address of a webhook is one in its path.
"""

import logging
from urllib.parse import urlsplit

_SECRETS: set[str] = set()


def hide_queries() -> None:
    """From now on no query of any address reaches urllib3's log. Doing it again changes nothing."""
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(_hide)


def keep_secret(url: str) -> None:
    """Take the path of this address out of that log too."""
    hide_queries()
    try:
        path = urlsplit(url).path
    except ValueError:
        return  # no address at all, so nobody can send a request to it
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
