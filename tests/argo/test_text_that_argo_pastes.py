"""What hub, bucket, cluster, registry or engine says, Argo passes on as it left the step, and runs none of it."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps import roll_out_service, smoke_test, wiring
from steps.__main__ import main
from steps.document.overrides import OverridesText
from steps.kinds import Manifest
from steps.model import ModelDigest
from steps.objects import volume
from steps.objects.services import release_service
from steps.ports.sglang import EngineError
from steps.reconcile.converge import Past
from steps.reconcile.outputs import Word
from steps.reconcile.plain_text import plain_text
from steps.reconcile.plan import Plan
from tests.plan.test_objects_pod_failures import crash, pod
from tests.plan.test_smoke_test import ANSWER, facts, request
from tests.support.argo_substitution import LONGEST, VERSIONS, SubstitutionError, Version, passes
from tests.support.fakes import HoldingOne
from tests.support.group_objects import OPERATOR, as_wanted, group_of, live, ready_group
from tests.support.hubs import MODEL, SHARD
from tests.support.rendered import VARIANTS, objects
from tests.support.rendered import VERSIONS as RENDERED
from tests.support.samples import DIGEST, SERVICES, release, service
from workflows import pipeline
from workflows.argo.templates import consumed_outputs
from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.core.hub.sample_model import write_model
from workflows.simulator.http.api_server import ApiServer
from workflows.simulator.http.hub import Hub
from workflows.simulator.http.server import LoopbackServer
from workflows.simulator.http.server import text as plain

DOCUMENT = str(SERVICES / "qwen3-32b.yaml")
VALUES = {
    "workflow.name": "demo-k1",
    "workflow.parameters.service": "kind: ModelService\n",
    "workflow.parameters.x": "{{",
}
RELEASE = release()

HOSTILE = [
    "{{=1+1}} and {{=workflow.name}}",
    "{{=sprig.repeat(3000000,workflow.name)}}",
    "{{=1+}}",
    "{{workflow.parameters.service}}",
    "{{{{=1}}}}",
    "{{workflow.{{workflow.name}}}}",
    "an end that is missing: {{",
    "{\a{=1+1}\a} \x1b[2J a tag \U000e0041",
]

Run = Callable[..., int]


@dataclass(frozen=True)
class Planned:
    """A step with its real plan, before a world that is given."""

    decide: Callable[[], Plan]
    made: Callable[[], Any] = lambda: None
    deadline: float = 0.0

    def observe(self, _past: Past[None]) -> None:
        return None

    def plan(self, _facts: None) -> Plan:
        return self.decide()

    def apply(self, *_: Any) -> None:
        raise AssertionError("nothing is changed here")

    def outputs(self, _facts: None) -> Any:
        return self.made()


@contextmanager
def answering(status: int, content_type: str, body: str) -> Iterator[str]:
    """The address of a server that says this to everything."""
    server = LoopbackServer(lambda _request: plain(body, status, content_type))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Where a step leaves its message and its outputs."""
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "message").touch()
    return tmp_path / "left"


@pytest.fixture
def run(left: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("steps.__main__.set_up", lambda **_: None)  # it would take the log of the test runner away
    monkeypatch.setattr("steps.__main__.signal.signal", lambda *_: None)  # handlers would outlive the step
    ours = {"SLIPWAY_TERMINATION_LOG": str(left / "message"), "OSS_ACCESS_KEY_ID": "a", "OSS_ACCESS_KEY_SECRET": "b"}

    def run(step: str, planned: Planned | None = None, model: str = "", **environment: str) -> int:
        for name, value in {**ours, **environment}.items():
            monkeypatch.setenv(name, value)
        if "KUBECONFIG" not in environment:
            monkeypatch.setattr(wiring, "_cluster", lambda: HoldingOne(None))  # there is no release record
        if planned:
            monkeypatch.setitem(wiring.STEPS, step, lambda _invocation: planned)
        sets = ("--set", f"model.id={model}")
        pinned = () if step == "resolve-model" else ("--model-digest", DIGEST)
        return main([step, "--document", DOCUMENT, *sets, *pinned, "--outputs", str(left)])

    return run


@contextmanager
def empty_cluster(folder: Path) -> Iterator[str]:
    """The kubeconfig of a cluster in which nothing was promoted yet."""
    api = ApiServer(ClusterStore())
    api.write_kubeconfig(folder / "kubeconfig")
    api.start()
    try:
        yield str(folder / "kubeconfig")
    finally:
        api.stop()


@contextmanager
def cluster_saying(folder: Path, code: int, message: str) -> Iterator[str]:
    """The kubeconfig of a cluster whose API says this to everything."""
    body = json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message})
    with answering(code, "application/json", body) as url:
        cluster = {"name": "a", "cluster": {"server": url}}
        context = {"name": "a", "context": {"cluster": "a", "user": "a"}}
        content = {"clusters": [cluster], "contexts": [context], "users": [{"name": "a", "user": {}}]}
        (folder / "kubeconfig").write_text(json.dumps({**content, "current-context": "a"}))
        yield str(folder / "kubeconfig")


def hub_message(run: Run, text: str, folder: Path) -> int:
    body = json.dumps({"Code": 10010205001, "Success": False, "Message": text, "Data": None})
    with answering(404, "application/json", body) as url, empty_cluster(folder) as kubeconfig:
        return run("resolve-model", SLIPWAY_MODELSCOPE_ENDPOINT=url, KUBECONFIG=kubeconfig)


def hub_file_name(run: Run, text: str, folder: Path) -> int:
    """A weight file of three, of which the others are absent."""
    write_model(folder / MODEL, 1_000_000, 3)
    (folder / MODEL / SHARD).rename(folder / MODEL / f"{text}-00001-of-00003.safetensors")
    for other in (folder / MODEL).glob("model-*"):
        other.unlink()
    hub = Hub(folder)
    hub.start()
    try:
        with empty_cluster(folder) as kubeconfig:
            return run("resolve-model", model=MODEL, SLIPWAY_MODELSCOPE_ENDPOINT=hub.url, KUBECONFIG=kubeconfig)
    finally:
        hub.stop()


def bucket_message(run: Run, text: str, _folder: Path) -> int:
    said = escape("".join(character for character in text if character.isprintable()))  # XML has no control characters
    body = f"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>{said}</Message></Error>"
    with answering(403, "application/xml", body) as url:
        return run("verify-model", SLIPWAY_OSS_ENDPOINT=url)


def api_message(run: Run, text: str, folder: Path) -> int:
    with cluster_saying(folder, 403, text) as kubeconfig:
        return run("promote-release", KUBECONFIG=kubeconfig)


def pod_message(run: Run, found: Manifest) -> int:
    group = group_of(RELEASE)
    looks = tuple(as_wanted(wanted) for wanted in (group, release_service(RELEASE)))
    claim = live(volume.claim(RELEASE, "1Ti"), phase="Bound")
    world = roll_out_service.Facts(
        operator=OPERATOR, claim=claim, looks=looks, group=replace(ready_group(group), pods=(found,))
    )
    return run("roll-out-service", Planned(lambda: roll_out_service.plan(RELEASE, world)))


def kubelet_message(run: Run, text: str, _folder: Path) -> int:
    return pod_message(run, pod({"reason": "CreateContainerConfigError", "message": text}))


def registry_message(run: Run, text: str, _folder: Path) -> int:
    return pod_message(run, pod({"reason": "ErrImagePull", "message": f"denied: {text}"}))


def engine_log(run: Run, text: str, _folder: Path) -> int:
    return pod_message(run, crash(1, 3, message=f"Traceback\n{text}"))


def engine_refusal(run: Run, text: str, _folder: Path) -> int:
    world = facts(replace(request("prefill-0"), response=EngineError(500, text)))
    return run("smoke-test", Planned(lambda: smoke_test.plan(RELEASE, world)))


def engine_answer(run: Run, text: str, _folder: Path) -> int:
    world = facts(replace(request("prefill-0"), response=replace(ANSWER, text=text)), request("prefill-1"))
    step: Any = smoke_test.SmokeTest(RELEASE, cluster=None, inference=None)  # type: ignore[arg-type]  # asked for outputs
    return run("smoke-test", Planned(Plan, lambda: step.outputs(world)))


DOORS = [
    hub_message,
    hub_file_name,
    bucket_message,
    api_message,
    kubelet_message,
    registry_message,
    engine_log,
    engine_refusal,
    engine_answer,
]


def told(folder: Path) -> dict[str, str]:
    """All that Argo reads of a step; and `workflow.failures`, which is JSON inside a JSON string."""
    files = (path for path in folder.iterdir() if path.name != "recap.json")
    return with_failures({path.name: path.read_text(encoding="utf-8") for path in files})


def with_failures(values: dict[str, str]) -> dict[str, str]:
    return values | {"failures": json.dumps(json.dumps([{"message": values["message"]}], ensure_ascii=False))}


def pasted(values: dict[str, str], version: Version) -> dict[str, str]:
    """These values as arguments of a later pod."""
    known = {f"told.{name}": value for name, value in values.items()} | VALUES
    found = passes({name: f"--a={{{{told.{name}}}}}" for name in values}, known, version)
    return {name: value.removeprefix("--a=") for name, value in found.items()}


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("door", DOORS)
def test_what_a_step_was_told_leaves_it_as_text(
    door: Callable[[Run, str, Path], int], text: str, run: Run, left: Path, tmp_path: Path
) -> None:
    door(run, text, tmp_path)
    found = told(left)
    core = next(word for word in ("1", "workflow", "missing") if word in text)
    assert any(core in value and "{" in value for name, value in found.items() if name != "failures")  # it came so far
    for version in VERSIONS:
        assert pasted(found, version) == found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("{{=1+1}} and {{=workflow.name}}", "2 and demo-k1"),
        ("{{=sprig.repeat(3000000,workflow.name)}}", ("demo-k1" * LONGEST)[:LONGEST]),
        ("{{workflow.parameters.service}}", "kind: ModelService\n"),
        ("{{workflow.parameters.x}}=2}}", "2"),
        ("{{workflow.{{workflow.name}}}}", "{{workflow.demo-k1}}"),
    ],
)
def test_the_same_text_as_it_came_is_run(text: str, becomes: str, version: Version) -> None:
    assert pasted({"recap": text}, version) == {"recap": becomes}


@pytest.mark.parametrize(("text", "versions"), [("{{=1+}}", ["4.1"]), ("\x1b[2J", VERSIONS), ("\U000e0041", VERSIONS)])
def test_the_same_text_as_it_came_ends_the_run(text: str, versions: tuple[Version, ...]) -> None:
    for version in versions:
        with pytest.raises(SubstitutionError):
            pasted({"recap": text}, version)


@given(st.text() | st.lists(st.sampled_from([*HOSTILE, "{", "}", "{{", "}}", "=", "\\", '"', "\x1b"])).map("".join))
def test_no_pass_of_argo_changes_any_plain_text(text: str) -> None:
    values = with_failures({"message": plain_text(text), "recap": plain_text(text)})
    for version in VERSIONS:
        assert pasted(values, version) == values


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("text", [*HOSTILE, "a flag \U0001f3f4\U000e0067\U000e007f", 'fix "x" <b>'])
def test_a_title_says_the_reason_as_it_was_given(text: str, version: Version) -> None:
    """Argo fills in the metadata of a run in one pass. v3.5.15 workflow/controller/operator.go:593-614, 4089-4095"""
    (title,) = (value for value in texts(objects(version)) if value.startswith("qwen3-32b: "))
    assert passes({"title": title}, VALUES | {"workflow.parameters.reason": text}, version, 1) == {
        "title": f"qwen3-32b: {text}"
    }


def test_what_a_later_task_consumes_is_a_word_or_a_number() -> None:
    for mode in ("staged", "streamed"):
        for source in consumed_outputs(pipeline.tasks(service(f"transfer.mode={mode}"))):
            step = next(task.step for task in pipeline.tasks(service()) if task.name == source.task)
            (field,) = (field for field in pipeline.outputs(step) if field.name == source.field)
            assert field.type in (Word, OverridesText, ModelDigest, int), f"{step} {field.name}"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("line", RENDERED)
def test_no_value_meets_a_brace_where_it_is_pasted(line: str, variant: str) -> None:
    """A value may begin or end with one brace, and two would be half a tag. An expression puts words around its own."""
    for text in texts(objects(line, variant)):
        assert not re.search(r"[{}]\{\{|\}\}[{}]", re.sub(r"\{\{=.*?, ' *\}\}", "", text)), text


def texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, (dict, list)):
        for item in content.values() if isinstance(content, dict) else content:
            yield from texts(item)
