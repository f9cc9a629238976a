"""ModelScope: list one revision of a model, and read its files in ranges.

The API is the one of the package modelscope-hub. An error may come with HTTP status 200. LFS files are redirected to
signed links that expire. Small files come from the gateway itself, which answers a bounded range with status 200, and
an open range wrongly: so ranges are bounded, and Content-Range decides.
"""

import logging
import re
import threading
import uuid
from http import HTTPStatus
from urllib.parse import quote, urlencode

from urllib3 import BaseHTTPResponse

from steps.adapters.modelscope.errors import (
    HubError,
    LinkRefused,
    NoAnswer,
    TooSlow,
    Unreachable,
    UnusableAnswer,
    is_transient,
    retry_after,
)
from steps.adapters.modelscope.http import HttpClient, small_body
from steps.adapters.modelscope.links import Link, Links, checked, moved_on
from steps.adapters.modelscope.listing import absent, decoded, error_of, listing_of
from steps.adapters.modelscope.ranges import Range, fill, refuse_error_body
from steps.adapters.modelscope.retries import HubAttempts, HubLimits
from steps.adapters.throughput import Throughput
from steps.errors import Blocked
from steps.model import Listing, ModelFile

log = logging.getLogger(__name__)

REGION_HEADER = "x-aliyun-region-id"
ERROR_LIMIT = 1 << 16  # bytes that are read of an error

_TOKEN = re.compile(r"[!-:<-~]*")  # printable, and no `;`, which would end the cookie


class ModelScopeSource:
    """One revision of one model. Safe to use from many threads.

    With a `region` (such as cn-hangzhou), it requests links inside that region's network. If those are refused,
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
        limits: HubLimits | None = None,
    ) -> None:
        if not _TOKEN.fullmatch(token):
            raise Blocked(
                "the hub token has characters that are not valid in a token, such as spaces or line ends",
                "check the Secret of model.token: it must hold the token alone",
            )
        self._model = f"{model_id}@{revision}"
        self._api = f"{endpoint.rstrip('/')}/api/v1/models/{quote(model_id)}"
        self._revision = revision
        self._token = token
        self._region = region
        self._limits = limits or HubLimits()
        self._http = HttpClient(self._limits)
        self._links = Links()
        self._admitted = False  # after the first admission, a 403 is an incident and not a decision
        self._delivered: set[tuple[str, int]] = set()
        self._read_again: set[str] = set()
        self._lock = threading.Lock()

    def listing(self) -> Listing:
        """Raises Blocked for an absent or closed model, and for a listing with errors."""
        return HubAttempts(self._limits, f"listing {self._model}").request(self._list)

    def read(self, file: ModelFile, start: int, buffer: memoryview) -> int:
        """Fill `buffer` from `start` on; each attempt continues behind the bytes of the earlier ones.

        Raises Blocked if the file at the hub is not the listed one. The caller verifies the bytes, by SHA-256.
        """
        if not len(buffer):
            return 0
        self._notice_second_read(file, start)
        target = Range(file, start, buffer)
        attempts = HubAttempts(self._limits, f"reading {file.path} of {self._model}")
        attempts.request(lambda: self._attempt(target, attempts))
        with self._lock:
            self._delivered.add((file.path, start))
        return target.crc64

    def _notice_second_read(self, file: ModelFile, start: int) -> None:
        """A second read of a range means wrong bytes: the next ones come from the public replica."""
        with self._lock:
            if (file.path, start) not in self._delivered or file.path in self._read_again:
                return
            self._read_again.add(file.path)
        link = self._links.get(file)
        if link:
            self._links.drop(file, link)

    def _list(self) -> Listing:
        query = urlencode({"Revision": self._revision, "Recursive": "True"})
        with self._http.get(f"{self._api}/repo/files?{query}", self._credentials()) as response:
            self._refuse_status(response)
            body = small_body(response, self._throughput())
        listing = listing_of(body, response.headers.get("Content-Type", ""), self._model)
        self._admitted = True
        return listing

    def _attempt(self, target: Range, attempts: HubAttempts) -> None:
        before = target.filled
        link = self._links.get(target.file)
        try:
            link = link or self._resolve(target)
            if link:
                self._fetch(target, link)
        except HubError as error:
            too_slow = isinstance(error, TooSlow) and error.from_the_start
            if target.filled > before and not too_slow:
                attempts.progress()
                target.setbacks = 0
            target.setbacks += 1
            if link and link.region and _is_useless(link, error, target.setbacks):
                self._leave_region(error)
            raise

    def _resolve(self, target: Range) -> Link | None:
        """The link of an LFS file. None for a small file: its bytes are then in `target`."""
        region = "" if target.file.path in self._read_again else self._region
        headers = self._credentials()
        if region:
            headers |= {REGION_HEADER: region, "snapshot-identifier": uuid.uuid4().hex}
        if not target.is_whole:
            headers |= target.header
        query = urlencode({"Revision": self._revision, "FilePath": target.file.path}, quote_via=quote)
        url = f"{self._api}/repo?{query}"
        with self._http.get(url, headers) as response:
            if response.status in (301, 302, 303, 307, 308):
                link = checked(response.headers.get("Location"), url, target.file, region)
                small_body(response, self._throughput(), ERROR_LIMIT)
                self._admitted = True
                self._links.keep(target.file, link)
                return link
            self._refuse_status(response, target.file)
            refuse_error_body(response, target, self._throughput())
            fill(response, target, self._throughput())
        return None

    def _fetch(self, target: Range, link: Link) -> None:
        minimum = self._limits.internal_throughput if link.region else self._limits.throughput
        # No credentials here: the link is one, and it leads to another host.
        with self._http.get(link.url, target.header) as response:
            if response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                fill(response, target, Throughput(minimum))
                link.worked = True
                return
            self._refuse_link(response, target.file, link)

    def _refuse_link(self, response: BaseHTTPResponse, file: ModelFile, link: Link) -> None:
        status = response.status
        if status in (401, 403, 404, 410):
            self._links.drop(file, link)
            raise LinkRefused(f"the link to {file.path} was refused with status {status}")
        if is_transient(status):
            raise _no_answer(response)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._links.drop(file, link)
            raise UnusableAnswer(f"{file.path} is shorter there than listed ({file.size} bytes)")
        raise UnusableAnswer(f"the link to {file.path} answered with status {status}")

    def _leave_region(self, error: HubError) -> None:
        with self._lock:
            region, self._region = self._region, ""
        self._links.drop_internal()
        if region:
            log.warning("the internal link of %s does not work (%s); public links from now on", region, error)

    def _refuse_status(self, response: BaseHTTPResponse, file: ModelFile | None = None) -> None:
        """Raises the error of the gateway's status, for the file or for the whole model."""
        status = response.status
        if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return
        if is_transient(status):
            raise _no_answer(response)
        error = error_of(decoded(small_body(response, self._throughput(), ERROR_LIMIT)))
        message = error[1] if error else f"status {status}"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            if self._admitted:
                raise UnusableAnswer(f"the hub refused access after it had granted it: {message}")
            raise self._closed(message)
        if status == HTTPStatus.NOT_FOUND:
            raise moved_on(file, f"the hub answers {message}") if file else absent(self._model, message)
        raise UnusableAnswer(f"the hub answered with status {status}: {message}")

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

    def _throughput(self) -> Throughput:
        return Throughput(self._limits.throughput)


def _no_answer(response: BaseHTTPResponse) -> NoAnswer:
    wait = retry_after(response.headers.get("Retry-After"))
    return NoAnswer(f"status {response.status}", retry_after=wait)


def _is_useless(link: Link, error: HubError, setbacks: int) -> bool:
    """Whether an internal link deserves no further attempt: also after two failures in a row without a byte."""
    never_accepted = isinstance(error, LinkRefused) and not link.worked
    return isinstance(error, Unreachable | TooSlow) or never_accepted or setbacks > 1
