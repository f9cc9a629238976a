"""The table of the hub in docs/reference/transfer-retries.md, row by row."""

import datetime as dt
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from steps.adapters.modelscope.source import ModelScopeSource
from steps.errors import StepError
from steps.model import ModelFile
from tests.support.hubs import EARLY_MEASURED, HASTY, MODEL, SHARD, is_right, serving, source_of, with_budget
from tests.support.samples import ROOT
from workflows.simulator.faults import request_faults as kinds
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.hub import Hub
from workflows.simulator.http.server import LoopbackServer, text

API, GATEWAY, CDN = "repo/files", "FilePath=", "GET /cdn"
ALWAYS = 10_000
BRIEF = with_budget(HASTY, 0.3)


@dataclass
class Stage:
    """A hub, and a source that has listed its model already."""

    hub: Hub
    faults: RequestFaults
    folder: Path
    source: ModelScopeSource
    files: dict[str, ModelFile]

    def read(self, path: str = SHARD) -> None:
        assert is_right(self.source, self.files[path])

    def read_a_byte(self, path: str = SHARD) -> None:
        """A body of one byte that breaks in its middle brings none, so there is no progress that renews the budget."""
        self.source.read(self.files[path], 0, memoryview(bytearray(1)))

    def read_patiently(self) -> None:
        """It takes most of a second until a drip is known to be one."""
        self.source = source_of(self.hub, limits=with_budget(EARLY_MEASURED, 2.0))
        self.read()

    def inject(self, where: str, kind: str, times: int) -> None:
        self.faults.plan(where, kind, times)

    def other_bytes(self, path: str, size: int) -> None:
        (self.folder / MODEL / path).write_bytes(bytes(size))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    faults, folder = RequestFaults(retry_after=0), tmp_path / "hub"
    with serving(folder, faults=faults) as hub:
        source = source_of(hub, limits=BRIEF)
        files = {file.path: file for file in source.listing().files}
        hub.requests.clear()
        yield Stage(hub, faults, folder, source, files)


Run = Callable[[Stage], None]


@dataclass(frozen=True)
class Passing:
    """A fault that comes `once`, or stays; `act` succeeds in the first case."""

    where: str
    kinds: tuple[str, ...]
    act: Run = Stage.read_a_byte


@dataclass(frozen=True)
class Lasting:
    """Something that no retry mends: `arrange` it, then `act` fails. `requests` is how often the hub was asked."""

    act: Run
    arrange: Run = lambda _stage: None
    requests: int = 1


def list_again(stage: Stage) -> None:
    stage.source.listing()


def list_private(stage: Stage) -> None:
    with serving(stage.folder, private={MODEL: "ms-not-a-secret"}) as hub:
        stage.hub = hub
        source_of(hub).listing()


def list_absent(stage: Stage) -> None:
    source_of(stage.hub, revision="v9").listing()


def fill_up(stage: Stage) -> None:
    for number in range(3000):
        (stage.folder / MODEL / f"{number}.txt").write_bytes(b"x")


def list_with_an_untrusted_certificate(stage: Stage) -> None:
    with https_server(stage.folder) as url:
        ModelScopeSource(endpoint=url, model_id=MODEL, revision="master", limits=BRIEF).listing()


ROWS: dict[str, Passing | Lasting] = {
    "connection refused or reset, also in the middle of a body": Passing(CDN, (kinds.DROP,)),
    "body ends before all announced bytes came": Passing(CDN, (kinds.SHORT_BODY,)),
    "no byte for 30 s, or less than 16 KiB a second for 10 s": Passing(CDN, (kinds.SLOW,), Stage.read_patiently),
    "status 408, 425, 500, 502, 503, 504": Passing(CDN, (kinds.SERVER_ERROR, kinds.UNAVAILABLE)),
    "status 429": Passing(GATEWAY, (kinds.THROTTLED,)),
    "signed link refused: status 401, 403, 404 or 410": Passing(CDN, (kinds.EXPIRED_LINK,)),
    "status 200 with an error in JSON instead of the file": Passing(GATEWAY, (kinds.JSON_200,)),
    "status 200 with an error in JSON, or no JSON at all, instead of the listing": Passing(
        API, (kinds.JSON_200,), list_again
    ),
    "status 401 or 403 after the hub had let us in": Passing(GATEWAY, (kinds.FORBIDDEN,)),
    "small file of another size than listed": Lasting(
        lambda stage: stage.read("README.md"), lambda stage: stage.other_bytes("README.md", 5), requests=3
    ),
    "status 401 or 403 at the first request: private or gated model": Lasting(list_private),
    "model or revision absent": Lasting(list_absent),
    "listing with 3000 entries or more": Lasting(list_again, fill_up),
    "listing with an unsafe or repeated path, or without sizes and SHA-256": Lasting(
        list_again, lambda stage: (stage.folder / MODEL / "a\\b").touch()
    ),
    "link to another SHA-256 than listed: the revision moved": Lasting(
        Stage.read, lambda stage: stage.other_bytes(SHARD, stage.files[SHARD].size)
    ),
    "certificate that is not trusted": Lasting(list_with_an_untrusted_certificate, requests=0),
}
# Rows with a test of their own, because something else happens than another try or a refusal.
OTHERS = {
    "internal link of a region refused, unreachable, or below 1 MiB a second for 10 s",
    "wrong SHA-256 of a file",
}


def table() -> dict[str, tuple[str, str]]:
    section = (
        (ROOT / "docs" / "reference" / "transfer-retries.md").read_text(encoding="utf-8").partition("## At the hub")[2]
    )
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")][2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {failure: (done, end) for failure, done, end in rows}


PASSING = [(row, kind) for row, case in ROWS.items() if isinstance(case, Passing) for kind in case.kinds]


def test_every_row_of_the_table_is_walked_and_every_walk_is_in_the_table() -> None:
    assert set(table()) == set(ROWS) | OTHERS


@pytest.mark.parametrize(("row", "kind"), PASSING)
def test_what_passes_is_tried_again(stage: Stage, row: str, kind: str) -> None:
    case = ROWS[row]
    assert isinstance(case, Passing)
    assert table()[row][0].startswith(("tried again", "3 times"))
    stage.inject(case.where, kind, 1)
    case.act(stage)
    assert [injected for _, injected in stage.faults.injected] == [kind]


@pytest.mark.parametrize(("row", "kind"), PASSING)
def test_what_stays_ends_as_the_table_says(stage: Stage, row: str, kind: str) -> None:
    case, (done, end) = ROWS[row], table()[row]
    assert isinstance(case, Passing)
    stage.inject(case.where, kind, ALWAYS)
    with pytest.raises(StepError) as failed:
        case.act(stage)
    assert str(int(failed.value.exit)) == end
    attempts = len(stage.faults.injected)
    assert attempts == 3 if done.startswith("3 times") else attempts > 1


@pytest.mark.parametrize("row", [row for row, case in ROWS.items() if isinstance(case, Lasting)])
def test_what_no_retry_mends_is_refused_as_the_table_says(stage: Stage, row: str) -> None:
    case, (done, end) = ROWS[row], table()[row]
    assert isinstance(case, Lasting)
    case.arrange(stage)
    with pytest.raises(StepError) as failed:
        case.act(stage)
    assert (str(int(failed.value.exit)), len(stage.hub.requests)) == (end, case.requests)
    assert done == {0: "never", 1: "never", 3: "3 times"}[case.requests]
    assert failed.value.hint


@pytest.mark.parametrize("behaviour", ["refuses", "unreachable", "crawls"])
def test_an_internal_link_that_fails_gives_way_to_public_ones(stage: Stage, behaviour: str) -> None:
    with serving(stage.folder, internal_link=behaviour) as hub:
        source = source_of(hub, region="cn-hangzhou", limits=EARLY_MEASURED)
        for path in (SHARD, "model-00002-of-00003.safetensors"):
            assert is_right(source, stage.files[path])
        assert len(hub.received(CDN)) == 2


def test_wrong_bytes_are_read_once_more_from_the_public_link(stage: Stage) -> None:
    source = source_of(stage.hub, region="cn-hangzhou")
    stage.inject("GET /internal", kinds.WRONG_BYTES, ALWAYS)
    file = stage.files[SHARD]
    assert not is_right(source, file)
    assert is_right(source, file)


@contextmanager
def https_server(folder: Path) -> Iterator[str]:
    """A server with a self-signed certificate."""
    pem = folder / "self-signed.pem"
    pem.write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = LoopbackServer(lambda _request: text(""))
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    server.start()
    try:
        yield server.url.replace("http://127.0.0.1", "https://localhost")
    finally:
        server.stop()


def self_signed() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
