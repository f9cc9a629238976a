"""The examples for CI are what they say: valid, confined, and they end as the run ends."""

import copy
import gzip
import json
import os
import re
import shutil
import subprocess  # noqa: TID251  # the examples are scripts
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from steps.document.overrides import OVERRIDES
from tests.support.argo_cluster import SERVICE, TOKEN, ArgoCluster, Attempt, argo_cluster, nodes
from tests.support.samples import RECORDED, ROOT
from workflows.runs.submission import RUN_ID_PATTERN

CI = ROOT / "manifests" / "ci"
SCHEMAS = RECORDED / "schemas" / "ci"
SYSTEMS = {"github-actions": "github-workflow", "gitlab-ci": "gitlab-ci"}
EXAMPLES = sorted(path.name for path in CI.iterdir() if path.suffix in (".yaml", ".yml"))
TASKS: Mapping[str, tuple[Attempt, ...]] = {
    "resolve-model": (Attempt(),),
    "promote-release": (Attempt(),),
    "report-run": (Attempt(),),
}
BROKEN = {
    "resolve-model": (Attempt(),),
    "preflight": (Attempt("Failed", "no answer", ""), Attempt("Failed", "GPU01 Free GPUs: found 0", "")),
    "report-run": (Attempt(),),
}

needs_tools = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq")


class _Yaml(yaml.SafeLoader):
    """YAML 1.2 as CI systems read it: `on` is a text."""


_Yaml.yaml_implicit_resolvers = copy.deepcopy(yaml.SafeLoader.yaml_implicit_resolvers)
for letter in "oOyYnN":
    _Yaml.yaml_implicit_resolvers[letter] = [
        entry for entry in _Yaml.yaml_implicit_resolvers.get(letter, []) if entry[0] != "tag:yaml.org,2002:bool"
    ]


def example(name: str) -> dict[str, Any]:
    return dict(yaml.load((CI / name).read_text(encoding="utf-8"), _Yaml))  # a safe loader that knows fewer


def schema(name: str) -> Any:
    system = next(schema for prefix, schema in SYSTEMS.items() if name.startswith(prefix))
    return json.loads(gzip.decompress((SCHEMAS / f"{system}.json.gz").read_bytes()))


def test_there_are_two_ways_for_each_system() -> None:
    assert EXAMPLES == [
        "github-actions-event.yaml",
        "github-actions-submit.yaml",
        "gitlab-ci-event.yml",
        "gitlab-ci-submit.yml",
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_valid(name: str) -> None:
    jsonschema.validate(example(name), schema(name))


def _misspelled_github(found: dict[str, Any]) -> None:
    found["jobs"]["deploy"]["timeout-minute"] = 5


def _misspelled_gitlab(found: dict[str, Any]) -> None:
    next(job for job in found.values())["artefacts"] = {}


@pytest.mark.parametrize(
    ("name", "break_it"),
    [("github-actions-submit.yaml", _misspelled_github), ("gitlab-ci-submit.yml", _misspelled_gitlab)],
)
def test_a_misspelled_key_would_be_found(name: str, break_it: Callable[[dict[str, Any]], None]) -> None:
    found = example(name)
    break_it(found)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, schema(name))


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.startswith("github")])
def test_a_github_job_may_only_read_and_pastes_nothing_into_a_script(name: str) -> None:
    found = example(name)
    assert found["permissions"] == {}
    for job in found["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        assert job["timeout-minutes"]
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step.get("uses", "actions/x@" + "0" * 40))


def _scripts() -> dict[str, str]:
    """What each example runs, without what prepares the machine."""
    scripts = {}
    for name in EXAMPLES:
        found = example(name)
        if name.startswith("github"):
            (job,) = found["jobs"].values()
            lines = [step["run"] for step in job["steps"] if "run" in step and 'recap.md" >>' not in step["run"]]
        else:
            (job,) = found.values()
            lines = job["script"]
        scripts[name] = "\n".join(line for line in lines if "pip install" not in line)
    return scripts


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ArgoCluster]:
    with argo_cluster(tmp_path) as started:
        started.apply_template()
        yield started


def _run(world: ArgoCluster, folder: Path, script: str, **more: str) -> tuple[int, str]:
    """A checkout in which the script of the event lies where the examples say."""
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in ("steps", "workflows", "manifests"):
        (checkout / name).symlink_to(ROOT / name)
    (checkout / "ci").symlink_to(CI)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # noqa: TID251  # where python, curl and jq are
        "ARGO_SERVER": world.argo_server,
        "ARGO_TOKEN": TOKEN,
        "NAMESPACE": "slipway",
        "SERVICE": SERVICE,
        "IMAGE": "",
        "MODEL_REVISION": "",
        "PAUSE": "0.05",
        "GITHUB_RUN_ID": "123",
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "RUNNER_TEMP": str(folder),
        "CI_JOB_ID": "456",
        "CI_PIPELINE_ID": "45",
        **more,
    }
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    done = subprocess.run(
        words, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def _when_started(world: ArgoCluster, phase: str, tasks: Mapping[str, tuple[Attempt, ...]]) -> None:
    """The controller ends the run as soon as there is one."""
    bell = world.store.subscribe()

    def act() -> None:
        while not world.runs():
            bell.wait(30)
        name = world.only_run()["metadata"]["name"]
        world.tell(phase="Running", progress="1/2", nodes=nodes(name, {}))
        world.tell(phase=phase, progress="2/2", nodes=nodes(name, tasks, root=phase))

    threading.Thread(target=act, daemon=True).start()


@needs_tools
@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize(("phase", "tasks", "ends_well"), [("Succeeded", TASKS, True), ("Failed", BROKEN, False)])
def test_a_job_ends_as_its_run_and_prints_every_task(
    world: ArgoCluster, tmp_path: Path, name: str, phase: str, tasks: Mapping[str, tuple[Attempt, ...]], ends_well: bool
) -> None:
    _when_started(world, phase, tasks)
    code, said = _run(world, tmp_path, _scripts()[name])
    assert (code == 0) == ends_well, said
    for task in tasks:
        assert task in said
    assert ("GPU01 Free GPUs: found 0" in said) == (not ends_well)
    assert "retryStrategy.expression" not in said
    run = world.only_run()["metadata"]
    assert run["name"] == f"{SERVICE}-{'123-1' if name.startswith('github') else '456'}"
    assert run["labels"]["slipway/trigger"] == "ci"
    if name.startswith("github-actions-event"):
        assert "report-run: Succeeded" in (tmp_path / "summary").read_text()


@needs_tools
def test_what_ci_sends_reaches_the_run(world: ArgoCluster, tmp_path: Path) -> None:
    _when_started(world, "Succeeded", TASKS)
    script = _scripts()["gitlab-ci-event.yml"]
    code, said = _run(
        world, tmp_path, script, IMAGE="registry.example.com/a:1", MODEL_REVISION="v2", REASON="merge of 7"
    )
    assert code == 0, said
    passed = {found["name"]: found["value"] for found in world.only_run()["spec"]["arguments"]["parameters"]}
    assert passed == {
        "model-revision": "v2",
        "image": "registry.example.com/a:1",
        "prefill-replicas": "",
        "strategy": "",
        "skip-unchanged": "",
        "reason": "merge of 7",
    }


@needs_tools
@pytest.mark.parametrize("image", ['a", "service": "x', "{{workflow.name}}", "a b", "$(id)", "a\nb"])
def test_an_image_that_is_none_is_refused_before_anything_is_sent(
    world: ArgoCluster, tmp_path: Path, image: str
) -> None:
    code, said = _run(world, tmp_path, _scripts()["gitlab-ci-event.yml"], IMAGE=image)
    assert code == 10
    outside = re.sub(r"[A-Za-z0-9._/:@-]", "", image)
    assert f"IMAGE: found {json.dumps(image)}, expected " in said
    assert f"not allowed: {json.dumps(outside)}" in said
    assert world.requests == []


@needs_tools
@pytest.mark.parametrize("run_id", ["An ID", "-1", "a" * 21, "1\n2"])
def test_an_id_that_no_run_can_bear_is_refused_before_anything_is_sent(
    world: ArgoCluster, tmp_path: Path, run_id: str
) -> None:
    code, said = _run(world, tmp_path, "sh ci/deploy-by-event.sh", RUN_ID=run_id)
    assert code == 10
    assert "RUN_ID: found" in said
    assert world.requests == []


@needs_tools
def test_the_shapes_of_the_script_are_those_of_the_event_binding() -> None:
    script = (CI / "deploy-by-event.sh").read_text(encoding="utf-8")
    patterns = {override.parameter: override.pattern for override in OVERRIDES} | {"run-id": RUN_ID_PATTERN}
    for variable, key in (("RUN_ID", "run-id"), ("IMAGE", "image"), ("MODEL_REVISION", "model-revision")):
        found = re.search(rf"^check {variable} .* '(.*)' '(.*)'$", script, re.MULTILINE)
        assert found
        assert f"^({found[1]})?$" == patterns[key]


@needs_tools
@pytest.mark.parametrize("reason", ["fix: router (hotfix), see #12!", "caf\u00e9", "{{=1+1}}", "x" * 200])
def test_a_word_in_a_reason_never_stops_a_deployment(world: ArgoCluster, tmp_path: Path, reason: str) -> None:
    _when_started(world, "Succeeded", TASKS)
    code, said = _run(world, tmp_path, _scripts()["gitlab-ci-event.yml"], REASON=reason)
    assert code == 0, said


@needs_tools
def test_a_run_that_was_terminated_in_the_queue_is_no_success(world: ArgoCluster, tmp_path: Path) -> None:
    """Argo 3.5.15 gives it the phase Succeeded."""
    _when_started(world, "Succeeded", {"resolve-model": (Attempt("Failed", "workflow shutdown with strategy", ""),)})
    code, said = _run(world, tmp_path, _scripts()["gitlab-ci-event.yml"])
    assert code == 11
    assert "deployed nothing" in said


@needs_tools
def test_a_green_node_that_says_nothing_changed_is_a_success(world: ArgoCluster, tmp_path: Path) -> None:
    _when_started(world, "Succeeded", {"nothing-changed": (Attempt(),)})
    assert _run(world, tmp_path, _scripts()["gitlab-ci-event.yml"])[0] == 0


@needs_tools
def test_bad_answers_in_between_do_not_end_the_job(world: ArgoCluster, tmp_path: Path) -> None:
    world.bad_answers = [(503, b"busy"), (200, b"<html>"), (502, b"")]
    _when_started(world, "Succeeded", TASKS)
    code, said = _run(world, tmp_path, _scripts()["gitlab-ci-event.yml"])
    assert code == 0, said


@needs_tools
def test_a_server_that_stops_answering_ends_the_job_with_the_code_for_no_answer(
    world: ArgoCluster, tmp_path: Path
) -> None:
    world.bad_answers = [(503, b"busy")] * 100
    code, said = _run(world, tmp_path, _scripts()["gitlab-ci-event.yml"], PAUSE="0.01")
    assert code == 75
    assert "no answer to 12 polls of run qwen3-32b-456" in said


@needs_tools
def test_the_address_may_be_written_as_argo_itself_writes_it() -> None:
    script = (CI / "deploy-by-event.sh").read_text(encoding="utf-8")
    (line,) = [line for line in script.splitlines() if line.startswith("case $ARGO_SERVER")]
    for written in ("https://argo.example:2746", "https://argo.example:2746/", "argo.example:2746"):
        done = subprocess.run(
            ["sh", "-c", f'{line}\necho "$server"'],
            env={"ARGO_SERVER": written},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "https://argo.example:2746"


@needs_tools
def test_a_job_that_is_tried_again_finds_its_run(world: ArgoCluster, tmp_path: Path) -> None:
    _when_started(world, "Succeeded", TASKS)
    script = _scripts()["gitlab-ci-event.yml"]
    code, said = _run(world, tmp_path, f"{script}\n{script}")
    assert code == 0, said
    assert "already exists" in said
    assert len(world.runs()) == 1


@needs_tools
def test_a_wrong_token_fails_the_job_and_is_not_printed(world: ArgoCluster, tmp_path: Path) -> None:
    code, said = _run(world, tmp_path, _scripts()["gitlab-ci-event.yml"], ARGO_TOKEN="dummy-wrong-token")
    assert code == 11
    assert "token not valid" in said
    assert "dummy-wrong-token" not in said
