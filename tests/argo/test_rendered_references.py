"""Every name inside the rendered objects leads somewhere; and the lint that says so can say no."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.reference_lint import lint
from tests.support.rendered import VARIANTS, VERSIONS, dag_tasks, exit_steps, objects, templates

Change = Callable[[dict[str, dict[str, Any]]], object]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("line", VERSIONS)
def test_every_reference_resolves(line: str, variant: str) -> None:
    assert lint(objects(line, variant)) == []


def _spec(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = found["WorkflowTemplate"]["spec"]
    return spec


def _task(found: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    return next(task for task in dag_tasks(_spec(found)) if task["name"] == name)


MUTANTS: dict[str, tuple[str, Change]] = {
    "entrypoint": ("entrypoint", lambda found: _spec(found).update(entrypoint="main")),
    "exit handler": ("onExit", lambda found: _spec(found).update(onExit="finish")),
    "unused template": ("never used", lambda found: _task(found, "upload-model").update(template="download-model")),
    "absent template": ("no template", lambda found: _task(found, "upload-model").update(template="upload")),
    "absent dependency": ("no task", lambda found: _task(found, "upload-model").update(depends="download")),
    "circle": ("waits for itself", lambda found: _task(found, "resolve-model").update(depends="promote-release")),
    "missing argument": ("does not pass", lambda found: _task(found, "upload-model").pop("arguments")),
    "output of a later task": (
        "does not come before it",
        lambda found: _task(found, "preflight").pop("depends"),
    ),
    "absent output": (
        "no such output",
        lambda found: templates(_spec(found))["resolve-model"]["outputs"].update(parameters=[]),
    ),
    "skippable producer": ("may be skipped", lambda found: _task(found, "resolve-model").update(when="a == b")),
    "producer that a task outlives": (
        "may be skipped",
        lambda found: _task(found, "promote-release").update(depends="smoke-test"),
    ),
    "absent input": (
        "nothing defines",
        lambda found: templates(_spec(found))["upload-model"]["container"].update(args=["{{inputs.parameters.size}}"]),
    ),
    "absent workflow parameter": ("nothing defines", lambda found: _spec(found)["arguments"]["parameters"].pop(0)),
    "status outside of the exit handler": (
        "nothing defines",
        lambda found: templates(_spec(found))["smoke-test"]["container"]["args"].append("{{workflow.status}}"),
    ),
    "failures in the exit handler": (
        "nothing defines",
        lambda found: templates(_spec(found))["report-run"]["container"]["args"].append("{{workflow.failures}}"),
    ),
    "absent template of the exit handler": (
        "no template",
        lambda found: exit_steps(_spec(found))[0].update(template="finish"),
    ),
    "output in the exit handler": (
        "nothing defines",
        lambda found: exit_steps(_spec(found))[1].update(when="{{steps.roll-back.outputs.parameters.message}} == a"),
    ),
    "volume": ("no volume", lambda found: [template.pop("volumes", None) for template in _spec(found)["templates"]]),
    "long name": ("longer than", lambda found: found["CronWorkflow"]["metadata"].update(name="a" * 53)),
    "other template": (
        "another template",
        lambda found: found["CronWorkflow"]["spec"]["workflowSpec"].update(workflowTemplateRef={"name": "a"}),
    ),
    "unknown override": (
        "does not take",
        lambda found: found["WorkflowEventBinding"]["spec"]["submit"]["arguments"]["parameters"][0].update(name="a"),
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_reference_that_leads_nowhere_is_caught(mutant: str) -> None:
    expected, change = MUTANTS[mutant]
    found = objects()
    change(found)
    assert any(expected in problem for problem in lint(found)), lint(found)
