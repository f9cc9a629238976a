"""The embedded engine at work: pairs over sockets, answers, counters, and the ways in which it fails."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from steps.adapters.sglang import metrics as exposition
from steps.ports.sglang import Metrics
from tests.support.pd_group import FAST, PdGroup, eventually, pd_group, started_groups, write_model
from workflows.simulator.core.hub.sample_model import KV_BYTES_PER_TOKEN
from workflows.simulator.faults.engine_faults import EngineFaults, EngineTiming

Start = Callable[..., PdGroup]
CHAT = "/v1/chat/completions"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with started_groups(tmp_path) as started:
        yield started


def ask(pd: PdGroup, prompt: str = "Explain prefill.", name: str = "router-0", **more: Any) -> requests.Response:
    body = {"model": "any", "messages": [{"role": "user", "content": prompt}], "max_tokens": 64, **more}
    return requests.post(pd.url(name) + CHAT, json=body, timeout=30)


def metrics(pd: PdGroup, name: str) -> Metrics:
    return exposition.parse(requests.get(pd.url(name) + "/metrics", timeout=30).text)


def total(pd: PdGroup, name: str, metric: str) -> float:
    return metrics(pd, name).total(f"sglang:{metric}") or 0.0


def follow(pd: PdGroup, transfers: int) -> None:
    """A prefill counts a transfer, and after it the request, a moment after the decode has answered."""
    prefills = [name for name in pd.containers if name.startswith("prefill")]
    warm_ups = len(prefills)
    eventually(
        lambda: sum(total(pd, name, "num_requests_total") for name in prefills) == warm_ups + transfers,
        f"{transfers} requests are counted",
    )
    counted = [metrics(pd, name).total("sglang:kv_transfer_total_mb_count", tp_rank="0") or 0 for name in prefills]
    assert sum(counted) == transfers


def test_one_request_moves_its_kv_cache_from_exactly_one_prefill(start: Start) -> None:
    pd = start()
    names = ("prefill-0", "prefill-1", "decode-0")
    before = {name: total(pd, name, "num_requests_total") for name in names}
    usage = ask(pd).json()["usage"]
    follow(pd, 1)
    moved = {name: total(pd, name, "kv_transfer_total_mb_sum") for name in names}
    assert sorted(moved.values()) == [0, 0, usage["prompt_tokens"] * KV_BYTES_PER_TOKEN / 2**20]
    assert moved["decode-0"] == 0
    after = {name: total(pd, name, "num_requests_total") - before[name] for name in names}
    assert after["decode-0"] == 1
    assert sorted(after.values()) == [0, 1, 1]


def test_counters_move_as_on_the_real_engine(start: Start) -> None:
    pd = start(None, "serving.prefill.replicas=1")
    before = {name: metrics(pd, name) for name in ("prefill-0", "decode-0")}
    usage = ask(pd).json()["usage"]
    follow(pd, 1)
    prompt, made = usage["prompt_tokens"], usage["completion_tokens"]

    def delta(name: str, metric: str, **labels: str) -> float:
        return (metrics(pd, name).total(metric, **labels) or 0) - (before[name].total(metric, **labels) or 0)

    assert before["prefill-0"].total("sglang:kv_transfer_total_mb_count") is None
    assert delta("prefill-0", "sglang:kv_transfer_total_mb_count") == 1
    assert delta("prefill-0", "sglang:prompt_tokens_total") == prompt
    assert delta("prefill-0", "sglang:generation_tokens_total") == 1
    assert delta("decode-0", "sglang:prompt_tokens_total") == prompt
    assert delta("decode-0", "sglang:generation_tokens_total") == made
    for failed in ("num_transfer_failed_reqs_total", "num_bootstrap_failed_reqs_total", "num_aborted_requests_total"):
        assert metrics(pd, "decode-0").total(f"sglang:{failed}") is None


def test_health_moves_no_kv_cache_and_counts_as_no_request(start: Start) -> None:
    pd = start(None, "serving.prefill.replicas=1")
    before = total(pd, "prefill-0", "num_requests_total")
    assert requests.get(pd.url("prefill-0") + "/health", timeout=30).status_code == 200
    assert total(pd, "prefill-0", "num_requests_total") == before == 1  # the warm-up
    assert total(pd, "prefill-0", "kv_transfer_total_mb_count") == 0


def test_the_same_prompt_gets_the_same_answer_and_another_model_another(start: Start, tmp_path: Path) -> None:
    pd = start()
    texts = {ask(pd).json()["choices"][0]["message"]["content"] for _ in range(3)}
    assert len(texts) == 1
    other = pd_group(tmp_path / "other")
    write_model(other.model, seed=8)
    other.start_all()
    eventually(other.serves, "the router sees every worker")
    assert ask(other).json()["choices"][0]["message"]["content"] not in texts
    other.stop()


def test_round_robin_takes_every_prefill_in_turn(start: Start) -> None:
    pd = start()
    for number in range(4):
        ask(pd, f"question {number}")
    follow(pd, 4)
    assert [total(pd, f"prefill-{number}", "kv_transfer_total_mb_count") for number in range(2)] == [2, 2]


@pytest.mark.parametrize(
    ("more", "finish"),
    [({"max_tokens": 3}, "length"), ({"max_tokens": 200}, "stop")],
)
def test_limits_are_honoured_and_counted(start: Start, more: dict[str, Any], finish: str) -> None:
    pd = start(None, "serving.prefill.replicas=1")
    found = ask(pd, **more).json()
    choice, usage = found["choices"][0], found["usage"]
    assert choice["finish_reason"] == finish
    assert usage["completion_tokens"] <= more["max_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_holds_the_same_answer_as_one_body(start: Start) -> None:
    pd = start()
    whole = ask(pd).json()
    text = ask(pd, stream=True, stream_options={"include_usage": True}).text
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: {")]
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    message = whole["choices"][0]["message"]
    assert "".join(delta.get("content") or "" for delta in deltas) == message["content"]
    assert events[-1]["usage"] == whole["usage"]
    assert text.endswith("data: [DONE]\n\n")


def test_a_prompt_that_is_too_long_is_refused(start: Start) -> None:
    pd = start()
    reply = ask(pd, "word " * 5000)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "decode_bad_request"
    assert "longer than the model's context length (4096 tokens)" in reply.json()["error"]["message"]


def test_a_router_without_workers_lives_but_serves_nothing(tmp_path: Path) -> None:
    pd = pd_group(tmp_path)
    pd.start_router()
    eventually(lambda: pd.containers["router-0"].address(pd.port) is not None, "the router listens")
    url = pd.url("router-0")
    assert requests.get(url + "/health", timeout=30).status_code == 200
    assert requests.get(url + "/readiness", timeout=30).status_code == 503
    refused = ask(pd)
    assert refused.status_code == 503
    assert refused.headers["x-smg-error-code"] == "server_selection_failed"
    pd.stop()


def test_the_router_drops_a_dead_worker_and_takes_it_back(start: Start) -> None:
    pd = start()
    pd.containers["prefill-1"].stop()

    def healthy() -> int:
        found = requests.get(pd.url("router-0") + "/workers", timeout=30).json()["workers"]
        return sum(worker["is_healthy"] for worker in found)

    eventually(lambda: healthy() == 2, "the router drops the dead worker")
    assert ask(pd).status_code == 200
    pd.start_worker("prefill-1")
    eventually(lambda: healthy() == 3, "the router takes it back")


def test_a_broken_pair_fails_while_the_other_one_serves(start: Start) -> None:
    pd = start(EngineFaults(broken_pairs=frozenset({("prefill-1", "decode-0")})))
    statuses = {ask(pd, f"question {number}").status_code for number in range(4)}
    assert statuses == {200}  # the router's retries hide it
    assert total(pd, "decode-0", "num_transfer_failed_reqs_total") > 0
    eventually(lambda: total(pd, "prefill-1", "num_transfer_failed_reqs_total") > 0, "prefill counts it, too")


def test_a_wrong_bootstrap_port_is_a_500_after_the_handshake_gave_up(start: Start) -> None:
    pd = start(None, "serving.prefill.replicas=1", timing=replace(FAST, handshake=0.3))
    body = {"model": "any", "messages": [{"role": "user", "content": "hi"}]}
    told = {"bootstrap_host": pd.ip("prefill-0"), "bootstrap_port": 1, "bootstrap_room": 5}
    reply = requests.post(pd.url("decode-0") + CHAT, json={**body, **told}, timeout=30)
    assert reply.status_code == 500
    assert "Could not fetch prefill server info" in reply.json()["message"]
    assert total(pd, "decode-0", "num_bootstrap_failed_reqs_total") == 1


def test_other_weights_on_decode_answer_200_with_garbage_and_no_failure_moves(start: Start) -> None:
    pd = start(EngineFaults(wrong_weights=frozenset({"decode-0"})), "serving.prefill.replicas=1")
    reply = ask(pd)
    assert reply.status_code == 200
    content = reply.json()["choices"][0]["message"]["content"]
    assert content.startswith("simulated")
    assert content.count("\ufffd") > 5
    assert total(pd, "decode-0", "num_transfer_failed_reqs_total") == 0
    follow(pd, 1)


def test_another_page_size_lets_decode_start_and_die_of_its_first_request(start: Start) -> None:
    pd = start(None, "serving.prefill.replicas=1", but={"decode-0": ["--page-size", "64"]})
    assert ask(pd).status_code >= 500
    eventually(lambda: pd.containers["decode-0"].exited() is not None, "decode dies")
    assert "page_size mismatch" in pd.containers["decode-0"].log()


def test_route_is_503_until_the_model_is_loaded(tmp_path: Path) -> None:
    pd = pd_group(tmp_path, timing=EngineTiming(watch=0.02))
    pd.runtime = type(pd.runtime)(EngineFaults(slow_start={"prefill-0": 30.0}), EngineTiming())
    worker = pd.start_worker("prefill-0")
    assert worker.address(pd.port) is None
    assert worker.exited() is None
    worker.stop()


def test_tensor_parallel_ranks_share_the_kv_heads(start: Start) -> None:
    pd = start(None, "serving.prefill.replicas=1", "serving.tensorParallel=2")
    usage = ask(pd).json()["usage"]
    # Two KV heads over two ranks, each with series of its own.
    expected = usage["prompt_tokens"] * KV_BYTES_PER_TOKEN / 2 / 2**20
    follow(pd, 1)
    found = metrics(pd, "prefill-0")
    assert [found.total("sglang:kv_transfer_total_mb_sum", tp_rank=rank) for rank in "01"] == [expected, expected]
