"""HTTP of oss2: many connections, no proxies, no secrets in logs, and answers that can be read again."""

import logging
from typing import Any

import oss2
import oss2.http

CONNECTIONS = 64  # as many as one transfer may have requests at the same time
TIMEOUTS = (5, 60)  # seconds to connect, and between two bytes of an answer


class _NothingBelowWarning(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING


def silence() -> None:
    """Keep every logger of oss2 quiet below WARNING, at every log level.

    At DEBUG, oss2 logs request headers and the text that it signs, which hold the security token. At INFO it logs error
    bodies, and the one of SignatureDoesNotMatch repeats the request. A filter on a parent does not see the records of a
    child, so each logger gets its own.
    """
    names = [name for name in logging.root.manager.loggerDict if name == "oss2" or name.startswith("oss2.")]
    for name in ("oss2", *names):
        logger = logging.getLogger(name)
        if not any(isinstance(known, _NothingBelowWarning) for known in logger.filters):
            logger.addFilter(_NothingBelowWarning())


class Answer(oss2.http.Response):  # type: ignore[misc]  # oss2 has no types
    """An answer that keeps its body: oss2's parsers drop some elements."""

    body = b""

    def read(self, amt: int | None = None) -> bytes:
        content: bytes = super().read(amt)
        self.body += content
        return content


class Session(oss2.Session):  # type: ignore[misc]  # oss2 has no types
    def __init__(self) -> None:
        super().__init__(pool_size=CONNECTIONS)
        # A netrc would replace our signature, and a proxy of the environment cannot reach an internal endpoint.
        self.session.trust_env = False

    def do_request(self, req: Any, timeout: Any) -> Answer:
        return Answer(super().do_request(req, timeout).response)


silence()
