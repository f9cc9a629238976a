"""The smoke test against real sockets: a whole group passes, and each thing that goes wrong is named."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from steps.adapters.sglang.client import SglangInference
from steps.errors import Blocked, DeadlineExceeded
from steps.reconcile.converge import Outcome, converge
from steps.smoke_test import SmokeTest
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.pd_cluster import LoopbackRoute, PdCluster
from tests.support.pd_group import MODEL_PATH, PdGroup, eventually, pd_group, started_groups
from workflows.simulator.core.hub.sample_model import KV_BYTES_PER_TOKEN
from workflows.simulator.faults.engine_faults import EngineFaults

Start = Callable[..., PdGroup]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with started_groups(tmp_path) as started:
        yield started


def smoke(pd: PdGroup, report: RecordingReport | None = None, clock: FakeClock | None = None) -> Outcome:
    step = SmokeTest(pd.release, PdCluster(pd), SglangInference(LoopbackRoute(pd=pd), chat_timeout=60.0))
    return converge(step, report or RecordingReport(), clock or FakeClock(lambda _seconds: settle(pd)))


def settle(pd: PdGroup) -> None:
    """A prefill counts a transfer a moment after the decode has answered, and this clock only claims to wait."""
    eventually(pd.is_quiet, "the workers have counted their chats")


def test_a_whole_group_is_proved_on_every_pair(start: Start) -> None:
    report = RecordingReport()
    outcome = smoke(start(), report)
    assert outcome.changes == ()
    assert outcome.outputs.answer.startswith("simulated answer")
    assert outcome.outputs.pairs == "prefill-0 -> decode-0, prefill-1 -> decode-0"
    assert outcome.outputs.requests == 2
    kept = report.of("ok")
    tokens = outcome.outputs.prompt_tokens
    assert f"prefill-0 -> decode-0 moved {tokens * KV_BYTES_PER_TOKEN / 2**20:.4f} MiB for {tokens} tokens" in kept
    assert "every worker refuses a chat that bypasses the router with 400" in kept
    assert "KV cache goes over RDMA device erdma_0 on every worker" in kept


def test_a_whole_group_is_green_while_others_ask_it_over_the_same_sockets(start: Start) -> None:
    pd, stop = start(None, "serving.tensorParallel=2"), threading.Event()

    def ask() -> None:
        body = {"model": MODEL_PATH, "messages": [{"role": "user", "content": "What is a keel?"}]}
        while not stop.is_set():
            requests.post(pd.url("router-0") + "/v1/chat/completions", json=body, timeout=60)

    others = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
    for other in others:
        other.start()
    try:
        for _ in range(5):
            outputs = smoke(pd, clock=FakeClock()).outputs
            assert (outputs.pairs + outputs.pairs_not_attributable).count("->") == 2
    finally:
        stop.set()
        for other in others:
            other.join()


def test_pairs_that_round_robin_never_takes_are_asked_directly(start: Start) -> None:
    report = RecordingReport()
    outputs = smoke(start(None, "serving.decode.replicas=2"), report).outputs
    assert outputs.pairs.count("->") == 4
    assert sum(line.endswith("asked directly") for line in report.of("ok")) == 2


def test_two_ranks_move_half_the_kv_cache_each(start: Start) -> None:
    assert smoke(start(None, "serving.tensorParallel=2")).outputs.pairs


def test_tcp_as_wanted_is_no_fault(start: Start) -> None:
    assert smoke(start(None, "serving.fabric=tcp")).outputs.pairs


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        (
            EngineFaults(broken_pairs=frozenset({("prefill-1", "decode-0")})),
            [
                "decode-0: num_transfer_failed_reqs_total rose by 1 during the request through the router, expected 0",
                "prefill-1 -> decode-0: no answer, found 500: decode: KVTransferError",
            ],
        ),
        (
            EngineFaults(wrong_weights=frozenset({"decode-0"})),
            ["the workers differ in weights: decode-0 has ", "a pair of them would answer with garbage"],
        ),
        (
            EngineFaults(tcp_fallback=frozenset({"prefill-0"})),
            ["prefill-0: the transfer engine uses TCP, expected RDMA device erdma_0"],
        ),
        (
            EngineFaults(no_transfer=frozenset({"prefill-0", "prefill-1"})),
            ["answered, but no prefill worker sent KV cache: found 0 transfers, expected 1"],
        ),
    ],
)
def test_what_goes_wrong_is_named(start: Start, faults: EngineFaults, says: list[str]) -> None:
    with pytest.raises(Blocked) as caught:
        smoke(start(faults))
    for words in says:
        assert words in caught.value.reason


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("decode-0", ["--page-size", "64"], "the workers differ in page size: decode-0 has 64, prefill-0 has 1"),
        ("decode-0", ["--kv-cache-dtype", "fp8_e5m2"], "the workers differ in KV cache dtype: decode-0 has fp8_e5m2"),
        ("prefill-1", ["--disaggregation-mode", "null"], "prefill-1: the disaggregation mode is 'null', expected"),
        ("prefill-1", ["--served-model-name", "other"], "prefill-1: the served model name is 'other', expected"),
        (
            "decode-0",
            ["--json-model-override-args", '{"rope_scaling":{"factor":4.0}}'],
            "the workers differ in model overrides",
        ),
        (
            "prefill-0",
            ["--disaggregation-transfer-backend", "mooncake_tcp"],
            "prefill-0: the RDMA device is None, expected 'erdma_0'",
        ),
    ],
)
def test_workers_that_are_not_alike_are_refused_before_the_first_request(
    start: Start, name: str, flags: list[str], says: str
) -> None:
    pd = start(None, "serving.prefill.replicas=2", but={name: flags})
    with pytest.raises(Blocked, match="failed") as caught:
        smoke(pd)
    assert says in caught.value.reason
    assert "through the router" not in caught.value.reason


def test_another_version_than_the_document_says_is_refused(start: Start) -> None:
    with pytest.raises(Blocked, match=r"decode-0: the SGLang version is '0.5.23', expected '0.5.22'"):
        smoke(start(None, "serving.image=registry.example.com/llm/sglang:0.5.22"))


def test_workers_that_still_start_are_waited_for(tmp_path: Path) -> None:
    pd = pd_group(tmp_path)
    pd.start_worker("prefill-0")
    pd.start_worker("decode-0")
    report = RecordingReport()

    def during(_seconds: float) -> None:
        if "prefill-1" not in pd.containers:
            pd.start_worker("prefill-1")
        elif "router-0" not in pd.containers:
            pd.start_router()
            eventually(pd.serves, "the router sees every worker")
        settle(pd)

    outcome = smoke(pd, report, FakeClock(during))
    pd.stop()
    assert outcome.outputs.pairs.count("->") == 2
    assert "prefill pods with an address: 1 of 2" in report.of("waiting")
    assert any("cannot be reached" in line for line in report.of("waiting"))


def test_a_worker_that_never_comes_ends_at_the_deadline_and_says_whom_it_waited_for(start: Start) -> None:
    pd = start()
    pd.containers["prefill-1"].stop()
    eventually(lambda: not pd.serves(), "the router misses a worker")
    with pytest.raises(DeadlineExceeded, match=r"pods/default/demo-[0-9a-f]+-prefill-1:8000 cannot be reached"):
        smoke(pd, clock=FakeClock())


def test_without_pods_the_step_says_what_must_run_first(tmp_path: Path) -> None:
    with pytest.raises(Blocked, match="Next: submit a new run; at the end of a failed one its release is removed"):
        smoke(pd_group(tmp_path))
