"""Takes the body of a request from its socket, summing it on the way."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from fastcrc import crc64

from workflows.simulator.core.bucket.request import Body

BUFFER = 1 << 20  # bytes: large enough that Python costs little, small enough to stay in the cache
Write = Callable[[memoryview, int], None]
"""Takes the next bytes and their offset in the body."""

_buffers = threading.local()


@dataclass(frozen=True)
class Received:
    size: int
    crc64: int
    md5: bytes | None  # None if it was not summed

    @property
    def etag(self) -> str:
        """As OSS writes it: the MD5 in upper case. Without one, sixteen bytes that distinguish contents as well."""
        content = self.md5 or self.crc64.to_bytes(8, "big") + self.size.to_bytes(8, "big")
        return content.hex().upper()


def receive(body: Body, length: int, write: Write | None, *, md5: bool = True, flip: bool = False) -> Received:
    """Read `length` bytes and hand them to `write`; `flip` changes one bit, as a faulty disk would.

    Raises EOFError for a body that ends early.
    """
    digest = hashlib.md5(usedforsecurity=False) if md5 else None
    crc, done = 0, 0
    while done < length:
        chunk = _buffer()[: min(BUFFER, length - done)]
        _fill(body, chunk)
        if flip and not done:
            chunk[0] ^= 1
        crc = crc64.xz(chunk, crc)
        if digest:
            digest.update(chunk)
        if write:
            write(chunk, done)
        done += len(chunk)
    return Received(length, crc, digest.digest() if digest else None)


def _buffer() -> memoryview:
    if not hasattr(_buffers, "view"):
        _buffers.view = memoryview(bytearray(BUFFER))
    view: memoryview = _buffers.view
    return view


def _fill(body: Body, chunk: memoryview) -> None:
    done = 0
    while done < len(chunk):
        count = body.readinto(chunk[done:])
        if not count:
            raise EOFError("the body ended early")
        done += count
