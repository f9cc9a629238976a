"""Signed links to the bytes of LFS files, from the redirects of the hub. They stay in memory only."""

import re
import threading
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

from steps.adapters.modelscope.errors import UnusableAnswer
from steps.errors import Blocked
from steps.model import ModelFile

# `https://cdn-lfs-cn-1.modelscope.cn/prod/lfs-objects/<2 hex>/<2 hex>/<60 hex>?...&auth_key=...`
_LFS_OBJECT = re.compile(r"/lfs-objects/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{60})$")


@dataclass
class Link:
    url: str = field(repr=False)  # a credential until it expires
    region: str  # of the request; empty for a public link
    worked: bool = False


def checked(location: str | None, base: str, file: ModelFile, region: str) -> Link:
    """The link of a redirect. Raises Blocked if it leads to other bytes than the listed ones."""
    try:
        url = urljoin(base, location or "")
        parts = urlsplit(url)
        usable = bool(location) and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise UnusableAnswer("the hub redirected to an address that is not valid")
    match = _LFS_OBJECT.search(parts.path)
    if match and "".join(match.groups()) != file.sha256:
        raise moved_on(file, f"its link leads to the SHA-256 {''.join(match.groups())}")
    return Link(url, region)


def moved_on(file: ModelFile, found: str) -> Blocked:
    return Blocked(
        f"{file.path} changed at the hub after it was listed: {found}, "
        f"expected {file.size} bytes with the SHA-256 {file.sha256}",
        "the revision moved during the run; start a new run, which pins the new one and moves only the changed files",
    )


class Links:
    """One link a file, for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._links: dict[str, Link] = {}
        self._only_public = False

    def get(self, file: ModelFile) -> Link | None:
        with self._lock:
            return self._links.get(file.path)

    def keep(self, file: ModelFile, link: Link) -> None:
        with self._lock:
            # The request for an internal link may be older than the decision for public links.
            if not (link.region and self._only_public):
                self._links[file.path] = link

    def drop(self, file: ModelFile, link: Link) -> None:
        """Forget this link, unless another thread has replaced it."""
        with self._lock:
            if self._links.get(file.path) is link:
                del self._links[file.path]

    def drop_internal(self) -> None:
        """Forget all internal links, and keep none from now on."""
        with self._lock:
            self._only_public = True
            self._links = {path: link for path, link in self._links.items() if not link.region}
