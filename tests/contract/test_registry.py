"""The registry adapter over sockets: a public image behind a token and a redirect, and every failure."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from werkzeug import Request, Response

from steps.adapters.registry import LARGEST, OciRegistry
from steps.document.image_name import ImageName
from steps.errors import TransientError
from workflows.simulator.http.server import HangUp, LoopbackServer, json_reply, text

CONFIG = {"config": {"Env": ["SGLANG_VERSION=v0.5.24"]}, "history": []}
BODY = json.dumps(CONFIG).encode()
DIGEST = "sha256:" + hashlib.sha256(BODY).hexdigest()
ARM, AMD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
INDEX = {
    "manifests": [
        {"digest": ARM, "platform": {"os": "linux", "architecture": "arm64"}},
        {"digest": AMD, "platform": {"os": "linux", "architecture": "amd64"}},
    ]
}


@dataclass
class Hosts:
    """A registry and its storage; `answer` replaces the registry's answers, by path."""

    answer: dict[str, Callable[[], Response]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # host, path, Authorization
    port: int = 0
    elsewhere: int = 0

    def image(self, reference: str = ":0.5.24") -> ImageName:
        return ImageName.of(f"127.0.0.1:{self.port}/llm/sglang{reference}")

    def registry(self, request: Request) -> Response:
        path = request.path.removeprefix("/v2/llm/sglang/")
        authorization = request.headers.get("Authorization", "")
        self.asked.append(("registry", path, authorization))
        if path in self.answer:
            return self.answer[path]()
        if path == "/token":
            return json_reply({"token": "for-everybody"})
        if authorization != "Bearer for-everybody":
            challenge = f'Bearer realm="http://127.0.0.1:{self.port}/token",service="r",scope="ignored"'
            return json_reply({}, 401, {"WWW-Authenticate": challenge})
        if path.startswith("blobs/"):
            return json_reply({}, 307, {"Location": f"http://127.0.0.1:{self.elsewhere}/bytes"})
        return json_reply({"config": {"digest": DIGEST}} if path.endswith(AMD) else INDEX)

    def bytes(self, request: Request) -> Response:
        self.asked.append(("elsewhere", request.path, request.headers.get("Authorization", "")))
        return text(BODY, content_type="application/octet-stream")


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    found = Hosts()
    servers = [LoopbackServer(found.registry), LoopbackServer(found.bytes)]
    found.port, found.elsewhere = (server.port for server in servers)
    for server in servers:
        server.start()
    yield found
    for server in servers:
        server.stop()


def test_a_public_image_is_read_for_the_platform_of_the_nodes(hosts: Hosts) -> None:
    assert OciRegistry().config(hosts.image()) == CONFIG
    assert OciRegistry().config(hosts.image(f"@{AMD}")) == CONFIG
    assert not any(ARM in path for _, path, _ in hosts.asked)


def test_a_token_never_leaves_the_registry(hosts: Hosts, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    OciRegistry().config(hosts.image())
    assert {sent for host, _, sent in hosts.asked if host == "elsewhere"} == {""}
    assert {sent for _, _, sent in hosts.asked} == {"", "Bearer for-everybody"}


def _status(code: int, content: Any = None, **headers: str) -> Callable[[], Response]:
    return lambda: json_reply(content or {}, code, {k.replace("_", "-"): v for k, v in headers.items()})


SILENT = [
    ("manifests/0.5.24", _status(401, WWW_Authenticate='Basic realm="private"'), "requires user and password"),
    ("manifests/0.5.24", _status(403), "user and password for this image"),
    ("/token", _status(401), "user and password for this image"),
    ("/token", _status(200, {"no": "token"}), "sent no image"),
    ("manifests/0.5.24", _status(404), "answered with status 404"),
    ("manifests/0.5.24", _status(200, [1]), "sent no image"),
    ("manifests/0.5.24", _status(307, Location="http://example.com/"), "redirects to an address without TLS"),
    (f"blobs/{DIGEST}", _status(200, {"other": 1}), "another configuration than the one of its manifest"),
    ("manifests/0.5.24", _status(200, "x" * LARGEST), "sent more than"),
]


@pytest.mark.parametrize(("path", "answer", "says"), SILENT)
def test_a_registry_that_tells_nothing_is_no_answer_and_says_why(
    hosts: Hosts, path: str, answer: Callable[[], Response], says: str
) -> None:
    hosts.answer[path] = answer
    with pytest.raises(TransientError, match=says) as silent:
        OciRegistry().config(hosts.image())
    assert "for-everybody" not in str(silent.value)


def test_a_registry_that_hangs_is_left_after_its_time(hosts: Hosts) -> None:
    released = threading.Event()

    def hang() -> Response:
        released.wait(30)
        raise HangUp

    hosts.answer["manifests/0.5.24"] = hang
    with pytest.raises(TransientError, match=r"did not answer within 0\.3 s|cannot be reached"):
        OciRegistry(seconds=0.3).config(hosts.image())
    released.set()


def test_a_registry_that_is_not_there_is_no_answer() -> None:
    with pytest.raises(TransientError, match="cannot be reached"):
        OciRegistry().config(ImageName.of("127.0.0.1:1/llm/sglang:0.5.24"))
