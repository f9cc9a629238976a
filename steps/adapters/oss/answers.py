"""What is read from the answers of OSS."""

import time
from collections.abc import Mapping
from typing import Any, Protocol
from xml.etree import ElementTree as ET

from steps.adapters.oss.errors import ChecksumError, ShortAnswerError, WrongSliceError
from steps.ports.oss import StoredObject, StoredPart

METADATA = "x-oss-meta-"
PARTIAL_CONTENT = 206


class Speed(Protocol):
    @property
    def window(self) -> float: ...  # seconds over which the speed is judged

    @property
    def floor(self) -> int: ...  # bytes a second

    @property
    def chunk(self) -> int: ...  # bytes between two looks at the clock


def metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    return {METADATA + name: value for name, value in metadata.items()}


def stored_object(key: str, answer: Any) -> StoredObject:
    """From the answer to HEAD."""
    pairs = ((name.lower(), value) for name, value in answer.headers.items())
    metadata = {name.removeprefix(METADATA): value for name, value in pairs if name.startswith(METADATA)}
    return StoredObject(key, answer.content_length or 0, answer.etag, answer.server_crc, metadata)


def stored_parts(body: bytes) -> list[StoredPart]:
    """From the answer to ListParts; oss2's own parser drops the CRC-64 of each part.

    https://www.alibabacloud.com/help/en/oss/developer-reference/listparts
    """
    return [_stored_part(part) for part in ET.fromstring(body).iter("Part")]  # noqa: S314  # oss2 has parsed it already


def _stored_part(part: ET.Element) -> StoredPart:
    sum_ = part.findtext("HashCrc64ecma", "")
    return StoredPart(
        number=int(part.findtext("PartNumber", "")),
        size=int(part.findtext("Size", "")),
        etag=part.findtext("ETag", "").strip('"'),
        crc64=int(sum_) if sum_ else None,
    )


def check_range(answer: Any, start: int, size: int) -> None:
    """Raises WrongSliceError unless the answer holds exactly the bytes that were asked for."""
    expected = f"bytes {start}-{start + size - 1}/"
    whole = answer.status != PARTIAL_CONTENT and start == 0
    if answer.content_length != size or not (whole or (answer.content_range or "").startswith(expected)):
        found = answer.content_range or f"all of its {answer.content_length} bytes"
        raise WrongSliceError(f"{found}, expected {expected}")


def fill(raw: Any, buffer: memoryview, speed: Speed) -> None:
    """Read the body into `buffer`, unless it comes too slowly.

    Raises ShortAnswerError.
    """
    done, since, before = 0, time.monotonic(), 0
    while done < len(buffer):
        count = raw.readinto(buffer[done : done + speed.chunk])
        if not count:
            raise ShortAnswerError(f"the answer ended after {done} of {len(buffer)} bytes")
        done += count
        elapsed = time.monotonic() - since
        if elapsed > speed.window:
            rate = (done - before) / elapsed
            if rate < speed.floor and done < len(buffer):
                raise ShortAnswerError(f"{rate:.0f} bytes a second, expected {speed.floor} at least")
            since, before = time.monotonic(), done


def written(wanted: StoredObject, answer: Any) -> StoredObject:
    """From the answer to a write, whose CRC-64 was compared."""
    return StoredObject(wanted.key, wanted.size, answer.etag, wanted.crc64, wanted.metadata)


def compare(found: int | None, expected: int, request_id: str) -> None:
    if found != expected:
        raise ChecksumError(found, expected, request_id)


def sendable(body: bytes | memoryview) -> bytes | memoryview:
    """Requests sends a memoryview as it is, in one call; an empty one it would send in chunks."""
    return body if len(body) else b""
