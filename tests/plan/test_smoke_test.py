"""What the smoke test decides, from facts alone."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.ports.sglang import (
    BootstrapRoute,
    ChatResponse,
    EngineError,
    EngineInfo,
    Metrics,
    RoutedWorker,
    Sample,
    Server,
)
from steps.proof.answers import flaws
from steps.proof.counters import Counters, KvTransfers, counters, kv_bytes_per_token
from steps.proof.probe_requests import ATTEMPTS, READINGS, Pair, ProbeRequest, ThroughRouter, next_request
from steps.proof.transport import transport
from steps.proof.worker_endpoints import WorkerEndpoint
from steps.proof.worker_state import WorkerState
from steps.smoke_test import Facts, plan
from tests.support.samples import release

RELEASE = release()
PATH = "/models/Qwen3-32B"
KIB = 2**10
BYTES = 128 * KIB  # Qwen3-32B at tensor parallel 2: 64 layers x 2 x 4 KV heads x 128 x 2 bytes
TOKENS = 100
MOVED = TOKENS * BYTES / 2**20  # MiB
ANSWER = ChatResponse(PATH, "Prefill reads, decode writes.", "", "stop", TOKENS, 8)
PAIRS: tuple[Pair, ...] = (("prefill-0", "decode-0"), ("prefill-1", "decode-0"))
NAMES = ("prefill-0", "prefill-1", "decode-0")


def worker(name: str, **changes: Any) -> WorkerState:
    role = name.partition("-")[0]
    info = EngineInfo(
        version="0.5.23",
        disaggregation_mode=role,
        model_path=PATH,
        served_model_name=PATH,
        weight_version="default",
        tp_size=2,
        page_size=1,
        kv_cache_dtype="auto",
        dtype="bfloat16",
        context_length=None,
        model_override="{}",
        chat_template=None,
        transfer_backend="mooncake",
        rdma_device="erdma_0",
        bootstrap_port=34000,
        launch_command="",
    )
    server = Server("pods", "default", name, 8000, "10.0.0.1")
    whole = WorkerState(
        endpoint=WorkerEndpoint(name, role, f"uid-{name}", name, "sglang", server, replace(server, port=34000)),
        info=replace(info, **{key: value for key, value in changes.items() if hasattr(info, key)}),
        kv_bytes_per_token=float(BYTES),
        checksum="906d8c493c20",
        route=BootstrapRoute(2, 1, "auto") if role == "prefill" else None,
        direct=EngineError(400, "Disaggregated request received without bootstrap room id"),
        transport="rdma",
    )
    return replace(whole, **{key: value for key, value in changes.items() if not hasattr(info, key)})


def routed(*healthy: str, bootstrap_port: int = 34000) -> tuple[RoutedWorker, ...]:
    return tuple(
        RoutedWorker(f"http://{name}:8000", name.partition("-")[0], name in healthy, port, PATH)
        for name in NAMES
        for port in [bootstrap_port if name.startswith("prefill") else None]
    )


def gave(mib: float = MOVED, *, kv_transfers: int = 1, **counted: Any) -> Counters:
    """A prefill of two ranks that handed over the KV cache of one request."""
    shares = {("", "0", rank): KvTransfers(kv_transfers, mib / 2) for rank in "01"}
    return replace(Counters(1, TOKENS, arrived=1, ranks=shares), **counted)


def took(**counted: Any) -> Counters:
    """A decode that finished one request."""
    return replace(Counters(1, TOKENS, arrived=1), **counted)


def request(prefill: str | None, pair: Pair | None = None, **changes: Any) -> ProbeRequest:
    """A request that `prefill` and decode-0 answered; `changes` are counters by name of the worker."""
    after = {name: Counters() for name in NAMES}
    if prefill:
        after[prefill] = gave()
    after["decode-0"] = took()
    after |= {name.replace("_", "-"): counter for name, counter in changes.items()}
    return ProbeRequest(PAIRS, pair, ANSWER, {name: Counters() for name in NAMES}, after)


def facts(*requests: ProbeRequest, **changes: Any) -> Facts:
    proved = requests or (request("prefill-0"), request("prefill-1"))
    workers = tuple(worker(name) for name in NAMES)
    return replace(Facts(workers=workers, routed=routed(*NAMES), requests=proved), **changes)


def with_worker(name: str, **changes: Any) -> Facts:
    return facts(workers=tuple(worker(each, **(changes if each == name else {})) for each in NAMES))


def test_every_pair_that_moved_its_kv_cache_is_kept_with_its_bytes() -> None:
    found = plan(RELEASE, facts())
    assert found.converged
    assert found.ok == (
        "2 prefill and 1 decode workers run SGLang 0.5.23 with /models/Qwen3-32B, the same weights 906d8c493c20",
        "the router has 2 prefill and 1 decode healthy workers",
        "every worker refuses a chat that bypasses the router with 400",
        "KV cache goes over RDMA device erdma_0 on every worker",
        "answered with 8 tokens, ended by a full stop: Prefill reads, decode writes.",
        "prefill-0 -> decode-0 moved 12.5 MiB for 100 tokens",
        "prefill-1 -> decode-0 moved 12.5 MiB for 100 tokens",
    )


def test_a_router_that_does_not_see_all_workers_is_waited_for() -> None:
    found = plan(RELEASE, facts(routed=routed("prefill-0", "decode-0")))
    assert found.waiting == ("the router to register 2 healthy prefill workers; it has 1",)
    assert not found.failed


@pytest.mark.parametrize(
    ("name", "changes", "fault"),
    [
        ("decode-0", {"version": "0.5.22"}, "decode-0: the SGLang version is '0.5.22', expected '0.5.23'"),
        ("decode-0", {"disaggregation_mode": "null"}, "decode-0: the disaggregation mode is 'null', expected 'decode'"),
        ("prefill-0", {"model_path": "/x"}, "prefill-0: the model path is '/x', expected '/models/Qwen3-32B'"),
        ("prefill-0", {"tp_size": 1}, "prefill-0: the tensor-parallel size is 1, expected 2"),
        ("prefill-1", {"bootstrap_port": 8998}, "prefill-1: the bootstrap port is 8998, expected 34000"),
        ("prefill-1", {"rdma_device": None}, "prefill-1: the RDMA device is None, expected 'erdma_0'"),
        ("prefill-1", {"transport": "tcp"}, "prefill-1: the transfer engine uses TCP, expected RDMA device erdma_0"),
        (
            "decode-0",
            {"direct": ANSWER},
            "decode-0: a chat that bypasses the router was answered (8 tokens), expected 400",
        ),
        (
            "decode-0",
            {"direct": EngineError(500, "oom")},
            "decode-0: a chat that bypasses the router was answered (500: oom)",
        ),
        ("decode-0", {"checksum": "1"}, "the workers differ in weights: prefill-0 has 906d8c493c20, "),
        ("decode-0", {"kv_bytes_per_token": 196608.0}, "decode-0 has 196608; they do not serve the same model"),
        ("decode-0", {"model_override": "{1}"}, "the workers differ in model overrides: prefill-0 has {}, "),
        ("prefill-0", {"route": BootstrapRoute(1, 1, "auto")}, "prefill-0: the TP size that it sends to decode is 1"),
    ],
)
def test_a_worker_that_is_not_as_rendered_is_a_fault_before_any_request(
    name: str, changes: dict[str, Any], fault: str
) -> None:
    found = plan(RELEASE, replace(with_worker(name, **changes), requests=()))
    assert any(fault in line for line in found.failed), found.failed


def test_a_log_that_rotated_away_is_said_and_is_no_fault() -> None:
    found = plan(RELEASE, with_worker("decode-0", transport="unknown"))
    assert not found.failed
    assert "RDMA is as rendered; the logs of decode-0 no longer show the transport" in found.ok


def test_a_bootstrap_port_that_the_router_does_not_pass_on_is_a_fault() -> None:
    found = plan(RELEASE, facts(routed=routed(*NAMES, bootstrap_port=8998)))
    assert found.failed[0].startswith("the router sends requests for http://prefill-0:8000 with bootstrap port 8998")


def test_kv_cache_that_is_too_little_for_the_prompt_is_a_fault() -> None:
    half = request("prefill-0", prefill_0=gave(MOVED / 2))
    assert plan(RELEASE, facts(half)).failed == (
        (
            "the request through the router: prefill-0 moved 6.2 MiB of KV cache for 100 tokens, "
            "expected 12.5 MiB at 131072 bytes a token"
        ),
    )


def test_kv_cache_may_be_rounded_up_to_whole_pages() -> None:
    workers = tuple(
        worker(name, page_size=64, route=BootstrapRoute(2, 64, "auto") if name != "decode-0" else None)
        for name in NAMES
    )
    rounded = request("prefill-0", prefill_0=gave(128 * BYTES / 2**20))
    found = plan(RELEASE, facts(rounded, request("prefill-1"), workers=workers))
    assert found.converged


def test_an_answer_without_any_transfer_is_waited_for_and_then_a_fault() -> None:
    nothing = request(None)
    assert plan(RELEASE, facts(nothing)).waiting == (
        "the counters of the request through the router to follow its answer",
    )
    for _ in range(READINGS):
        nothing = nothing.again(nothing.after)
    assert plan(RELEASE, facts(nothing)).failed == (
        (
            "the request through the router: answered, but no prefill worker sent KV cache: "
            "found 0 transfers, expected 1"
        ),
    )


def tried_twice(**decode: Any) -> ProbeRequest:
    """Through the router, whose first try at prefill-1 failed."""
    tried = replace(took(arrived=2, transfers_failed=1), **decode)
    return request("prefill-0", prefill_1=Counters(arrived=1, transfers_failed=1), decode_0=tried)


def test_a_failure_counter_that_moves_beside_a_good_answer_is_a_fault() -> None:
    assert plan(RELEASE, facts(tried_twice(), request("prefill-1"))).failed == (
        "prefill-1: num_transfer_failed_reqs_total rose by 1 during the request through the router, expected 0",
        "decode-0: num_transfer_failed_reqs_total rose by 1 during the request through the router, expected 0",
    )


@pytest.mark.parametrize(
    "beside",
    [
        {"aborted": 1},  # a client hung up, and its transfer ended with it
        {"arrived": 1},  # only this request came, so it was not tried twice: the failure is of an earlier one
        {"arrived": 3},  # more came than this request explains
    ],
)
def test_a_failure_counter_that_other_clients_may_have_moved_is_told_and_is_no_fault(beside: dict[str, float]) -> None:
    found = plan(RELEASE, facts(tried_twice(**beside), request("prefill-0"), request("prefill-1", PAIRS[1])))
    assert found.converged
    assert (
        "decode-0: num_transfer_failed_reqs_total rose by 1 during the request through the router; not attributable, "
        "other clients are served"
    ) in found.ok


def test_clients_that_were_seen_between_two_requests_count_as_well() -> None:
    later = request("prefill-1")
    passed = {name: Counters(3, 50, arrived=3) for name in NAMES}
    later = replace(
        later,
        before=passed,
        after={name: add(passed[name], later.after[name]) for name in NAMES},
    )
    assert later.pairs == {PAIRS[1]}
    assert plan(RELEASE, facts(tried_twice(), later)).failed == ()


def add(one: Counters, other: Counters) -> Counters:
    return one - (Counters() - other)


def test_a_worker_that_was_started_again_is_named() -> None:
    again = replace(request("prefill-0"), before={name: Counters(requests=5) for name in NAMES})
    assert any("decode-0: its counters fell" in line for line in plan(RELEASE, facts(again)).failed)


@pytest.mark.parametrize(
    "beside",
    [
        {"prefill_0": gave(2 * MOVED, kv_transfers=2, requests=2, prompt_tokens=2 * TOKENS)},
        {"prefill_0": gave(prompt_tokens=TOKENS - 7)},  # one request, but not this one
        {"prefill_1": gave()},
        {"decode_0": took(requests=2, prompt_tokens=2 * TOKENS)},
        {"decode_0": took(arrived=2)},
        {"decode_0": took(aborted=1)},
    ],
)
def test_a_request_through_the_router_beside_those_of_others_proves_no_pair(beside: dict[str, Any]) -> None:
    assert request("prefill-0", **beside).pairs == set()


def test_what_one_rank_has_counted_and_the_other_has_not_is_looked_at_again() -> None:
    between = {rank: KvTransfers(1 if rank[2] == "0" else 0, MOVED / 2) for rank in gave().ranks}
    early = request("prefill-0", PAIRS[0], prefill_0=replace(gave(), ranks=between))
    assert not early.stable
    assert request("prefill-0", PAIRS[0]).stable


def test_with_dp_attention_one_dp_rank_counts_the_whole_transfer() -> None:
    ranks = {("0", "0", "0"): KvTransfers(), ("1", "0", "1"): KvTransfers(1, MOVED)}
    found = request("prefill-0", PAIRS[0], prefill_0=replace(gave(), ranks=ranks))
    assert found.pairs == {PAIRS[0]}


def busy(pair: Pair, **changes: Any) -> ProbeRequest:
    """A pair that answered in a room of its own, while its prefill served another client."""
    prefill = pair[0].replace("-", "_")
    more = gave(MOVED / 3 + MOVED, kv_transfers=2, requests=2, prompt_tokens=TOKENS + 31, arrived=2)
    return request(None, pair, **{prefill: more} | changes)


def test_bytes_that_others_hide_are_asked_for_again_and_then_called_not_attributable() -> None:
    done = [busy(PAIRS[0]), busy(PAIRS[1])]
    router = request("prefill-0", prefill_1=gave(MOVED / 3))
    assert next_request(PAIRS, [router]) == PAIRS[0]
    assert next_request(PAIRS, [router, *done]) == PAIRS[0]
    assert next_request(PAIRS, [router, *done, request("prefill-0", PAIRS[0])]) == PAIRS[1]
    end = [router, *done, request("prefill-0", PAIRS[0]), *[busy(PAIRS[1])] * (ATTEMPTS - 1)]
    assert next_request(PAIRS, end) is None
    found = plan(RELEASE, facts(*end))
    assert found.converged
    assert found.ok[-3:] == (
        "prefill-0 -> decode-0 moved 12.5 MiB for 100 tokens, asked directly",
        (
            "prefill-1 -> decode-0 answered in 4 rooms of its own; bytes not attributable, "
            "other clients moved the counters"
        ),
        "bytes counted on 1 of 2 pairs",
    )


def test_a_size_that_only_this_request_can_have_moved_is_a_fault_whatever_others_do() -> None:
    router = request("prefill-0", prefill_1=gave(MOVED / 3))
    tenth = request(None, PAIRS[0], prefill_0=gave(MOVED / 10))
    assert "prefill-0 moved 1.2 MiB of KV cache for 100 tokens" in plan(RELEASE, facts(router, tenth)).failed[0]


def test_a_chosen_prefill_that_counts_no_transfer_at_all_is_a_fault_whatever_others_do() -> None:
    silent = replace(request("prefill-1", PAIRS[0]), readings=READINGS)
    assert plan(RELEASE, facts(busy(PAIRS[1]), silent)).failed == (
        ("prefill-0 -> decode-0: answered, but no prefill worker sent KV cache: found 0 transfers, expected 1"),
    )


def test_an_answer_that_no_decode_of_this_release_finished_is_a_fault() -> None:
    elsewhere = replace(request("prefill-0", decode_0=Counters()), readings=READINGS)
    assert "no decode worker finished a request" in plan(RELEASE, facts(elsewhere)).failed[0]


def test_the_router_is_asked_first_then_the_pairs_that_it_never_took() -> None:
    assert next_request(PAIRS, []) == ThroughRouter()
    assert next_request(PAIRS, [request("prefill-0")]) == ThroughRouter()
    assert next_request(PAIRS, [request("prefill-0"), request("prefill-1")]) is None
    same = [request("prefill-0")] * 4
    assert next_request(PAIRS, same) == ("prefill-1", "decode-0")
    assert next_request(PAIRS, [*same, request("prefill-1", PAIRS[1])]) is None


def test_after_a_failure_each_pair_is_asked_once_to_find_the_broken_one() -> None:
    refused = replace(request(None), response=EngineError(500, "decode_internal_error"))
    assert next_request(PAIRS, [refused]) == PAIRS[0]
    assert next_request(PAIRS, [refused, request("prefill-0", PAIRS[0])]) == PAIRS[1]
    broken = replace(request(None, PAIRS[1]), response=EngineError(500, "decode: KVTransferError"))
    done = [refused, request("prefill-0", PAIRS[0]), broken]
    assert next_request(PAIRS, done) is None
    assert plan(RELEASE, facts(*done)).failed == (
        "the request through the router: no answer, found 500: decode_internal_error",
        "prefill-1 -> decode-0: no answer, found 500: decode: KVTransferError",
    )


def test_nothing_is_asked_while_the_counters_of_the_last_request_have_not_followed() -> None:
    assert next_request(PAIRS, [request(None)]) is None


@given(prefill=st.integers(1, 4), decode=st.integers(1, 4), choices=st.randoms(use_true_random=False))
def test_whatever_the_router_chooses_every_pair_is_proved_in_bounded_requests(
    prefill: int, decode: int, choices: Any
) -> None:
    pairs = tuple((f"prefill-{p}", f"decode-{d}") for p in range(prefill) for d in range(decode))
    names = sorted({name for pair in pairs for name in pair})
    done: list[ProbeRequest] = []
    while (chosen := next_request(pairs, done)) is not None:
        sender, receiver = choices.choice(pairs) if isinstance(chosen, ThroughRouter) else chosen
        after = {name: Counters() for name in names} | {sender: gave(), receiver: took()}
        pair = None if isinstance(chosen, ThroughRouter) else chosen
        done.append(ProbeRequest(pairs, pair, ANSWER, {name: Counters() for name in names}, after))
    assert {pair for each in done for pair in each.pairs} == set(pairs)
    assert len(done) <= 2 * max(prefill, decode) + len(pairs)


@pytest.mark.parametrize(
    ("changes", "flaw"),
    [
        ({"model": "other"}, "answered as model 'other', expected '/models/Qwen3-32B'"),
        ({"finish_reason": "abort"}, "ended with finish_reason 'abort', expected one of stop, length, tool_calls"),
        ({"completion_tokens": 0, "text": ""}, "answered with 0 tokens and 0 characters, expected some"),
        ({"text": "the \ufffd\ufffd\ufffd\x0e\x01"}, "unreadable text"),
        ({"text": "the the the the the the"}, "answered with one token again and again"),
        ({"text": "!!!!!!!!!!!!!!!!"}, "answered with one token again and again"),
    ],
)
def test_an_answer_that_no_language_model_gives_is_named(changes: dict[str, Any], flaw: str) -> None:
    (found,) = flaws(replace(ANSWER, **changes), PATH)
    assert flaw in found


@pytest.mark.parametrize(
    "changes",
    [{}, {"text": "", "reasoning": "Let me think."}, {"text": "42"}, {"text": "ends inside a character \ufffd"}],
)
def test_a_plain_answer_has_no_flaw(changes: dict[str, Any]) -> None:
    assert flaws(replace(ANSWER, **changes), PATH) == []


def test_an_absent_counter_is_zero_and_label_sets_are_added() -> None:
    name = "sglang:num_requests_total"
    both = Metrics(tuple(Sample(name, {"is_streaming": flag}, 2.0) for flag in ("true", "false")))
    assert counters(both) == Counters(requests=4)
    assert kv_bytes_per_token(both) is None


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("RDMA device: erdma_0, LID: 0, GID: (GID_Index 1)", "rdma"),
        ("Topology discovery complete. Found 1 HCAs.\nTcpTransport: listen on port 16953", "tcp"),
        ("RDMA device: erdma_0, LID: 0\nTcpTransport: listen on port 16953", "tcp"),
        ("The server is fired up and ready to roll!", "unknown"),
    ],
)
def test_only_the_transport_that_was_installed_counts(log: str, found: str) -> None:
    assert transport(log) == found
