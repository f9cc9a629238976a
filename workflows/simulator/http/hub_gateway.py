"""The API of the embedded hub, in the words of the real one.

Paths, fields and limits are those that the hub's own client uses: `modelscope_hub._legacy_api` and `_download` of
the package modelscope-hub. Two habits of the real service are kept: a missing file is an HTTP 200 with an
error in JSON, and a listing ends at 3000 entries without a word.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from workflows.simulator.core.hub.repository import Entry, Repositories, Repository
from workflows.simulator.faults import request_faults
from workflows.simulator.http.hub_bodies import (
    ANY_BODY,
    ERRORS,
    BodyHandler,
    Span,
    UnsatisfiableRangeError,
    parse_range,
)
from workflows.simulator.http.hub_cdn import Blobs

LISTING_LIMIT: Final = 3000
NOT_FOUND: Final = 10010205001
EMPTY_FILE: Final = 10990101007
REGION_HEADER: Final = "x-aliyun-region-id"
API_FAULTS: Final = (*ERRORS, request_faults.JSON_200)
FILE_FAULTS: Final = (*ANY_BODY, request_faults.WRONG_BYTES, request_faults.JSON_200)


class GatewayHandler(BodyHandler):
    repositories: Repositories
    blobs: Blobs
    private: Mapping[str, str]  # model -> token that may read it
    cdn_url: str
    unreachable_url: str  # an address where nothing listens
    internal_link: str  # how internal links behave; see Hub

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        for pattern, answer in ROUTES:
            if match := pattern.fullmatch(unquote(url.path)):
                answer(self, match.groupdict(), query)
                return
        self.refuse(404, 404, f"no such page: {url.path}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def listing(self, path: Mapping[str, str], query: Mapping[str, str]) -> None:
        repository = self._repository(path["model"], query.get("Revision", "master"))
        if repository is None or self._failed(API_FAULTS):
            return
        recursive = query.get("Recursive", "False").lower() == "true"
        entries = repository.entries(query.get("Root", "").strip("/"), recursive=recursive)
        self._answer({"Files": [_described(entry) for entry in entries[:LISTING_LIMIT]]})

    def file(self, path: Mapping[str, str], query: Mapping[str, str]) -> None:
        self._send(path["model"], query.get("Revision", "master"), query.get("FilePath", ""))

    def resolve(self, path: Mapping[str, str], _query: Mapping[str, str]) -> None:
        self._send(path["model"], path["revision"], path["path"])

    def revisions(self, path: Mapping[str, str], _query: Mapping[str, str]) -> None:
        repository = self._repository(path["model"], "master")
        if repository is None or self._failed(API_FAULTS):
            return
        created = max((entry.modified for entry in repository.entries()), default=0)
        branches = [{"Revision": "master", "CreatedAt": created, "CommitId": repository.commit}]
        self._answer({"RevisionMap": {"Branches": branches, "Tags": []}})

    def information(self, path: Mapping[str, str], _query: Mapping[str, str]) -> None:
        if self._repository(path["model"], "master") is None or self._failed(API_FAULTS):
            return
        owner, _, name = path["model"].partition("/")
        self._answer({"Path": owner, "Name": name, "Revision": "master", "Visibility": 5})

    def open_api(self, path: Mapping[str, str], _query: Mapping[str, str]) -> None:
        if self._repository(path["model"], "master") is None or self._failed(API_FAULTS):
            return
        owner, _, name = path["model"].partition("/")
        model = {"id": path["model"], "owner": owner, "name": name, "visibility": "public"}
        self.send_json(200, {"success": True, "request_id": "rehearsal", "data": model})

    def acceleration(self, _path: Mapping[str, str], _query: Mapping[str, str]) -> None:
        """No address to ask for a region: a client learns its region from its own configuration."""
        self._answer({"InternalRegionQueryAddress": ""})

    def _send(self, model_id: str, revision: str, name: str) -> None:
        repository = self._repository(model_id, revision)
        fault = self.next_fault(FILE_FAULTS) if repository else None
        if repository is None:
            return
        entry = repository.file(name)
        if entry is None or fault == request_faults.JSON_200:
            self.refuse(200, EMPTY_FILE, "获取模型文件失败，文件内容为空")  # noqa: RUF001  # as the service says it
        elif fault in ERRORS:
            self.refuse(ERRORS[fault], ERRORS[fault], "rehearsed failure")
        elif entry.is_lfs:
            self._redirect(model_id, entry)
        else:
            self._send_small(repository, entry, fault)

    def _redirect(self, model_id: str, entry: Entry) -> None:
        region = self.headers[REGION_HEADER]
        place, host = "/cdn", self.cdn_url
        if region and self.internal_link != "absent":
            place = f"/internal/{region}/cdn"
            host = self.unreachable_url if self.internal_link == "unreachable" else host
        location = host + self.blobs.link(model_id, entry, place)
        headers = {"Location": location, "X-Linked-ETag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        self.send_body(302, b"", "text/html", headers)

    def _send_small(self, repository: Repository, entry: Entry, fault: str | None) -> None:
        """The gateway answers a bounded range with 200 and Content-Range, and overlooks an open one."""
        headers = {"Content-Type": "text/plain" if entry.path.endswith((".md", ".txt")) else "application/octet-stream"}
        whole = Span(0, entry.size, entry.size)
        bounded = re.fullmatch(r"bytes=\d+-\d+", self.headers["Range"] or "")
        try:
            span = parse_range(self.headers["Range"], entry.size) if bounded else None
        except UnsatisfiableRangeError:
            span = None
        if span:
            headers["Content-Range"] = span.content_range
        self.send_file(repository.location(entry), span or whole, 200, headers, fault)

    def _repository(self, model_id: str, revision: str) -> Repository | None:
        """The repository, or None after the refusal was sent."""
        repository, wanted, given = self.repositories.repository(model_id), self.private.get(model_id), self._token()
        if wanted and not given:
            self.refuse(401, 10010201001, "login required")
        elif wanted and given != wanted:
            self.refuse(403, 10010203001, "no permission to access this model")
        elif repository is None:
            self.refuse(404, NOT_FOUND, f"model {model_id} record not found")
        elif revision != "master" and revision != repository.commit:  # noqa: PLR1714  # a commit is made of every file
            self.refuse(404, NOT_FOUND, f"revision {revision} record not found")
        else:
            return repository
        return None

    def _token(self) -> str:
        bearer = str(self.headers["Authorization"] or "").removeprefix("Bearer ")
        cookie = re.search(r"(?:^|;\s*)m_session_id=([^;]*)", self.headers["Cookie"] or "")
        return bearer or (cookie[1] if cookie else "")

    def _failed(self, possible: tuple[str, ...]) -> bool:
        fault = self.next_fault(possible)
        if fault == request_faults.JSON_200:
            self.refuse(200, 10990101000, "rehearsed failure")
        elif fault:
            self.refuse(ERRORS[fault], ERRORS[fault], "rehearsed failure")
        return fault is not None

    def _answer(self, data: Any) -> None:
        self.send_json(
            200, {"Code": 200, "Data": data, "Message": "success", "RequestId": "rehearsal", "Success": True}
        )


Answer = Callable[[GatewayHandler, Mapping[str, str], Mapping[str, str]], None]

_MODEL = r"(?P<model>[^/]+/[^/]+)"
ROUTES: Final[tuple[tuple[re.Pattern[str], Answer], ...]] = (
    (re.compile(r"/api/v1/repos/internalAccelerationInfo"), GatewayHandler.acceleration),
    (re.compile(rf"/api/v1/models/{_MODEL}/repo/files"), GatewayHandler.listing),
    (re.compile(rf"/api/v1/models/{_MODEL}/repo"), GatewayHandler.file),
    (re.compile(rf"/api/v1/models/{_MODEL}/revisions"), GatewayHandler.revisions),
    (re.compile(rf"/api/v1/models/{_MODEL}"), GatewayHandler.information),
    (re.compile(rf"/openapi/v1/models/{_MODEL}"), GatewayHandler.open_api),
    (re.compile(rf"/{_MODEL}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"), GatewayHandler.resolve),
)


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
