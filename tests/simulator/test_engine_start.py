"""Command lines and incomplete models in the embedded engine."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from steps.sglang.flags import worker_args
from tests.support.pd_group import MODEL_PATH, PdGroup, eventually, pd_group
from tests.support.samples import service
from workflows.simulator.core.engine.flags import UsageError, parse_router, parse_worker
from workflows.simulator.faults.engine_faults import EngineFaults


def ended(pd: PdGroup, name: str) -> tuple[int, str]:
    container = pd.containers[name]
    eventually(lambda: container.exited() is not None, f"{name} ends")
    exited = container.exited()
    assert exited
    return exited.code, container.log()


@pytest.mark.parametrize(
    "flags",
    [["--disaggregation-decode-tp", "2"], ["--disaggregation-prefill-pp", "1"], ["--no-such-flag"], ["--tp", "two"]],
)
def test_a_flag_that_this_version_does_not_take_ends_the_worker_with_2(tmp_path: Path, flags: list[str]) -> None:
    pd = pd_group(tmp_path)
    pd.start_worker("prefill-0", *flags)
    code, log = ended(pd, "prefill-0")
    assert code == 2
    assert "error: " in log
    assert flags[0] in log


def test_the_launcher_of_old_manifests_is_gone(tmp_path: Path) -> None:
    pd = pd_group(tmp_path)
    pd.start("router-0", "sglang.srt.disaggregation.mini_lb", ["--prefill", "http://x:1"])
    assert ended(pd, "router-0") == (1, "/usr/bin/python3: No module named sglang.srt.disaggregation.mini_lb\n")


def test_an_image_that_does_not_exist_cannot_be_pulled(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="does-not-exist"):
        pd_group(tmp_path).start_worker("prefill-0", image="registry.example.com/does-not-exist:1")


def test_flags_of_the_walkthrough_are_taken() -> None:
    words = [
        *worker_args(service(f"serving.modelPath={MODEL_PATH}", "serving.tensorParallel=1"), "decode"),
        "--mem-fraction-static",
        "0.88",
        "--reasoning-parser",
        "qwen3",
        "--sleep-on-idle",
    ]
    flags = parse_worker(words)
    assert (flags.mode, flags.tp_size, flags.rdma_device, flags.served_model_name) == (
        "decode",
        1,
        "erdma_0",
        MODEL_PATH,
    )
    tcp = parse_worker([*words, "--disaggregation-transfer-backend", "mooncake_tcp"])
    assert (tcp.backend, tcp.rdma_device) == ("mooncake", None)


def test_the_router_pairs_each_prefill_with_its_bootstrap_port() -> None:
    flags = parse_router(
        ["--pd-disaggregation", "--prefill", "http://a:1", "34000", "--prefill", "http://b:1", "--decode", "http://c:1"]
    )
    assert flags.prefill == (("http://a:1", 34000), ("http://b:1", None))
    with pytest.raises(UsageError, match="argument --policy: invalid choice: 'fastest'"):
        parse_router(["--pd-disaggregation", "--policy", "fastest"])


def truncate(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda model: (model / "config.json").unlink(), "does not appear to have a file named config.json"),
        (lambda model: (model / "tokenizer.json").unlink(), "Can't load tokenizer"),
        (lambda model: (model / "model-00002-of-00002.safetensors").unlink(), "FileNotFoundError: model-00002"),
        (
            lambda model: truncate(model / "model-00001-of-00002.safetensors"),
            "incomplete metadata, file not fully covered",
        ),
        (lambda model: (model / "model-00001-of-00002.safetensors").write_bytes(b"\xff" * 64), "HeaderTooLarge"),
        (lambda model: (model / "model-00001-of-00002.safetensors").write_bytes(b""), "HeaderTooSmall"),
        (lambda model: (model / "config.json").write_text("{"), "JSONDecodeError: config.json"),
    ],
)
def test_a_model_that_is_not_whole_ends_the_worker_with_1(
    tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    pd = pd_group(tmp_path)
    spoil(pd.model)
    pd.start_worker("prefill-0")
    code, log = ended(pd, "prefill-0")
    assert code == 1
    assert says in log


def test_a_shard_without_a_tensor_that_the_index_promises_is_refused(tmp_path: Path) -> None:
    pd = pd_group(tmp_path)
    index = pd.model / "model.safetensors.index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    content["weight_map"]["lm_head.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content), encoding="utf-8")
    pd.start_worker("decode-0")
    code, log = ended(pd, "decode-0")
    assert code == 1
    assert "lacks lm_head.weight" in log


def test_a_path_that_is_not_mounted_ends_the_worker_with_1(tmp_path: Path) -> None:
    pd = pd_group(tmp_path)
    pd.start(
        "prefill-0", "sglang.launch_server", worker_args(pd.release.service, "prefill"), mounts={"/elsewhere": pd.model}
    )
    assert ended(pd, "prefill-0")[0] == 1


def test_a_scripted_crash_names_itself_in_the_log(tmp_path: Path) -> None:
    pd = pd_group(tmp_path, EngineFaults(crash_on_start=frozenset({"decode-0"})))
    pd.start_worker("decode-0")
    code, log = ended(pd, "decode-0")
    assert code == 1
    assert "RuntimeError" in log


def test_a_stopped_worker_completes_and_frees_its_ports(tmp_path: Path) -> None:
    pd = pd_group(tmp_path)
    worker = pd.start_worker("prefill-0")
    eventually(lambda: worker.address(8000) is not None, "the worker listens")
    worker.stop()
    exited = worker.exited()
    assert exited is not None
    assert (exited.code, exited.reason) == (0, "Completed")
    assert worker.address(8000) is None
