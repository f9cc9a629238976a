"""Where the bytes of LFS files are: `/cdn/...` as on the hub's CDN, `/internal/<region>/cdn/...` as on OSS inside a
region. It answers to signed links alone.
"""

import threading
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from workflows.simulator.core.hub.links import Links
from workflows.simulator.core.hub.repository import Entry, Repositories
from workflows.simulator.faults import request_faults
from workflows.simulator.http.hub_bodies import (
    ANY_BODY,
    ERRORS,
    BodyHandler,
    Span,
    UnsatisfiableRangeError,
    parse_range,
)

POSSIBLE = (*ANY_BODY, request_faults.WRONG_BYTES, request_faults.EXPIRED_LINK)


class Blobs:
    """Which file is behind which link. Links of an earlier start are unknown, like links that have ended."""

    def __init__(self, repositories: Repositories, links: Links) -> None:
        self._shelf = repositories
        self._links = links
        self._files: dict[str, tuple[str, str]] = {}  # sha256 -> (model, path)
        self._lock = threading.Lock()

    def link(self, model_id: str, entry: Entry, place: str) -> str:
        """Path and query of a link below `place`, in the form of the real ones: the path is made of the SHA-256."""
        with self._lock:
            self._files[entry.sha256] = (model_id, entry.path)
        folder, sub, rest = entry.sha256[:2], entry.sha256[2:4], entry.sha256[4:]
        path = f"{place}/prod/lfs-objects/{folder}/{sub}/{rest}"
        namespace, _, repository = model_id.partition("/")
        names = {"filename": entry.path, "namespace": namespace, "repository": repository, "revision": "master"}
        query = urlencode({**names, "tag": "model", "auth_key": self._links.sign(path)}, quote_via=quote)
        return f"{path}?{query}"

    def find(self, path: str, key: str) -> tuple[Path, Entry] | None:
        """The file that a link leads to, if the link is good and the file still holds that content."""
        sha256 = "".join(path.split("/")[-3:])
        with self._lock:
            model_id, name = self._files.get(sha256, ("", ""))
        repository = self._shelf.repository(model_id) if self._links.valid(path, key) else None
        entry = repository.file(name) if repository else None
        return (repository.location(entry), entry) if repository and entry and entry.sha256 == sha256 else None


class CdnHandler(BodyHandler):
    blobs: Blobs
    internal_link: str  # how internal links behave; see Hub

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        key = parse_qs(url.query).get("auth_key", [""])[0]
        fault = self._fault(url.path)
        found = self.blobs.find(url.path, key)
        if self.headers["Authorization"] or self.headers["Cookie"]:
            self._deny("credentials of another host were sent here")
        elif not found or fault == request_faults.EXPIRED_LINK:
            self._deny("the link has ended or its signature is wrong")
        elif fault in ERRORS:
            self.refuse(ERRORS[fault], ERRORS[fault], "rehearsed failure")
        else:
            self._serve(*found, fault)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _fault(self, path: str) -> str | None:
        if path.startswith("/internal/"):
            if self.internal_link == "refuses":
                return request_faults.EXPIRED_LINK
            if self.internal_link == "crawls":
                return request_faults.SLOW
        return self.next_fault(POSSIBLE)

    def _serve(self, path: Path, entry: Entry, fault: str | None) -> None:
        headers = {
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "ETag": f'"{entry.sha256}"',
            "X-Linked-ETag": f'"{entry.sha256}"',
        }
        try:
            span = parse_range(self.headers["Range"], entry.size)
        except UnsatisfiableRangeError:
            self.send_body(416, b"", "text/plain", {"Content-Range": f"bytes */{entry.size}"})
            return
        if span is None:
            self.send_file(path, Span(0, entry.size, entry.size), 200, headers, fault)
        else:
            self.send_file(path, span, 206, {**headers, "Content-Range": span.content_range}, fault)

    def _deny(self, why: str) -> None:
        self.send_body(403, f"<Error><Code>AccessDenied</Code><Message>{why}</Message></Error>".encode(), "text/xml")
