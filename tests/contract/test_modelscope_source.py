"""The adapter of ModelScope against the embedded hub."""

import logging
import os
import socket
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from steps.adapters.modelscope.links import Link, Links
from steps.adapters.modelscope.source import ModelScopeSource
from steps.errors import Blocked, TransientError
from steps.model import Listing, ModelFile
from tests.support.hubs import (
    EARLY_MEASURED,
    HASTY,
    MODEL,
    SHARD,
    content,
    is_right,
    named,
    refusing,
    serving,
    source_of,
    with_budget,
)
from workflows.simulator.faults.request_faults import DROP, EXPIRED_LINK, FORBIDDEN, SERVER_ERROR, RequestFaults
from workflows.simulator.http.hub import Hub, InternalLink
from workflows.simulator.http.server import LOOPBACK

TOKEN = "ms-0123456789-not-a-secret"
REGION = "cn-hangzhou"
BRIEF = with_budget(HASTY, 0.3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    with serving(folder) as hub:
        yield hub


def test_a_listing_holds_every_file_of_the_model(hub: Hub, folder: Path) -> None:
    listing = source_of(hub).listing()
    assert {file.path: file.size for file in listing.files} == {
        path.name: path.stat().st_size for path in (folder / MODEL).iterdir()
    }


@pytest.mark.parametrize("part", [1, 7, 1000, 1 << 20])
def test_files_come_whole_in_parts_of_any_size(hub: Hub, folder: Path, part: int) -> None:
    source = source_of(hub)
    for path in ("configuration.json", "merges.txt", *([SHARD] if part > 7 else [])):
        assert content(source, named(source.listing(), path), part) == (folder / MODEL / path).read_bytes()


def test_many_threads_read_one_file_over_one_link(hub: Hub, folder: Path) -> None:
    source = source_of(hub)
    file = named(source.listing(), SHARD)
    buffer = bytearray(file.size)
    source.read(file, 0, memoryview(buffer)[:10])

    def read(start: int) -> None:
        source.read(file, start, memoryview(buffer)[start : start + 4096])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(read, range(10, file.size, 4096)))
    assert bytes(buffer) == (folder / MODEL / SHARD).read_bytes()
    assert len(hub.received(f"FilePath={SHARD}")) == 1


def test_connections_are_kept(hub: Hub) -> None:
    source = source_of(hub)
    for file in source.listing().files:
        content(source, file, part=50_000)
    assert len(hub.requests) > 30
    assert len({request.client_port for request in hub.requests}) == 2  # one to the hub, one to its CDN


def test_nothing_is_asked_for_an_empty_file(hub: Hub, folder: Path) -> None:
    (folder / MODEL / "empty.txt").touch()
    source = source_of(hub)
    source.read(named(source.listing(), "empty.txt"), 0, memoryview(b""))
    assert hub.received("FilePath=empty.txt") == []


def test_names_with_blanks_and_signs_arrive_as_they_are(hub: Hub, folder: Path) -> None:
    for name in ("a b&c=d#e?.txt", "ü+%41.safetensors"):
        (folder / MODEL / name).write_bytes(b"content of " + name.encode())
    source = source_of(hub)
    listing = source.listing()
    assert all(is_right(source, named(listing, name)) for name in ("a b&c=d#e?.txt", "ü+%41.safetensors"))


def test_small_files_are_fetched_whole_and_large_ones_in_bounded_ranges(hub: Hub) -> None:
    source = source_of(hub)
    listing = source.listing()
    for path in ("config.json", SHARD):
        content(source, named(listing, path), 100_000)
    assert [request.headers.get("range") for request in hub.received("FilePath=config.json")] == [None]
    ranges = [request.headers["range"] for request in hub.received("GET /cdn")]
    assert ranges[0] == "bytes=0-99999"
    assert all(asked.rpartition("-")[2].isdigit() for asked in ranges)


def test_bodies_are_never_compressed_on_the_way(hub: Hub) -> None:
    source = source_of(hub)
    content(source, named(source.listing(), SHARD))
    assert {request.headers["accept-encoding"] for request in hub.requests} == {"identity"}


def test_a_token_goes_to_the_hub_and_never_to_the_cdn(folder: Path) -> None:
    with serving(folder, private={MODEL: TOKEN}) as hub:
        source = source_of(hub, token=TOKEN)
        assert is_right(source, named(source.listing(), SHARD))
        for request in hub.received("/api/"):
            assert request.headers["authorization"] == f"Bearer {TOKEN}"
            assert request.headers["cookie"] == f"m_session_id={TOKEN}"
        on_the_cdn = hub.received("GET /cdn")
        assert on_the_cdn
        assert all(TOKEN not in str(request.headers) + request.target for request in on_the_cdn)


def test_a_private_model_without_a_token_says_where_a_token_goes(folder: Path) -> None:
    with serving(folder, private={MODEL: TOKEN}) as hub, pytest.raises(Blocked, match=r"model\.token"):
        source_of(hub).listing()


def test_a_token_that_may_not_read_the_model_is_refused_at_once(folder: Path) -> None:
    with serving(folder, private={MODEL: TOKEN}) as hub:
        with pytest.raises(Blocked, match=r"no permission.*ask the owner"):
            source_of(hub, token="ms-of-somebody-else").listing()
        assert len(hub.requests) == 1


def test_a_403_after_the_hub_has_let_us_in_is_a_hiccup(folder: Path) -> None:
    faults = RequestFaults()
    with serving(folder, faults=faults) as hub:
        source = source_of(hub)
        listing = source.listing()
        faults.plan("repo/files", FORBIDDEN)
        assert source.listing() == listing


@pytest.mark.parametrize("token", ["two\nlines", "with blank", "semi;colon", "ümlaut"])
def test_a_token_that_would_break_a_header_is_refused_without_being_shown(hub: Hub, token: str) -> None:
    with pytest.raises(Blocked) as refused:
        source_of(hub, token=token)
    assert token not in str(refused.value)


def test_an_absent_model_or_revision_is_named(hub: Hub) -> None:
    with pytest.raises(Blocked, match="slipway/absent@master is not at the hub"):
        source_of(hub, model_id="slipway/absent").listing()
    with pytest.raises(Blocked, match="Qwen3-small@v9 is not at the hub"):
        source_of(hub, revision="v9").listing()


def test_a_hub_that_stops_at_3000_entries_is_not_believed(hub: Hub, folder: Path) -> None:
    for number in range(3000):
        (folder / MODEL / f"{number:04}.txt").write_bytes(b"x")
    with pytest.raises(Blocked, match="stops at 3000"):
        source_of(hub).listing()


def test_a_file_that_changed_after_the_listing_is_never_mixed_in(hub: Hub, folder: Path) -> None:
    source = source_of(hub)
    file = named(source.listing(), SHARD)
    changed = bytearray((folder / MODEL / SHARD).read_bytes())
    changed[-1] ^= 1
    (folder / MODEL / SHARD).write_bytes(changed)
    with pytest.raises(Blocked, match="the revision moved during the run"):
        content(source, file)
    assert hub.received("GET /cdn") == []


def test_a_file_that_changes_while_it_is_read_is_never_mixed_in(hub: Hub, folder: Path) -> None:
    source = source_of(hub)
    file = named(source.listing(), SHARD)
    source.read(file, 0, memoryview(bytearray(100)))
    (folder / MODEL / SHARD).write_bytes(bytes(file.size))
    with pytest.raises(Blocked, match="the revision moved during the run"):
        source.read(file, 100, memoryview(bytearray(100)))


@pytest.mark.parametrize("new", [b"", b"another size"])
def test_a_small_file_of_another_size_than_listed_is_refused(hub: Hub, folder: Path, new: bytes) -> None:
    source = source_of(hub)
    file = named(source.listing(), "README.md")
    (folder / MODEL / "README.md").write_bytes(new)
    with pytest.raises(Blocked, match=rf"found {len(new)} bytes of README\.md, expected {file.size}"):
        content(source, file)


def test_a_file_that_vanished_after_the_listing_is_refused(hub: Hub, folder: Path) -> None:
    source = source_of(hub)
    file = named(source.listing(), "README.md")
    (folder / MODEL / "README.md").unlink()
    with pytest.raises(Blocked, match=r"instead of README\.md, the error 10990101007"):
        content(source, file)


def test_a_link_that_ended_is_renewed(folder: Path) -> None:
    now = [1_000_000.0]
    with serving(folder, link_seconds=60, clock=lambda: now[0]) as hub:
        source = source_of(hub)
        file = named(source.listing(), SHARD)
        buffer = memoryview(bytearray(file.size))
        source.read(file, 0, buffer[:1000])
        now[0] += 61
        source.read(file, 1000, buffer[1000:])
        assert bytes(buffer) == (folder / MODEL / SHARD).read_bytes()
        assert len(hub.received(f"FilePath={SHARD}")) == 2


def unasked_port() -> int:
    """A free port outside the kernel's range of random ports, so that it is still free at the second start."""
    for port in range(21_000 + os.getpid() % 9_000, 32_000):
        with suppress(OSError), socket.socket() as probe:
            probe.bind((LOOPBACK, port))
            return port
    raise AssertionError("every port is taken")


def test_a_hub_that_was_started_again_is_asked_for_new_links(folder: Path) -> None:
    with serving(folder, port=unasked_port()) as hub:
        port = int(hub.url.rpartition(":")[2])
        source = source_of(hub)
        file = named(source.listing(), SHARD)
        source.read(file, 0, memoryview(bytearray(100)))
    with serving(folder, port=port):
        assert is_right(source, file)


def test_with_a_region_bytes_come_over_the_internal_link(hub: Hub) -> None:
    source = source_of(hub, region=REGION)
    assert is_right(source, named(source.listing(), SHARD), part=100_000)
    assert hub.received(f"GET /internal/{REGION}/")
    assert not hub.received("GET /cdn")


@pytest.mark.parametrize("behaviour", ["refuses", "crawls", "unreachable"])
def test_an_internal_link_that_does_not_work_is_left_for_the_public_one_for_good(
    folder: Path, behaviour: InternalLink, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(folder, internal_link=behaviour) as hub:
        source = source_of(hub, region=REGION, limits=EARLY_MEASURED)
        listing = source.listing()
        assert all(is_right(source, file) for file in listing.files if file.path.endswith(".safetensors"))
        with_region = [r for r in hub.received("FilePath=model-0") if "x-aliyun-region-id" in r.headers]
        assert {r.target.rpartition("=")[2] for r in with_region} == {SHARD}
        assert len(hub.received("GET /internal/")) <= 2
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "public links from now on" in warnings[0]


def test_an_internal_link_that_comes_once_the_region_was_left_is_not_kept() -> None:
    """One thread may be asking for it while another one gives up the region."""
    links, file = Links(), ModelFile("model.safetensors", 1, "0" * 64)
    links.drop_internal()
    links.keep(file, Link("http://internal.example", REGION))
    assert links.get(file) is None
    public = Link("http://public.example", "")
    links.keep(file, public)
    assert links.get(file) is public


def test_one_dropped_connection_does_not_cost_the_internal_link(folder: Path) -> None:
    with serving(folder, faults=RequestFaults(planned=[("GET /internal", DROP)])) as hub:
        source = source_of(hub, region=REGION)
        assert is_right(source, named(source.listing(), SHARD))
        assert len(hub.received("GET /internal")) == 2
        assert not hub.received("GET /cdn")


def test_an_internal_link_that_ends_after_it_worked_is_renewed(folder: Path) -> None:
    now = [1_000_000.0]
    with serving(folder, link_seconds=60, clock=lambda: now[0]) as hub:
        source = source_of(hub, region=REGION)
        file = named(source.listing(), SHARD)
        source.read(file, 0, memoryview(bytearray(100)))
        now[0] += 61
        source.read(file, 100, memoryview(bytearray(100)))
        assert not hub.received("GET /cdn")


def test_who_reads_a_range_twice_did_not_trust_it_and_gets_the_public_replica(hub: Hub) -> None:
    source = source_of(hub, region=REGION)
    listing = source.listing()
    for path in (SHARD, "model-00002-of-00003.safetensors"):
        content(source, named(listing, path))
    content(source, named(listing, SHARD))
    internal = hub.received("GET /internal/")
    assert [SHARD in request.target for request in internal] == [True, False]
    assert [SHARD in request.target for request in hub.received("GET /cdn")] == [True]


def test_a_hub_that_is_not_there_is_no_answer(folder: Path) -> None:
    with serving(folder) as hub:
        file = named(source_of(hub).listing(), SHARD)
    with refusing() as url:
        source = ModelScopeSource(endpoint=url, model_id=MODEL, revision="master", limits=BRIEF)
        with pytest.raises(TransientError, match="no answer from the hub"):
            source.read(file, 0, memoryview(bytearray(10)))


def test_tokens_and_signed_links_reach_no_log_and_no_message(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    faults, texts = RequestFaults(), []
    with serving(folder, private={MODEL: TOKEN}, faults=faults, internal_link="refuses") as hub:
        source = source_of(hub, token=TOKEN, region=REGION)
        listing: Listing = source.listing()
        faults.plan("GET /cdn", DROP, times=2)
        content(source, named(listing, SHARD))
        brief = source_of(hub, token=TOKEN, limits=BRIEF)
        for kind, times, raised in (
            (EXPIRED_LINK, BRIEF.unusable_answers, Blocked),
            (SERVER_ERROR, 10_000, TransientError),
        ):
            faults.plan("GET /cdn", kind, times)
            with pytest.raises(raised) as failed:
                content(brief, named(listing, "model-00002-of-00003.safetensors"))
            texts.append("".join(traceback.format_exception(failed.value)))
        links = [request.target for request in hub.requests if "auth_key=" in request.target]
    log = "\n".join([logging.Formatter().format(record) for record in caplog.records] + texts)
    assert "GET" in log  # urllib3 did write at DEBUG
    assert len(links) > 5
    assert TOKEN not in log
    assert "auth_key" not in log
    assert not any(link.partition("auth_key=")[2] in log for link in links)
