"""An embedded ModelScope hub. It serves models from plain folders, `folder/<owner>/<name>/`: edit a file there, and
the next listing shows another revision of the model.

Paths, fields and limits are those that the hub's own client uses: `modelscope_hub._legacy_api` and `_download` of
the package modelscope-hub. Two habits of the real service are kept: a missing file is an HTTP 200 with an
error in JSON, and a listing ends at 3000 entries without an error.
"""

import re
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from werkzeug import Request, Response
from werkzeug.exceptions import NotFound
from werkzeug.routing import Map, Rule

from workflows.simulator.core.hub.links import Links
from workflows.simulator.core.hub.repository import Entry, Repositories, Repository
from workflows.simulator.faults import request_faults
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.files import BODY_FAULTS, UnsatisfiableRangeError, file_response, parse_range
from workflows.simulator.http.server import LOOPBACK, LoopbackServer, json_reply, target_of, text

InternalLink = Literal["serves", "refuses", "crawls", "unreachable", "absent"]
REMEMBERED: Final = 20_000  # requests
LISTING_LIMIT: Final = 3000
NO_RECORD: Final = 10010205001
EMPTY_FILE: Final = 10990101007
REGION_HEADER: Final = "x-aliyun-region-id"
ERRORS: Final = {
    request_faults.SERVER_ERROR: 500,
    request_faults.UNAVAILABLE: 503,
    request_faults.THROTTLED: 429,
    request_faults.FORBIDDEN: 403,
}
API_FAULTS: Final = (*ERRORS, request_faults.JSON_200)
FILE_FAULTS: Final = (*API_FAULTS, *BODY_FAULTS, request_faults.WRONG_BYTES)
LINK_FAULTS: Final = (*ERRORS, *BODY_FAULTS, request_faults.WRONG_BYTES, request_faults.EXPIRED_LINK)
_URLS: Final = Map(
    [
        Rule("/api/v1/repos/internalAccelerationInfo", endpoint="acceleration"),
        Rule("/api/v1/models/<owner>/<name>/repo/files", endpoint="listing"),
        Rule("/api/v1/models/<owner>/<name>/repo", endpoint="file"),
        Rule("/api/v1/models/<owner>/<name>/revisions", endpoint="revisions"),
        Rule("/api/v1/models/<owner>/<name>", endpoint="information"),
        Rule("/openapi/v1/models/<owner>/<name>", endpoint="open_api"),
        Rule("/<owner>/<name>/resolve/<revision>/<path:path>", endpoint="file"),
    ],
    merge_slashes=False,
)


@dataclass(frozen=True)
class RecordedRequest:
    """A request to the hub or its CDN."""

    method: str
    target: str  # path and query
    headers: Mapping[str, str]
    client_port: int  # the same for all requests of one connection

    def __str__(self) -> str:
        return f"{self.method} {self.target}"


class _RefusedError(Exception):
    """Ends a request with `response`."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class Hub:
    """Gateway and CDN on two ports, as they are two hosts in the real service.

    `private` maps models to the token that may read them. `link_seconds` is the life of a link. A client that names its
    region gets an internal link, which behaves as `internal_link` names. `rate` limits one connection to the CDN, in
    bytes a second; 0 is no limit.
    """

    def __init__(  # noqa: PLR0913  # keywords: one for each thing that a rehearsal varies
        self,
        folder: Path,
        *,
        port: int = 0,
        host: str = LOOPBACK,
        faults: RequestFaults | None = None,
        private: Mapping[str, str] | None = None,
        link_seconds: float = 1800.0,
        internal_link: InternalLink = "serves",
        rate: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.requests: deque[RecordedRequest] = deque(maxlen=REMEMBERED)
        self._faults = faults or RequestFaults()
        self._repositories = Repositories(folder)
        self._links = Links(self._repositories, link_seconds, clock)
        self._private = private or {}
        self._internal_link = internal_link
        self._gateway = LoopbackServer(self._serve, port, host)  # first, because its port may be in use
        self._cdn = LoopbackServer(self._serve_link, host=host, rate=rate)
        # A bound port without a listener: connections are refused, and no other process can take it.
        self._closed = socket.socket()
        self._closed.bind((host, 0))
        self._unreachable_url = f"http://{host}:{self._closed.getsockname()[1]}"

    @property
    def url(self) -> str:
        return self._gateway.url

    @property
    def cdn_url(self) -> str:
        return self._cdn.url

    def start(self) -> None:
        self._cdn.start()
        self._gateway.start()

    def stop(self) -> None:
        self._gateway.stop()
        self._cdn.stop()
        self._closed.close()

    def received(self, part: str) -> list[RecordedRequest]:
        """The requests so far with `part` in their method and target."""
        return [request for request in list(self.requests) if part in str(request)]

    def _record(self, request: Request) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        port = int(request.environ["REMOTE_PORT"])
        self.requests.append(RecordedRequest(request.method, target_of(request), headers, port))

    def _serve(self, request: Request) -> Response:
        self._record(request)
        try:
            endpoint, path = _URLS.bind_to_environ(request.environ).match()
            if endpoint == "acceleration":
                # No address to ask for a region: a client reads its region from its own configuration.
                return _answer({"InternalRegionQueryAddress": ""})
            model_id = f"{path['owner']}/{path['name']}"
            revision = path.get("revision") or request.args.get("Revision", "master")
            repository = self._repository(request, model_id, revision)
            if endpoint == "file":
                return self._file(request, model_id, repository, path.get("path") or request.args.get("FilePath", ""))
            self._fail(request)
            return _FACTS[endpoint](repository, request.args, path)
        except NotFound:
            return self._refuse(404, 404, f"no such page: {request.path}")
        except _RefusedError as error:
            return error.response

    def _repository(self, request: Request, model_id: str, revision: str) -> Repository:
        repository, expected = self._repositories.get(model_id), self._private.get(model_id)
        given = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.cookies.get("m_session_id")
        if expected and not given:
            raise _RefusedError(self._refuse(401, 10010201001, "login required"))
        if expected and given != expected:
            raise _RefusedError(self._refuse(403, 10010203001, "no permission to access this model"))
        if repository is None:
            raise _RefusedError(self._refuse(404, NO_RECORD, f"model {model_id} record not found"))
        if revision != "master" and revision != repository.commit:  # noqa: PLR1714  # a commit is made of every file
            raise _RefusedError(self._refuse(404, NO_RECORD, f"revision {revision} record not found"))
        return repository

    def _file(self, request: Request, model_id: str, repository: Repository, name: str) -> Response:
        fault = self._fault(request, FILE_FAULTS)
        entry = repository.file(name)
        if entry is None or fault == request_faults.JSON_200:
            return self._refuse(200, EMPTY_FILE, "获取模型文件失败，文件内容为空")  # noqa: RUF001  # the words of the service
        if fault in ERRORS:
            return self._refuse(ERRORS[fault], ERRORS[fault], "rehearsed failure")
        if entry.is_lfs:
            return self._redirect(request, model_id, entry)
        return _small_file(request, repository.location(entry), entry, fault)

    def _redirect(self, request: Request, model_id: str, entry: Entry) -> Response:
        region = request.headers.get(REGION_HEADER)
        place, host = "/cdn", self.cdn_url
        if region and self._internal_link != "absent":
            place = f"/internal/{region}/cdn"
            host = self._unreachable_url if self._internal_link == "unreachable" else host
        headers = {"X-Linked-ETag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        return text("", 302, "text/html", Location=host + self._links.link(model_id, entry, place), **headers)

    def _serve_link(self, request: Request) -> Response:
        """The CDN: `/cdn/...`, and `/internal/<region>/cdn/...` as on OSS inside a region, for signed links only."""
        self._record(request)
        fault = self._link_fault(request)
        found = self._links.find(request.path, request.args.get("auth_key", ""))
        if "Authorization" in request.headers or "Cookie" in request.headers:
            return _denied("credentials of another host were sent here")
        if not found or fault == request_faults.EXPIRED_LINK:
            return _denied("the link has ended or its signature is wrong")
        if fault in ERRORS:
            return self._refuse(ERRORS[fault], ERRORS[fault], "rehearsed failure")
        return _large_file(request, *found, fault)

    def _link_fault(self, request: Request) -> str:
        if request.path.startswith("/internal/"):
            if self._internal_link == "refuses":
                return request_faults.EXPIRED_LINK
            if self._internal_link == "crawls":
                return request_faults.SLOW
        return self._fault(request, LINK_FAULTS)

    def _fault(self, request: Request, possible: Collection[str]) -> str:
        return self._faults.next(f"{request.method} {target_of(request)}", possible) or ""

    def _fail(self, request: Request) -> None:
        """Fail on purpose, if a fault is planned for this request of the API."""
        fault = self._fault(request, API_FAULTS)
        if fault == request_faults.JSON_200:
            raise _RefusedError(self._refuse(200, 10990101000, "rehearsed failure"))
        if fault:
            raise _RefusedError(self._refuse(ERRORS[fault], ERRORS[fault], "rehearsed failure"))

    def _refuse(self, status: int, code: int, message: str) -> Response:
        """The form of every error of the hub."""
        throttled = status == ERRORS[request_faults.THROTTLED]
        headers = {"Retry-After": str(self._faults.retry_after)} if throttled else {}
        body = {"Code": code, "Message": message, "RequestId": "rehearsal", "Success": False}
        return json_reply(body, status, headers)


def _small_file(request: Request, location: Path, entry: Entry, fault: str) -> Response:
    """The gateway answers a bounded range with 200 and Content-Range, and ignores an open one."""
    headers = {"Content-Type": "text/plain" if entry.path.endswith((".md", ".txt")) else "application/octet-stream"}
    asked = request.headers.get("Range", "")
    try:
        span = parse_range(asked, entry.size) if re.fullmatch(r"bytes=\d+-\d+", asked) else None
    except UnsatisfiableRangeError:
        span = None
    if span is None:
        return file_response(request, location.open("rb"), (0, entry.size), 200, headers, fault)
    headers["Content-Range"] = span.content_range
    return file_response(request, location.open("rb"), (span.start, span.stop), 200, headers, fault)


def _large_file(request: Request, location: Path, entry: Entry, fault: str) -> Response:
    tag = f'"{entry.sha256}"'
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "ETag": tag, "X-Linked-ETag": tag}
    try:
        span = parse_range(request.headers.get("Range"), entry.size)
    except UnsatisfiableRangeError:
        return text("", 416, Content_Range=f"bytes */{entry.size}")
    if span is None:
        return file_response(request, location.open("rb"), (0, entry.size), 200, headers, fault)
    headers["Content-Range"] = span.content_range
    return file_response(request, location.open("rb"), (span.start, span.stop), 206, headers, fault)


def _denied(why: str) -> Response:
    return text(f"<Error><Code>AccessDenied</Code><Message>{why}</Message></Error>", 403, "text/xml")


def _answer(data: Any) -> Response:
    return json_reply({"Code": 200, "Data": data, "Message": "success", "RequestId": "rehearsal", "Success": True})


def _listing(repository: Repository, query: Mapping[str, str], _path: Mapping[str, str]) -> Response:
    recursive = query.get("Recursive", "False").lower() == "true"
    entries = repository.entries(query.get("Root", "").strip("/"), recursive=recursive)
    return _answer({"Files": [_described(entry) for entry in entries[:LISTING_LIMIT]]})


def _described(entry: Entry) -> dict[str, Any]:
    return {
        "CommitMessage": "Upload the model",
        "CommittedDate": entry.modified,
        "CommitterName": "rehearsal",
        "InCheck": False,
        "IsLFS": entry.is_lfs,
        "Mode": "16384" if entry.is_folder else "33188",
        "Name": entry.path.rpartition("/")[2],
        "Path": entry.path,
        "Revision": entry.commit,
        "Sha256": entry.sha256,
        "Size": entry.size,
        "Type": "tree" if entry.is_folder else "blob",
    }


def _revisions(repository: Repository, _query: Mapping[str, str], _path: Mapping[str, str]) -> Response:
    created = max((entry.modified for entry in repository.entries()), default=0)
    branches = [{"Revision": "master", "CreatedAt": created, "CommitId": repository.commit}]
    return _answer({"RevisionMap": {"Branches": branches, "Tags": []}})


def _information(_repository: Repository, _query: Mapping[str, str], path: Mapping[str, str]) -> Response:
    return _answer({"Path": path["owner"], "Name": path["name"], "Revision": "master", "Visibility": 5})


def _open_api(_repository: Repository, _query: Mapping[str, str], path: Mapping[str, str]) -> Response:
    owner, name = path["owner"], path["name"]
    model = {"id": f"{owner}/{name}", "owner": owner, "name": name, "visibility": "public"}
    return json_reply({"success": True, "request_id": "rehearsal", "data": model})


_FACTS: Final[Mapping[str, Callable[[Repository, Mapping[str, str], Mapping[str, str]], Response]]] = {
    "listing": _listing,
    "revisions": _revisions,
    "information": _information,
    "open_api": _open_api,
}
