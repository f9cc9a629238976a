"""The XML documents of OSS: the responses of operations, and two request bodies."""

from datetime import UTC, datetime
from urllib.parse import quote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from workflows.simulator.core.bucket.errors import OssError
from workflows.simulator.core.bucket.request import OssReply

CONTENT_TYPE = "application/xml"

Tree = list[tuple[str, "str | Tree"]]
"""Elements in order: (name, text or children)."""


def document(root: str, tree: "str | Tree") -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{_element(root, tree)}\n'.encode()


def reply(root: str, tree: "str | Tree") -> OssReply:
    return OssReply(200, {"Content-Type": CONTENT_TYPE}, document(root, tree))


def _element(name: str, content: "str | Tree") -> str:
    inner = escape(content) if isinstance(content, str) else "".join(_element(*child) for child in content)
    return f"<{name}>{inner}</{name}>"


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def encoded(text: str, encoding_type: str) -> str:
    """A key as the client asked for it: `url` protects characters that XML cannot hold."""
    return quote(text, safe="") if encoding_type == "url" else text


def flag(value: bool) -> str:
    return "true" if value else "false"


def part_list(body: bytes) -> list[tuple[int, str]]:
    """(number, ETag) of each part that CompleteMultipartUpload names. Raises OssError."""
    root = _parse(body, "CompleteMultipartUpload")
    try:
        parts = [(int(_text(part, "PartNumber")), _text(part, "ETag").strip('"').upper()) for part in root.iter("Part")]
    except ValueError as error:
        raise _malformed() from error
    if not parts:
        raise _malformed()
    return parts


def keys_to_delete(body: bytes) -> tuple[list[str], bool]:
    """The keys of DeleteMultipleObjects, and whether the answer stays quiet. Raises OssError."""
    root = _parse(body, "Delete")
    return [_text(entry, "Key") for entry in root.iter("Object")], root.findtext("Quiet") == "true"


def _parse(body: bytes, name: str) -> ET.Element:
    try:
        root = ET.fromstring(body)  # noqa: S314  # a rehearsal on loopback
    except ET.ParseError as error:
        raise _malformed() from error
    if root.tag != name:
        raise _malformed()
    return root


def _text(element: ET.Element, name: str) -> str:
    text = element.findtext(name)
    if text is None:
        raise _malformed()
    return text


def _malformed() -> OssError:
    message = "The XML you provided was not well-formed or did not validate against our published schema."
    return OssError(400, "MalformedXML", message)
