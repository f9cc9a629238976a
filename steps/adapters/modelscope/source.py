"""ModelScope: list one revision of a model, and read its files in ranges.

The API is the one that the package modelscope-hub uses. Its habits that matter here: an error may come
with HTTP status 200; LFS files are redirected to signed links that end; small files come from the gateway itself, which
answers a bounded range with status 200 and gets open ranges wrong. So ranges are bounded, and what counts is
Content-Range.
"""

import logging
import re
import threading
import uuid
from http import HTTPStatus
from urllib.parse import quote, urlencode

from urllib3 import BaseHTTPResponse

from steps.adapters.modelscope.failures import (
    Doubtful,
    HubFailure,
    LinkRefused,
    TooSlow,
    Unanswered,
    Unreachable,
    retry_after,
    unanswered,
)
from steps.adapters.modelscope.http import Pace, Web, small_body
from steps.adapters.modelscope.links import Link, Links, checked, moved_on
from steps.adapters.modelscope.listing import absent, decoded, error_of, listing_of
from steps.adapters.modelscope.ranges import Range, fill, refuse_error_body
from steps.adapters.modelscope.retries import Patience, Retries
from steps.errors import Blocked
from steps.model import Listing, ModelFile

log = logging.getLogger(__name__)

REGION_HEADER = "x-aliyun-region-id"
ERROR_LIMIT = 1 << 16  # bytes of an error that are read

_TOKEN = re.compile(r"[!-:<-~]*")  # printable, and no `;`, which would end the cookie


class ModelScopeSource:
    """One revision of one model. Safe to use from many threads.

    With a `region` (such as cn-hangzhou), links inside that region's network are asked for. If those are refused,
    unreachable or slow, this process uses public links from then on.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        model_id: str,
        revision: str,
        token: str = "",
        region: str = "",
        patience: Patience | None = None,
    ) -> None:
        if not _TOKEN.fullmatch(token):
            raise Blocked(
                "the hub token has characters that no token has, such as spaces or line ends",
                "check the Secret of model.token: it must hold the token alone",
            )
        self._model = f"{model_id}@{revision}"
        self._api = f"{endpoint.rstrip('/')}/api/v1/models/{quote(model_id)}"
        self._revision = revision
        self._token = token
        self._region = region
        self._patience = patience or Patience()
        self._web = Web(self._patience)
        self._links = Links()
        self._admitted = False  # once the hub has let us in, a 403 is a hiccup and not a decision
        self._delivered: set[tuple[str, int]] = set()
        self._doubted: set[str] = set()
        self._lock = threading.Lock()

    def listing(self) -> Listing:
        """Raises Blocked for a model that is absent or closed to us, and for a listing that cannot be trusted."""
        return Retries(self._patience, f"listing {self._model}").run(self._list)

    def read(self, file: ModelFile, start: int, buffer: memoryview) -> int:
        """Fill `buffer` from `start` on; what arrived before a failure is kept, so attempts only ever add to it.

        Raises Blocked if the file at the hub is not the one that was listed. Whether the bytes are right is for the
        caller to say, by SHA-256.
        """
        if not len(buffer):
            return 0
        self._notice_second_read(file, start)
        wanted = Range(file, start, buffer)
        retries = Retries(self._patience, f"reading {file.path} of {self._model}")
        retries.run(lambda: self._attempt(wanted, retries))
        with self._lock:
            self._delivered.add((file.path, start))
        return wanted.crc64

    def _notice_second_read(self, file: ModelFile, start: int) -> None:
        """Who reads a range again did not trust the bytes: another replica, the public one, gets a chance."""
        with self._lock:
            if (file.path, start) not in self._delivered or file.path in self._doubted:
                return
            self._doubted.add(file.path)
        link = self._links.get(file)
        if link:
            self._links.drop(file, link)

    def _list(self) -> Listing:
        query = urlencode({"Revision": self._revision, "Recursive": "True"})
        with self._web.get(f"{self._api}/repo/files?{query}", self._credentials()) as response:
            self._refuse_status(response)
            body = small_body(response, self._pace(self._patience.floor))
        listing = listing_of(body, response.headers.get("Content-Type", ""), self._model)
        self._admitted = True
        return listing

    def _attempt(self, wanted: Range, retries: Retries) -> None:
        before = wanted.filled
        link = self._links.get(wanted.file)
        try:
            link = link or self._resolve(wanted)
            if link:
                self._fetch(wanted, link)
        except HubFailure as failure:
            drips = isinstance(failure, TooSlow) and failure.from_the_start
            if wanted.filled > before and not drips:
                retries.progress()
                wanted.setbacks = 0
            wanted.setbacks += 1
            if link and link.region and _is_hopeless(link, failure, wanted.setbacks):
                self._leave_region(failure)
            raise

    def _resolve(self, wanted: Range) -> Link | None:
        """The link of an LFS file. A small file comes at once; then there is no link, and `wanted` is full."""
        region = "" if wanted.file.path in self._doubted else self._region
        headers = self._credentials()
        if region:
            headers |= {REGION_HEADER: region, "snapshot-identifier": uuid.uuid4().hex}
        if not wanted.is_whole:
            headers |= wanted.header
        query = urlencode({"Revision": self._revision, "FilePath": wanted.file.path}, quote_via=quote)
        url = f"{self._api}/repo?{query}"
        with self._web.get(url, headers) as response:
            if response.status in (301, 302, 303, 307, 308):
                link = checked(response.headers.get("Location"), url, wanted.file, region)
                small_body(response, self._pace(self._patience.floor), ERROR_LIMIT)
                self._admitted = True
                self._links.keep(wanted.file, link)
                return link
            self._refuse_status(response, wanted.file)
            refuse_error_body(response, wanted, self._pace(self._patience.floor))
            fill(response, wanted, self._pace(self._patience.floor))
        return None

    def _fetch(self, wanted: Range, link: Link) -> None:
        floor = self._patience.internal_floor if link.region else self._patience.floor
        # No credentials here: the link is one, and it leads to another host.
        with self._web.get(link.url, wanted.header) as response:
            if response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                fill(response, wanted, self._pace(floor))
                link.worked = True
                return
            self._refuse_link(response, wanted.file, link)

    def _refuse_link(self, response: BaseHTTPResponse, file: ModelFile, link: Link) -> None:
        status = response.status
        if status in (401, 403, 404, 410):
            self._links.drop(file, link)
            raise LinkRefused(f"the link to {file.path} was refused with status {status}")
        if unanswered(status):
            raise _unanswered(response)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._links.drop(file, link)
            raise Doubtful(f"{file.path} is shorter there than listed ({file.size} bytes)")
        raise Doubtful(f"the link to {file.path} answered with status {status}")

    def _leave_region(self, failure: HubFailure) -> None:
        with self._lock:
            region, self._region = self._region, ""
        self._links.drop_internal()
        if region:
            log.warning("the internal link of %s does not work (%s); public links from now on", region, failure)

    def _refuse_status(self, response: BaseHTTPResponse, file: ModelFile | None = None) -> None:
        """What the gateway's status says about the file, or about the whole model."""
        status = response.status
        if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return
        if unanswered(status):
            raise _unanswered(response)
        said = error_of(decoded(small_body(response, self._pace(self._patience.floor), ERROR_LIMIT)))
        message = said[1] if said else f"status {status}"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            if self._admitted:
                raise Doubtful(f"the hub refused access after it had let us in: {message}")
            raise self._closed(message)
        if status == HTTPStatus.NOT_FOUND:
            raise moved_on(file, f"the hub says {message}") if file else absent(self._model, message)
        raise Doubtful(f"the hub answered with status {status}: {message}")

    def _closed(self, message: str) -> Blocked:
        hint = (
            "ask the owner of the model for access, and check that the token in the Secret of model.token is valid"
            if self._token
            else "the model is private or gated: name the Secret with a hub token in model.token"
        )
        return Blocked(f"{self._model}: the hub refuses access: {message}", hint)

    def _credentials(self) -> dict[str, str]:
        """Older pages of the hub read the cookie, newer ones the header."""
        if not self._token:
            return {}
        return {"Authorization": f"Bearer {self._token}", "Cookie": f"m_session_id={self._token}"}

    def _pace(self, floor: int) -> Pace:
        return Pace(floor, self._patience.window)


def _unanswered(response: BaseHTTPResponse) -> Unanswered:
    wait = retry_after(response.headers.get("Retry-After"))
    return Unanswered(f"status {response.status}", retry_after=wait)


def _is_hopeless(link: Link, failure: HubFailure, setbacks: int) -> bool:
    """Whether an internal link is worth no further attempt. One reset is nothing; two in a row without a byte are."""
    never_accepted = isinstance(failure, LinkRefused) and not link.worked
    return isinstance(failure, Unreachable | TooSlow) or never_accepted or setbacks > 1
