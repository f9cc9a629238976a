"""The embedded engine answers as the recorded real one did, and the adapter reads both.

What was recorded, and from which versions: tests/recorded/sglang/README.md.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from steps.adapters.sglang import answers, metrics
from steps.ports.sglang import ChatResponse, EngineError, EngineInfo
from steps.proof.counters import Counters, KvTransfers, counters, kv_bytes_per_token
from tests.support import samples
from tests.support.pd_group import PdGroup, eventually, pd_group

RECORDED = samples.RECORDED / "sglang"
CHAT = "/v1/chat/completions"
QUESTION = {"model": "qwen3-32b", "messages": [{"role": "user", "content": "What is a keel?"}], "max_tokens": 4}
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        return [
            json.loads(line.removeprefix("data: ")) for line in self.body.splitlines() if line.startswith("data: {")
        ]


def recorded(name: str) -> Reply:
    found = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return Reply(found["status"], {key.lower(): value for key, value in found["headers"].items()}, found["body"])


@pytest.fixture(scope="module")
def pd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PdGroup]:
    parsers = 'serving.args=["--reasoning-parser","qwen3","--tool-call-parser","qwen25"]'
    group = pd_group(tmp_path_factory.mktemp("pd"), None, parsers, "serving.servedModelName=qwen3-32b")
    group.start_all()
    eventually(group.serves, "the router sees every worker")
    yield group
    group.stop()


def call(pd: PdGroup, name: str, path: str, body: Any = None, *, port: int = 0) -> Reply:
    url = pd.url(name, port) + path
    found = requests.get(url, timeout=30) if body is None else requests.post(url, json=body, timeout=30)
    found.encoding = "utf-8"
    return Reply(found.status_code, {key.lower(): value for key, value in found.headers.items()}, found.text)


def shape(content: Any) -> Any:
    """Names of fields and types of values; null fits every type, and an empty list every list."""
    if isinstance(content, dict):
        return {key: shape(value) for key, value in content.items()}
    if isinstance(content, list):
        return [shape(content[0])] if content else []
    if isinstance(content, bool | str):
        return type(content).__name__
    return "null" if content is None else "number"


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Fields of our shape that do not fit theirs; theirs may have more."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = [f"{path}.{key}: only here" for key in sorted(ours.keys() - theirs.keys())]
        return names + [
            line for key in ours.keys() & theirs.keys() for line in differences(ours[key], theirs[key], f"{path}.{key}")
        ]
    if isinstance(ours, list) and isinstance(theirs, list):
        return differences(ours[0], theirs[0], f"{path}[]") if ours and theirs else []
    fits = ours == theirs or "null" in (ours, theirs)
    return [] if fits else [f"{path}: {ours} here, {theirs} there"]


PLAIN = [
    ("router-0", "/readiness", "router_readiness"),
    ("router-0", "/v1/models", "router_v1_models"),
    ("prefill-0", "/model_info", "prefill0_model_info"),
    ("decode-0", "/model_info", "decode0_model_info"),
    ("prefill-0", "/server_info", "prefill0_server_info"),
    ("decode-0", "/server_info", "decode0_server_info"),
]


@pytest.mark.parametrize(("name", "path", "record"), PLAIN)
def test_facts_have_the_recorded_shape(pd: PdGroup, name: str, path: str, record: str) -> None:
    ours, theirs = call(pd, name, path), recorded(record)
    assert ours.status == theirs.status
    assert differences(shape(ours.json), shape(theirs.json)) == []
    assert ours.headers["content-type"] == theirs.headers["content-type"]


@pytest.mark.parametrize(
    ("name", "path", "record"),
    [
        ("router-0", "/health", "router_health"),
        ("router-0", "/liveness", "router_liveness"),
        ("prefill-0", "/health", "prefill0_health"),
        ("prefill-0", "/ready", "prefill0_ready"),
    ],
)
def test_probes_answer_as_recorded(pd: PdGroup, name: str, path: str, record: str) -> None:
    ours, theirs = call(pd, name, path), recorded(record)
    assert (ours.status, ours.body) == (theirs.status, theirs.body)


def test_workers_of_the_router_have_the_recorded_shape(pd: PdGroup) -> None:
    ours, theirs = call(pd, "router-0", "/workers").json, recorded("router_workers").json
    for role in ("prefill", "decode"):
        one, other = (
            next(item for item in found["workers"] if item["worker_type"] == role) for found in (ours, theirs)
        )
        assert differences(shape(one), shape(other)) == []
    assert ours["stats"] == theirs["stats"]
    assert ours["total"] == theirs["total"]


def test_the_bootstrap_server_answers_as_recorded(pd: PdGroup) -> None:
    port = pd.release.service.serving.ports.bootstrap
    path = "/route?prefill_dp_rank=-1&prefill_cp_rank=-1&target_tp_rank=-1&target_pp_rank=-1"
    ours, theirs = call(pd, "prefill-0", path, port=port), recorded("bootstrap_route")
    assert differences(shape(ours.json), shape(theirs.json)) == []
    assert {key: ours.json[key] for key in ("page_size", "kv_cache_dtype", "attn_tp_size")} == {
        key: theirs.json[key] for key in ("page_size", "kv_cache_dtype", "attn_tp_size")
    }
    health = call(pd, "prefill-0", "/health", port=port)
    assert (health.status, health.body) == (200, recorded("bootstrap_health").body)


def test_the_weights_checker_has_the_recorded_shape(pd: PdGroup) -> None:
    ours, theirs = (
        call(pd, "decode-0", "/weights_checker", {"action": "checksum"}).json,
        recorded("prefill0_weights_checker").json,
    )
    for found in (ours, theirs):
        checksums = found["ranks"][0].pop("checksums")
        assert all(re.fullmatch("[0-9a-f]{16}", checksum) for checksum in checksums.values())
        assert re.fullmatch("[0-9a-f]{64}", found["per_engine_checksum"])
    assert differences(shape(ours), shape(theirs)) == []


def test_a_chat_has_the_recorded_shape(pd: PdGroup) -> None:
    ours, theirs = call(pd, "router-0", CHAT, {**QUESTION, **NO_THINKING}), recorded("chat_no_think")
    assert differences(shape(ours.json), shape(theirs.json)) == []
    for found in (ours.json, theirs.json):
        assert found["choices"][0]["finish_reason"] == "length"
        assert found["choices"][0]["message"]["reasoning_content"] is None


def test_a_stream_has_the_recorded_events(pd: PdGroup) -> None:
    asked = {**QUESTION, "stream": True, "stream_options": {"include_usage": True}}
    ours, theirs = call(pd, "router-0", CHAT, asked), recorded("chat_stream")
    assert differences(shape(ours.events[0]), shape(theirs.events[0])) == []
    assert differences(shape(ours.events[-2]), shape(theirs.events[-2])) == []
    assert differences(shape(ours.events[-1]), shape(theirs.events[-1])) == []
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    assert ours.body.endswith("data: [DONE]\n\n")
    assert theirs.body.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(("name", "record"), [("decode-0", "chat_direct_decode"), ("prefill-0", "chat_direct_prefill")])
def test_a_chat_past_the_router_is_refused_as_recorded(pd: PdGroup, name: str, record: str) -> None:
    def without_id(reply: Reply) -> dict[str, Any]:
        return {**reply.json, "message": re.sub("'[0-9a-f]{32}'", "'…'", reply.json["message"])}

    ours, theirs = call(pd, name, CHAT, QUESTION), recorded(record)
    assert ours.status == theirs.status == 400
    assert without_id(ours) == without_id(theirs)


def test_in_a_stream_the_same_refusal_is_a_200(pd: PdGroup) -> None:
    ours, theirs = call(pd, "decode-0", CHAT, {**QUESTION, "stream": True}), recorded("chat_direct_decode_stream")
    assert ours.status == theirs.status == 200
    for found in (ours, theirs):
        (event,) = found.events
        event["error"]["message"] = event["error"]["message"].partition("req.rid")[0]
    assert ours.events[0]["error"].keys() == theirs.events[0]["error"].keys()
    assert {**ours.events[0]["error"], "message": ""} == {**theirs.events[0]["error"], "message": ""}


def test_a_prompt_that_is_too_long_is_refused_as_recorded(pd: PdGroup) -> None:
    asked = {**QUESTION, "messages": [{"role": "user", "content": "keel " * 5000}]}
    ours, theirs = call(pd, "router-0", CHAT, asked), recorded("chat_too_long")
    assert ours.status == theirs.status == 400
    assert ours.headers["x-smg-error-code"] == theirs.headers["x-smg-error-code"]
    numbers = re.compile(r"\d+")
    assert numbers.sub("n", ours.body) == numbers.sub("n", theirs.body)


def families(text: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "record"), [("prefill-0", "prefill0"), ("prefill-1", "prefill0"), ("decode-0", "decode0")]
)
def test_metrics_have_recorded_names_types_and_labels(pd: PdGroup, name: str, record: str) -> None:
    for number in range(2):
        call(pd, "router-0", CHAT, {**QUESTION, "messages": [{"role": "user", "content": f"question {number}"}]})
    ours = call(pd, name, "/metrics").body
    theirs = (RECORDED / f"metrics_after_{record}.txt").read_text(encoding="utf-8")
    assert families(ours).items() <= families(theirs).items()
    labels = {sample.name: frozenset(sample.labels) for sample in metrics.parse(theirs).samples}
    for sample in metrics.parse(ours).samples:
        assert labels[sample.name] == frozenset(sample.labels), sample.name


def test_the_adapter_reads_recorded_facts() -> None:
    info = answers.engine_info(recorded("prefill0_model_info").body, recorded("prefill0_server_info").body)
    assert isinstance(info, EngineInfo)
    assert (info.version, info.disaggregation_mode, info.page_size, info.tp_size) == ("0.5.23", "prefill", 1, 1)
    assert (info.transfer_backend, info.rdma_device, info.bootstrap_port) == ("mooncake", None, 41998)
    assert "mooncake_tcp" in info.launch_command
    routed = answers.routed_workers(recorded("router_workers").body)
    assert sorted(worker.role for worker in routed if worker.healthy) == ["decode", "prefill", "prefill"]
    assert {worker.bootstrap_port for worker in routed} == {41998, 41999, None}
    assert answers.bootstrap_route(recorded("bootstrap_route").body).kv_cache_dtype == "auto"
    assert answers.weights_checksum(recorded("prefill0_weights_checker").body).startswith("906d8c49")


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("chat_direct_decode", "Disaggregated request received without bootstrap room id"),
        ("chat_direct_decode_stream", "Disaggregated request received without bootstrap room id"),
        ("chat_too_long", "decode_bad_request: The input (12018 tokens) is longer"),
    ],
)
def test_the_adapter_sees_an_error_in_whatever_status_it_comes(record: str, says: str) -> None:
    found = recorded(record)
    refusal = answers.chat(found.status, found.body)
    assert isinstance(refusal, EngineError)
    assert says in refusal.message


def test_the_adapter_reads_a_recorded_chat() -> None:
    answer = answers.chat(200, recorded("chat").body)
    assert isinstance(answer, ChatResponse)
    assert (answer.model, answer.finish_reason, answer.text) == ("qwen3-32b", "length", "")
    assert (answer.prompt_tokens, answer.completion_tokens) == (32, 24)
    assert answer.reasoning.startswith(" fox")


def read(folder: Path, name: str) -> Counters:
    return counters(metrics.parse((folder / f"{name}.txt").read_text(encoding="utf-8")))


def test_recorded_counters_prove_one_request() -> None:
    moved = {
        name: read(RECORDED, f"metrics_after_{name}") - read(RECORDED, f"metrics_before_{name}")
        for name in ("prefill0", "prefill1", "decode0")
    }
    rank = ("", "0", "0")
    assert moved["prefill0"] == Counters(1, 32, 1, ranks={rank: KvTransfers(1, 32 * 512 / 2**20)})
    assert moved["prefill1"] == Counters(ranks={rank: KvTransfers()})
    assert moved["decode0"] == Counters(1, 32, 1, ranks={rank: KvTransfers()})


def test_each_rank_of_a_recorded_worker_counts_its_share_of_one_transfer() -> None:
    folder = RECORDED / "tp2"
    moved = read(folder, "metrics_after_prefill0") - read(folder, "metrics_before_prefill0")
    assert (moved.kv_transfers, moved.ranks_agree, moved.mib) == (1, True, 26 * 512 / 2**20)
    assert moved.ranks == {("", "0", rank): KvTransfers(1, 26 * 256 / 2**20) for rank in "01"}
    text = (folder / "metrics_after_prefill0.txt").read_text(encoding="utf-8")
    assert kv_bytes_per_token(metrics.parse(text)) == 512


def test_clients_that_hang_up_move_every_failure_counter_of_a_recorded_release_that_serves() -> None:
    folder = RECORDED / "hang-up"
    moved = {name: read(folder, f"after_{name}") - read(folder, f"before_{name}") for name in ("prefill0", "decode0")}
    assert moved["decode0"].failures == {
        "num_transfer_failed_reqs_total": 1,
        "num_bootstrap_failed_reqs_total": 4,
        "num_aborted_requests_total": 8,
    }
    assert moved["prefill0"].failures.keys() == moved["decode0"].failures.keys()
    assert (moved["decode0"].arrived, moved["decode0"].requests) == (8, 8)  # who hangs up is counted as ended


@pytest.mark.parametrize("name", ["prefill0", "prefill1", "decode0"])
def test_the_engine_itself_tells_the_bytes_of_one_token(name: str) -> None:
    text = (RECORDED / f"metrics_after_{name}.txt").read_text(encoding="utf-8")
    assert kv_bytes_per_token(metrics.parse(text)) == 512
