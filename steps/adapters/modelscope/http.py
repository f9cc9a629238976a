"""HTTP as the hub needs it: connections that are kept, bodies read at memory speed, and addresses that stay secret.

A signed link is a credential: `quiet_logs` takes it out of urllib3's log, and no exception here carries an address.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

import urllib3
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from steps.adapters import quiet_logs
from steps.adapters.modelscope.failures import TooSlow, Unanswered, Unreachable
from steps.adapters.modelscope.retries import Patience
from steps.errors import Blocked

PIECE = 1 << 20  # bytes of one read at most; what was read is then still in the cache of a core
CONNECTIONS = 64  # kept open to one host; as many as a transfer may have workers
ANSWER_LIMIT = 1 << 26  # bytes of a JSON answer; a listing of 3000 entries has 2 MB


class Web:
    """GET requests without redirects; safe to use from many threads."""

    def __init__(self, patience: Patience) -> None:
        quiet_logs.hide_queries()
        self._pool = urllib3.PoolManager(maxsize=CONNECTIONS, retries=False)
        self._timeout = urllib3.Timeout(connect=patience.connect, read=patience.silence)

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[BaseHTTPResponse]:
        """An answer whose body is still to be read. A body that was read to its end keeps the connection.

        Raises Unanswered where the network fails, here or while the body is read, and Blocked for an address that
        cannot be right.
        """
        with _translated():
            response = self._pool.request(
                "GET",
                url,
                headers={"Accept-Encoding": "identity", "User-Agent": "slipway", **headers},
                preload_content=False,
                redirect=False,
                timeout=self._timeout,
            )
            try:
                yield response
            finally:
                if response.closed:
                    response.release_conn()
                else:
                    response.close()


class Pace:
    """Notices a connection that drips. A timeout does not: each byte starts it anew."""

    def __init__(self, floor: int, window: float) -> None:
        self._floor = floor
        self._window = window
        self._since = time.monotonic()
        self._bytes = 0
        self._was_fast = False

    def moved(self, count: int) -> None:
        """Raises TooSlow at the end of a window in which too little came."""
        self._bytes += count
        seconds = time.monotonic() - self._since
        if seconds < self._window:
            return
        rate = self._bytes / seconds
        if rate < self._floor:
            reason = f"only {rate / 1000:.1f} kB/s, less than {self._floor / 1000:.0f} kB/s"
            raise TooSlow(reason, from_the_start=not self._was_fast)
        self._was_fast = True
        self._since += seconds
        self._bytes = 0


def read_into(response: BaseHTTPResponse, buffer: memoryview, pace: Pace) -> Iterator[int]:
    """Fill `buffer` from a body, and say how many bytes came, each time. Raises Unanswered if the body ends before."""
    # urllib3's own `readinto` allocates and copies, which costs as much CPU as receiving. Its errors are lost here, so
    # `_translated` knows those of the socket, too.
    body: Any = response._fp  # type: ignore[attr-defined]  # noqa: SLF001  # it has no public name
    filled = 0
    while filled < len(buffer):
        count = _receive(body, buffer[filled : filled + PIECE])
        if not count:
            raise Unanswered(f"the body ended {len(buffer) - filled} bytes too early")
        filled += count
        yield count
        if filled < len(buffer):
            pace.moved(count)


def _receive(body: Any, piece: memoryview) -> int:
    """What the socket has at once, at most a piece. The `readinto` of http.client waits for all of it, and a connection
    that drips would hide in there for hours.
    """
    if body.chunked or not body.length:
        return int(body.readinto(piece))
    count = int(body.fp.readinto1(piece[: body.length]))
    body.length -= count
    if not body.length:
        body.readinto(piece[:0])  # at its end, an answer lets go of the connection
    return count


def small_body(response: BaseHTTPResponse, pace: Pace, limit: int = ANSWER_LIMIT) -> bytes:
    """A whole body, cut after about `limit` bytes."""
    body = bytearray()
    while len(body) < limit and (piece := response.read1(PIECE)):
        body += piece
        if response.length_remaining != 0:  # what is here as a whole is not fetched again, however long it took
            pace.moved(len(piece))
    return bytes(body)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise Blocked(
                "the certificate of the hub or its CDN is not trusted here",
                "install the CA certificates of your network in the image, or check that model.endpoint is right",
            ) from error
        raise Unanswered("the TLS connection failed") from error
    except (NewConnectionError, ConnectTimeoutError) as error:
        raise Unreachable("no connection, or none in time") from error
    except (ReadTimeoutError, TimeoutError) as error:
        raise Unanswered("the connection is open, but no byte came in time") from error
    except LocationValueError:
        # Without its cause, which holds the address.
        raise Blocked("the address of the hub or of a link cannot be understood", "check model.endpoint") from None
    except (HTTPError, HTTPException, OSError) as error:
        raise Unanswered(f"the connection broke ({type(error).__name__})") from error
