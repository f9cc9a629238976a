"""Every fault that a hub is known for: mended by the adapter, or refused in a sentence."""

import collections
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from werkzeug import Request, Response

from steps.adapters.modelscope.errors import TooSlow
from steps.adapters.modelscope.http import PIECE, HttpClient, read_into, small_body
from steps.adapters.throughput import MinimumThroughput, Throughput
from steps.errors import Blocked, StepError, TransientError
from tests.support.hubs import EARLY_MEASURED, HASTY, SHARD, content, is_right, named, serving, source_of, with_budget
from workflows.simulator.faults import request_faults as kinds
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.hub import Hub
from workflows.simulator.http.server import LoopbackServer, json_reply

API, GATEWAY, CDN = "repo/files", "FilePath=", "GET /cdn"
BRIEF = with_budget(HASTY, 0.4)
ALWAYS = 10_000


@pytest.fixture
def faults() -> RequestFaults:
    return RequestFaults(retry_after=0)


@pytest.fixture
def hub(tmp_path: Path, faults: RequestFaults) -> Iterator[Hub]:
    with serving(tmp_path / "hub", faults=faults) as hub:
        yield hub


MENDED = [
    *((CDN, kind) for kind in (kinds.DROP, kinds.SHORT_BODY, kinds.SLOW, kinds.SERVER_ERROR, kinds.UNAVAILABLE)),
    (CDN, kinds.THROTTLED),
    (CDN, kinds.EXPIRED_LINK),
    *((GATEWAY, kind) for kind in (kinds.SERVER_ERROR, kinds.UNAVAILABLE, kinds.THROTTLED)),
    (GATEWAY, kinds.JSON_200),
    (GATEWAY, kinds.FORBIDDEN),
]


@pytest.mark.parametrize(("where", "kind"), MENDED)
def test_a_passing_fault_is_mended_without_a_word(hub: Hub, faults: RequestFaults, where: str, kind: str) -> None:
    source = source_of(hub)
    file = named(source.listing(), SHARD)
    faults.plan(where, kind)
    assert is_right(source, file)
    assert [injected for _, injected in faults.injected] == [kind]


@pytest.mark.parametrize("kind", [kinds.DROP, kinds.SHORT_BODY, kinds.SERVER_ERROR, kinds.THROTTLED, kinds.JSON_200])
def test_a_passing_fault_at_a_small_file_is_mended_without_a_word(hub: Hub, faults: RequestFaults, kind: str) -> None:
    source = source_of(hub)
    file = named(source.listing(), "tokenizer.json")
    faults.plan(GATEWAY, kind)
    assert is_right(source, file)
    assert [injected for _, injected in faults.injected] == [kind]


@pytest.mark.parametrize("kind", [kinds.SERVER_ERROR, kinds.UNAVAILABLE, kinds.THROTTLED, kinds.JSON_200])
def test_a_passing_fault_of_the_listing_is_mended_without_a_word(hub: Hub, faults: RequestFaults, kind: str) -> None:
    faults.plan(API, kind)
    assert len(source_of(hub).listing().files) == 10
    assert [injected for _, injected in faults.injected] == [kind]


@pytest.mark.parametrize(
    ("where", "kind", "raised"),
    [
        (CDN, kinds.DROP, TransientError),
        (CDN, kinds.SERVER_ERROR, TransientError),
        (CDN, kinds.UNAVAILABLE, TransientError),
        (CDN, kinds.THROTTLED, TransientError),
        (CDN, kinds.EXPIRED_LINK, Blocked),
        (GATEWAY, kinds.SERVER_ERROR, TransientError),
        (GATEWAY, kinds.JSON_200, Blocked),
        (GATEWAY, kinds.FORBIDDEN, Blocked),
    ],
)
def test_a_fault_that_stays_ends_with_the_right_word(
    hub: Hub, faults: RequestFaults, where: str, kind: str, raised: type[StepError]
) -> None:
    source = source_of(hub, limits=BRIEF)
    file = named(source.listing(), SHARD)
    # One byte: a reset in the middle of a body of one byte is one without progress.
    faults.plan(where, kind, ALWAYS)
    with pytest.raises(raised) as failed:
        source.read(file, 0, memoryview(bytearray(1)))
    assert SHARD in failed.value.reason
    assert failed.value.hint


@pytest.mark.parametrize(
    ("kind", "raised"), [(kinds.SERVER_ERROR, TransientError), (kinds.JSON_200, Blocked), (kinds.FORBIDDEN, Blocked)]
)
def test_a_listing_that_never_comes_ends_with_the_right_word(
    hub: Hub, faults: RequestFaults, kind: str, raised: type[StepError]
) -> None:
    faults.plan(API, kind, ALWAYS)
    with pytest.raises(raised) as failed:
        source_of(hub, limits=BRIEF).listing()
    assert "Qwen3-small@master" in failed.value.reason
    assert failed.value.hint


@pytest.mark.parametrize("kind", [kinds.JSON_200, kinds.FORBIDDEN])
def test_an_answer_that_rarely_gets_better_is_asked_for_three_times(hub: Hub, faults: RequestFaults, kind: str) -> None:
    source = source_of(hub)
    file = named(source.listing(), SHARD)
    faults.plan(GATEWAY, kind, ALWAYS)
    with pytest.raises(Blocked):
        content(source, file)
    assert len(hub.received(GATEWAY)) == 3


def test_a_retry_goes_on_behind_the_bytes_that_came(hub: Hub, faults: RequestFaults) -> None:
    source = source_of(hub)
    file = named(source.listing(), SHARD)
    faults.plan(CDN, kinds.SHORT_BODY)
    assert is_right(source, file)
    ranges = [request.headers["range"] for request in hub.received(CDN)]
    assert ranges == [f"bytes=0-{file.size - 1}", f"bytes={file.size // 2}-{file.size - 1}"]


def test_progress_renews_the_budget(hub: Hub, faults: RequestFaults) -> None:
    """Half of the rest comes each time, so 15 failures in a row are 15 times progress."""
    source = source_of(hub, limits=replace(HASTY, unusable_answers=2))
    file = named(source.listing(), SHARD)
    faults.plan(CDN, kinds.SHORT_BODY, times=15)
    assert is_right(source, file)


def test_a_pause_that_the_hub_asks_for_is_not_shortened(tmp_path: Path) -> None:
    """A pause beyond the budget is not waited for at all: the step ends with 75, and Argo waits instead."""
    faults = RequestFaults(retry_after=600)
    with serving(tmp_path / "hub", faults=faults) as hub:
        source = source_of(hub)
        file = named(source.listing(), SHARD)
        faults.plan(CDN, kinds.THROTTLED)
        with pytest.raises(TransientError, match="status 429"):
            content(source, file)
        assert len(hub.received(CDN)) == 1


def test_wrong_bytes_come_through_once_and_the_callers_sha256_tells(hub: Hub, faults: RequestFaults) -> None:
    """The adapter cannot detect them; a second read gets other bytes."""
    source = source_of(hub)
    file = named(source.listing(), SHARD)
    faults.plan(CDN, kinds.WRONG_BYTES)
    assert not is_right(source, file)
    assert is_right(source, file)


def test_a_drip_is_noticed_long_before_the_budget_ends(
    hub: Hub, faults: RequestFaults, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = source_of(hub, limits=replace(with_budget(EARLY_MEASURED, 600.0), silence=600.0))
    file = named(source.listing(), SHARD)
    faults.plan(CDN, kinds.SLOW)
    assert is_right(source, file)  # at the pace of the drip this would take half a minute
    assert len(hub.received(CDN)) == 2
    assert "kB/s, less than 16 kB/s" in caplog.text


def test_a_drip_behind_a_fast_beginning_is_noticed_in_the_middle_of_a_piece() -> None:
    stopping = threading.Event()

    def stall(_request: Request) -> Response:
        return Response(pieces(), headers={"Content-Length": str(8 * PIECE)})

    def pieces() -> Iterator[bytes]:
        yield bytes(3 * PIECE + 1)
        while not stopping.wait(0.01):
            yield b"x"

    server = LoopbackServer(stall)
    server.start()
    try:
        with HttpClient(HASTY).get(server.url, {}) as response:
            came = read_into(
                response, memoryview(bytearray(8 * PIECE)), Throughput(MinimumThroughput(16 << 10, window=0.3))
            )
            with pytest.raises(TooSlow, match="kB/s, less than 16 kB/s"):
                collections.deque(came, maxlen=0)
    finally:
        stopping.set()
        server.stop()


def test_an_answer_that_is_here_as_a_whole_is_taken_however_long_it_took() -> None:
    server = LoopbackServer(lambda _request: json_reply({"Data": "x" * 5000}))
    server.start()
    try:
        with HttpClient(HASTY).get(server.url, {}) as response:
            never_sufficient = Throughput(MinimumThroughput(1 << 60, window=0.0))
            assert b'"Data"' in small_body(response, never_sufficient)
    finally:
        server.stop()


def test_a_slow_but_steady_connection_is_left_alone(hub: Hub, faults: RequestFaults) -> None:
    source = source_of(hub, limits=replace(EARLY_MEASURED, throughput=MinimumThroughput(1, window=0.3)))
    file = named(source.listing(), "model.safetensors.index.json")
    faults.plan(GATEWAY, kinds.SLOW)
    assert is_right(source, file)
    assert len(hub.received(GATEWAY)) == 1


def test_many_threads_come_through_a_storm(tmp_path: Path) -> None:
    storm = RequestFaults(
        0.15,
        seed=7,
        kinds=(
            kinds.DROP,
            kinds.SHORT_BODY,
            kinds.SERVER_ERROR,
            kinds.UNAVAILABLE,
            kinds.THROTTLED,
            kinds.EXPIRED_LINK,
        ),
        retry_after=0,
    )
    with serving(tmp_path / "hub", faults=storm) as hub:
        source = source_of(hub, limits=replace(HASTY, unusable_answers=8))
        listing = source.listing()
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda file: is_right(source, file, part=10_000), listing.files))
        assert len(storm.injected) > 10
