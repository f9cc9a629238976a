"""Answers of OSS: their content, checked."""

from typing import Any
from xml.etree import ElementTree as ET

from steps.adapters.oss.errors import ChecksumError, ShortAnswerError, WrongSliceError
from steps.adapters.throughput import MinimumThroughput, Throughput
from steps.ports.oss import Metadata, StoredObject, StoredPart

METADATA = "x-oss-meta-"
PARTIAL_CONTENT = 206


def metadata_headers(metadata: Metadata | None) -> dict[str, str]:
    return {METADATA + name: value for name, value in (metadata or {}).items()}


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
    """Raises WrongSliceError unless the answer holds exactly the requested bytes."""
    expected = f"bytes {start}-{start + size - 1}/"
    whole = answer.status != PARTIAL_CONTENT and start == 0
    if answer.content_length != size or not (whole or (answer.content_range or "").startswith(expected)):
        found = answer.content_range or f"all of its {answer.content_length} bytes"
        raise WrongSliceError(f"{found}, expected {expected}")


def fill(raw: Any, buffer: memoryview, minimum: MinimumThroughput, piece: int) -> None:
    """Read the body into `buffer`. Raises ShortAnswerError for one that ends early or comes too slowly."""
    done, throughput = 0, Throughput(minimum)
    while done < len(buffer):
        count = raw.readinto(buffer[done : done + piece])
        if not count:
            raise ShortAnswerError(f"the answer ended after {done} of {len(buffer)} bytes")
        done += count
        rate = throughput.add(count)
        if rate is not None and done < len(buffer):
            raise ShortAnswerError(f"{rate:.0f} bytes a second, expected at least {minimum.bytes_per_second}")


def compare(found: int | None, expected: int | None, request_id: str) -> None:
    if found != expected:
        raise ChecksumError(found, expected, request_id)


def sendable(body: bytes | memoryview) -> bytes | memoryview:
    """Requests sends a memoryview in one call, but an empty one in chunks."""
    return body if len(body) else b""
