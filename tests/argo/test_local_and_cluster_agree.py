"""What runs on a laptop is what runs on the cluster: the same tasks, in the same order, called with the same words."""

import json
import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from steps.catalogue import CATALOGUE
from steps.check_release import CURRENT, STALE
from steps.reconcile.outputs import file_name
from steps.report.argo_nodes import MARKER
from steps.report.run import EXIT_TASKS, REPORT_RUN, ROLL_BACK
from tests.support.rendered import VARIANTS, VERSIONS, dag_tasks, exit_steps, sample, templates, workflow_spec
from tests.support.samples import DIGEST, SERVICES
from workflows import pipeline, rehearsal
from workflows.argo.pods import PLACES

PROVED = "0a1b2c3d"
IN_FORCE = "image=registry.example.com/llm/x:0.5.24~demo-c1"
FACTS = {"run-name": "run", "run-status": "Succeeded"}


class Recorder:
    """A process that succeeds at once and leaves what its pod would leave."""

    started: ClassVar[list[list[str]]] = []
    state: ClassVar[str] = STALE  # what check-release says
    counter: ClassVar[str] = "7"  # of the release record, as resolve-model finds it
    killed_in: ClassVar[str] = ""  # the step whose start is the end of the run

    def __init__(self, words: list[str], **_: Any) -> None:
        if self.killed_in in words:
            raise ZeroDivisionError
        self.started.append(words)
        outputs = Path(next(word for word in words if word.startswith("--outputs=")).partition("=")[2])
        outputs.mkdir(parents=True, exist_ok=True)
        (outputs / "recap.json").write_text('{"ok": 1, "changed": 0, "failed": 0, "reason": "", "seconds": 0}')
        (outputs / "model-digest").write_text(DIGEST)
        (outputs / "proved-release").write_text(PROVED)
        (outputs / "record-counter").write_text(self.counter)
        (outputs / "overrides").write_text(IN_FORCE)
        (outputs / "state").write_text(self.state)

    def wait(self) -> int:
        return 0


def on_a_laptop(folder: Path, variant: str, monkeypatch: pytest.MonkeyPatch, state: str = STALE) -> list[list[str]]:
    """The words of every process of a local run, in order, with its folders called as those of a pod."""
    Recorder.started.clear()
    monkeypatch.setattr(Recorder, "state", state)
    monkeypatch.setattr("workflows.rehearsal.subprocess.Popen", Recorder)
    options = rehearsal.Options(SERVICES / "qwen3-32b.yaml", ("image=",), folder)
    run = rehearsal._Run(options, sample(variant), folder, "run", {}, Console(quiet=True))
    rehearsal._run_tasks(run)
    # In a pod, the current folder is empty, and needs no -P.
    return [[_as_in_a_pod(word, folder) for word in words if word != "-P"] for words in Recorder.started]


def _as_in_a_pod(word: str, folder: Path) -> str:
    if word == sys.executable:
        return "python"
    word = re.sub(rf"^--outputs={folder}/outputs/.*", f"--outputs={PLACES.outputs}", word)
    word = word.replace(f"--scratch={folder}/scratch", f"--scratch={PLACES.scratch}")
    return word.replace(str(SERVICES / "qwen3-32b.yaml"), PLACES.document)


def on_the_cluster(argo: str, variant: str, state: str = STALE) -> list[list[str]]:
    """The words of every pod of a run, in the order of the graph, filled in as Argo does."""
    spec = workflow_spec(argo, variant)
    pods = templates(spec)
    # On a laptop, scratch is a folder.
    of_both = set(pods) - {task.step for task in pipeline.tasks(sample(variant)) if task.only_in_pods}
    tasks = [task for task in _ordered(dag_tasks(spec)) if _runs(task, state) and task["template"] in of_both]
    line = [_words(pods[task["template"]], task, item) for task in tasks for item in _items(task)]
    at_exit = [step for step in exit_steps(spec) if _runs(step, state)]
    return [*line, *(_words(pods[step["template"]], {}, "") for step in at_exit)]


def _runs(task: dict[str, Any], state: str) -> bool:
    """`when` as Argo reads it: two bare words, and whether they are the same.

    https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/steps.go (shouldExecute)
    """
    if "when" not in task:
        return True
    filled = task["when"].replace("{{tasks.check-release.outputs.parameters.state}}", state)
    one, how, other = filled.replace("{{workflow.status}}", FACTS["run-status"]).split(" ")
    return bool({"==": one == other, "!=": one != other}[how])


def _items(task: dict[str, Any]) -> list[str]:
    return [str(item) for item in json.loads(task.get("withParam", '[""]'))]


def _ordered(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each after those that it depends on; the order in the file proves nothing."""
    done: list[dict[str, Any]] = []
    while len(done) < len(tasks):
        names = {task["name"] for task in done}
        ready = [task for task in tasks if task["name"] not in names and set(_needed(task)) <= names]
        # A line: there is always one that may begin, beside the node that only says that nothing changed.
        assert len([task for task in ready if task["name"] != MARKER]) <= 1
        done += ready
    return done


def _needed(task: dict[str, Any]) -> list[str]:
    return [name.removesuffix(".Succeeded") for name in task.get("depends", "").split(" && ") if name]


def _words(template: dict[str, Any], task: dict[str, Any], item: str) -> list[str]:
    said = {
        ("resolve-model", "model_digest"): DIGEST,
        ("resolve-model", "record_counter"): Recorder.counter,
        ("resolve-model", "overrides"): IN_FORCE,
        ("smoke-test", "proved_release"): PROVED,
    }
    tags = {
        f"{{{{tasks.{task}.outputs.parameters.{file_name(field)}}}}}": value for (task, field), value in said.items()
    }
    values = {"{{item}}": item, **tags}
    parameters = (task.get("arguments") or {}).get("parameters") or ()
    filled = {
        f"{{{{inputs.parameters.{found['name']}}}}}": values.get(found["value"], found["value"]) for found in parameters
    }
    words = [*template["container"]["command"], *template["container"]["args"]]
    for tag, value in {**filled, **_about_run()}.items():
        words = [word.replace(tag, value) for word in words]
    words = [word for word in words if not word.startswith("--parameter=")]
    assert not any("{{" in word for word in words)
    return words


def _about_run() -> dict[str, str]:
    names = {"workflow.name": "run-name", "workflow.status": "run-status"}
    return {f"{{{{{tag}}}}}": FACTS[fact] for tag, fact in names.items()}


@pytest.mark.parametrize("argo", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("state", [STALE, CURRENT])
def test_a_local_run_is_the_rendered_workflow(
    argo: str, variant: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [
        [word for word in words if not word.startswith("--set=")]
        for words in on_a_laptop(tmp_path, variant, monkeypatch, state)
    ]
    assert here == on_the_cluster(argo, variant, state)
    steps = [words[3] for words in here]
    assert steps[-1] == REPORT_RUN
    assert (steps == ["resolve-model", "check-release", REPORT_RUN]) == (state == CURRENT)


def test_what_an_earlier_local_run_proved_is_gone_before_the_first_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed before its smoke test would else move the traffic on the word of the run before."""
    stale = tmp_path / "outputs" / "smoke-test" / "pairs"
    stale.parent.mkdir(parents=True)
    stale.write_text("prefill-0 -> decode-0")
    on_a_laptop(tmp_path, "reference", monkeypatch)
    assert (stale.parent / "proved-release").exists()
    assert not stale.exists()


@pytest.mark.parametrize("argo", VERSIONS)
def test_parameters_reach_every_pod_of_the_line_and_edits_every_process(
    argo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edits of a laptop are no parameters, so no later run inherits them."""
    here = on_a_laptop(tmp_path, "reference", monkeypatch)
    assert all("--set=image=" in words for words in here)
    assert not any(word.startswith("--parameter=") for words in here for word in words)
    named = {
        name: [word.partition("={{")[0] for word in pod["container"]["args"] if word.startswith("--parameter=")]
        for name, pod in templates(workflow_spec(argo)).items()
    }
    at_exit = {named.pop(name) == [] for name in EXIT_TASKS}  # a wrong parameter must not keep these from starting
    assert at_exit == {True}
    assert all(len(found) == 5 and found == named["resolve-model"] for found in named.values())


@pytest.mark.parametrize("argo", VERSIONS)
def test_every_task_behind_the_first_reads_the_document_under_the_overrides_that_the_first_found(
    argo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an output, which a Retry keeps."""
    for started in (on_the_cluster(argo, "reference"), on_a_laptop(tmp_path, "reference", monkeypatch)):
        line = [words for words in started if words[3] not in EXIT_TASKS]
        assert not any("--overrides=" in word for word in line[0])
        assert all(f"--overrides={IN_FORCE}" in words for words in line[1:])


def counters(started: list[list[str]]) -> dict[str, str]:
    """--record-counter of each step that is told one."""
    found = {words[3]: word.partition("=")[2] for words in started for word in words if "--record-counter=" in word}
    assert set(found) >= {step for step, spec in CATALOGUE.items() if spec.writes} - {ROLL_BACK}
    return found


@pytest.mark.parametrize("argo", VERSIONS)
def test_every_step_that_changes_the_service_is_told_the_counter_that_the_first_task_read(
    argo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(counters(on_the_cluster(argo, "reference")).values()) == {"7"}
    assert set(counters(on_a_laptop(tmp_path, "reference", monkeypatch)).values()) == {"7"}


def test_a_local_run_that_was_killed_goes_on_with_the_counter_that_it_began_with_and_the_next_one_reads_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Argo, where Retry keeps the outputs of tasks that succeeded."""
    with monkeypatch.context() as killed:
        killed.setattr(Recorder, "killed_in", "roll-out-service")
        with pytest.raises(ZeroDivisionError):
            on_a_laptop(tmp_path, "reference", killed)
    monkeypatch.setattr(Recorder, "counter", "8")  # another run promoted a release meanwhile
    assert set(counters(on_a_laptop(tmp_path, "reference", monkeypatch)).values()) == {"7"}
    assert set(counters(on_a_laptop(tmp_path, "reference", monkeypatch)).values()) == {"8"}
