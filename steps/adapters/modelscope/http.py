"""HTTP for the hub: connections that are kept, bodies read at memory speed, and addresses that stay secret.

A signed link is a credential: `quiet_logs` takes it out of urllib3's log, and no exception here carries an address.
"""

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
from steps.adapters.modelscope.errors import NoAnswer, TooSlow, Unreachable
from steps.adapters.modelscope.retries import HubLimits
from steps.adapters.throughput import Throughput
from steps.errors import Blocked

PIECE = 1 << 20  # bytes of one read at most, so that they are still in the cache of a core for the CRC
CONNECTIONS = 64  # kept open to one host; the most workers of a transfer
ANSWER_LIMIT = 1 << 26  # bytes of a JSON answer; a listing of 3000 entries has 2 MB


class HttpClient:
    """GET requests without redirects; safe to use from many threads."""

    def __init__(self, limits: HubLimits) -> None:
        quiet_logs.hide_queries()
        self._pool = urllib3.PoolManager(maxsize=CONNECTIONS, retries=False)
        self._timeout = urllib3.Timeout(connect=limits.connect, read=limits.silence)

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[BaseHTTPResponse]:
        """An answer with an unread body. A body that was read to its end keeps the connection.

        Raises NoAnswer for a failure of the network, here or while the body is read, and Blocked for an impossible
        address.
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


def read_into(response: BaseHTTPResponse, buffer: memoryview, throughput: Throughput) -> Iterator[int]:
    """Fill `buffer` from a body, and yield the count of each read.

    Raises NoAnswer if the body ends before, and TooSlow below the minimum throughput.
    """
    # urllib3's own `readinto` allocates and copies, which costs as much CPU as receiving. Without its errors,
    # `_translated` handles those of the socket, too.
    body: Any = response._fp  # type: ignore[attr-defined]  # noqa: SLF001  # it has no public name
    filled = 0
    while filled < len(buffer):
        count = _receive(body, buffer[filled : filled + PIECE])
        if not count:
            raise NoAnswer(f"the body ended {len(buffer) - filled} bytes too early")
        filled += count
        yield count
        if filled < len(buffer):
            _check(throughput, count)


def _check(throughput: Throughput, count: int) -> None:
    rate = throughput.add(count)
    if rate is not None:
        minimum = throughput.minimum.bytes_per_second
        reason = f"only {rate / 1000:.1f} kB/s, less than {minimum / 1000:.0f} kB/s"
        raise TooSlow(reason, from_the_start=not throughput.was_sufficient)


def _receive(body: Any, piece: memoryview) -> int:
    """Read the available bytes, at most a piece. The `readinto` of http.client waits for the whole piece: on a slow
    connection, for hours.
    """
    if body.chunked or not body.length:
        return int(body.readinto(piece))
    count = int(body.fp.readinto1(piece[: body.length]))
    body.length -= count
    if not body.length:
        body.readinto(piece[:0])  # releases the connection at the end of the body
    return count


def small_body(response: BaseHTTPResponse, throughput: Throughput, limit: int = ANSWER_LIMIT) -> bytes:
    """A whole body, cut after about `limit` bytes."""
    body = bytearray()
    while len(body) < limit and (piece := response.read1(PIECE)):
        body += piece
        if response.length_remaining != 0:  # a body that is complete is used, even after a slow read
            _check(throughput, len(piece))
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
        raise NoAnswer("the TLS connection failed") from error
    except (NewConnectionError, ConnectTimeoutError) as error:
        raise Unreachable("no connection, or none in time") from error
    except (ReadTimeoutError, TimeoutError) as error:
        raise NoAnswer("the connection is open, but no byte came in time") from error
    except LocationValueError:
        # Without its cause, which holds the address.
        raise Blocked("the address of the hub or of a link is not valid", "check model.endpoint") from None
    except (HTTPError, HTTPException, OSError) as error:
        raise NoAnswer(f"the connection broke ({type(error).__name__})") from error
