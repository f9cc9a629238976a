"""The registry adapter over sockets: a public image behind a token and a redirect, and every failure."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from steps.adapters.registry import LARGEST, OciRegistry
from steps.document.image_name import ImageName
from steps.errors import TransientError
from workflows.simulator.http.server import Handler, LoopbackServer

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

    answer: dict[str, Callable[[Handler], None]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # host, path, Authorization
    port: int = 0
    elsewhere: int = 0

    def image(self, reference: str = ":0.5.24") -> ImageName:
        return ImageName.of(f"127.0.0.1:{self.port}/llm/sglang{reference}")

    def registry(self, handler: Handler) -> None:
        path = handler.path.partition("?")[0].removeprefix("/v2/llm/sglang/")
        self.asked.append(("registry", path, handler.headers.get("Authorization", "")))
        if path in self.answer:
            self.answer[path](handler)
        elif path == "/token":
            handler.send_json(200, {"token": "for-everybody"})
        elif handler.headers.get("Authorization") != "Bearer for-everybody":
            challenge = f'Bearer realm="http://127.0.0.1:{self.port}/token",service="r",scope="ignored"'
            handler.send_json(401, {}, {"WWW-Authenticate": challenge})
        elif path.startswith("blobs/"):
            handler.send_json(307, {}, {"Location": f"http://127.0.0.1:{self.elsewhere}/bytes"})
        else:
            handler.send_json(200, {"config": {"digest": DIGEST}} if path.endswith(AMD) else INDEX)

    def bytes(self, handler: Handler) -> None:
        self.asked.append(("elsewhere", handler.path, handler.headers.get("Authorization", "")))
        handler.send_body(200, BODY, "application/octet-stream")


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    found = Hosts()
    handlers = [type("Host", (Handler,), {"do_GET": answer}) for answer in (_asks(found.registry), _asks(found.bytes))]
    servers = [LoopbackServer(handler) for handler in handlers]
    found.port, found.elsewhere = (server.port for server in servers)
    for server in servers:
        server.start()
    yield found
    for server in servers:
        server.stop()


def _asks(answer: Callable[[Handler], None]) -> Callable[[Handler], None]:
    """As a method of a handler: a bound function is not bound again."""

    def do_get(handler: Handler) -> None:
        answer(handler)

    return do_get


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


def _status(code: int, content: Any = None, **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.send_json(code, content or {}, {k.replace("_", "-"): v for k, v in headers.items()})


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
    hosts: Hosts, path: str, answer: Callable[[Handler], None], says: str
) -> None:
    hosts.answer[path] = answer
    with pytest.raises(TransientError, match=says) as silent:
        OciRegistry().config(hosts.image())
    assert "for-everybody" not in str(silent.value)


def test_a_registry_that_hangs_is_left_after_its_time(hosts: Hosts) -> None:
    released = threading.Event()

    def hang(_: Handler) -> None:
        released.wait(30)

    hosts.answer["manifests/0.5.24"] = hang
    with pytest.raises(TransientError, match=r"did not answer within 0\.3 s|cannot be reached"):
        OciRegistry(seconds=0.3).config(hosts.image())
    released.set()


def test_a_registry_that_is_not_there_is_no_answer() -> None:
    with pytest.raises(TransientError, match="cannot be reached"):
        OciRegistry().config(ImageName.of("127.0.0.1:1/llm/sglang:0.5.24"))
