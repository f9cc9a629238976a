"""Every rendered object is what the Argo of its line takes, strictly; and the checker that says so can say no."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.rendered import VARIANTS, VERSIONS, objects
from tests.support.strict_schema import CRD_TAGS, crd_errors, rule_errors, rules_met, schema_errors

Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("line", VERSIONS)
def test_every_object_fits_the_strict_schema_of_its_line(line: str, variant: str) -> None:
    for kind, found in objects(line, variant).items():
        assert schema_errors(found, line) == [], kind


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("line", CRD_TAGS)
def test_every_object_fits_the_full_crd_of_its_line(line: str, variant: str) -> None:
    for kind, found in objects(line, variant).items():
        assert crd_errors(found, line) == [], kind
        assert rule_errors(found, line) == [], kind


def test_the_rules_of_argo_4_really_look_at_the_template() -> None:
    assert len(rules_met(objects("4.1")["WorkflowTemplate"], "4.1")) >= 5


def test_the_schemas_of_the_lines_really_differ() -> None:
    old, new = objects("3.5"), objects("4.1")
    for line, wrong in (("4.1", old), ("4.0", old), ("3.5", new)):
        assert any("mutex" in error for error in schema_errors(wrong["WorkflowTemplate"], line)), line
        assert any("schedule" in error for error in schema_errors(wrong["CronWorkflow"], line)), line
    assert any("schedule" in error for error in crd_errors(new["CronWorkflow"], "3.5"))
    assert any("mutex" in error for error in crd_errors(old["WorkflowTemplate"], "4.1"))


def _template(spec: dict[str, Any], name: str = "download-model") -> dict[str, Any]:
    return next(item for item in spec["templates"] if item["name"] == name)


def _claim(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _template(spec)["volumes"][1]["persistentVolumeClaim"]
    return found


# One wrong key or value in each construct that the rendered objects use.
MUTANTS: dict[str, tuple[str, Change]] = {
    "spec": ("WorkflowTemplate", lambda spec: spec.update(onexit="exit")),
    "arguments": ("WorkflowTemplate", lambda spec: spec["arguments"].update(params=[])),
    "workflow parameter": ("WorkflowTemplate", lambda spec: spec["arguments"]["parameters"][0].update(enums=["a"])),
    "workflow metadata": ("WorkflowTemplate", lambda spec: spec["workflowMetadata"].update(label={"a": "b"})),
    "lock": ("WorkflowTemplate", lambda spec: spec["synchronization"].update(locks=[{"name": "a"}])),
    "pod GC key": ("WorkflowTemplate", lambda spec: spec["podGC"].update(when="never")),
    "pod GC value": ("WorkflowTemplate", lambda spec: spec["podGC"].update(strategy="OnSuccess")),
    "TTL": ("WorkflowTemplate", lambda spec: spec["ttlStrategy"].update(secondsAfterSucces=1)),
    "TTL value": ("WorkflowTemplate", lambda spec: spec["ttlStrategy"].update(secondsAfterSuccess="1d")),
    "affinity": ("WorkflowTemplate", lambda spec: spec["affinity"]["nodeAffinity"].update(preferred=[])),
    "pod security": ("WorkflowTemplate", lambda spec: spec["securityContext"].update(readOnlyRootFilesystem=True)),
    "seccomp": ("WorkflowTemplate", lambda spec: spec["securityContext"]["seccompProfile"].update(kind="Unconfined")),
    "claim": ("WorkflowTemplate", lambda spec: _claim(spec).update(name="a")),
    "template": ("WorkflowTemplate", lambda spec: _template(spec).update(serviceAccount="a")),
    "template inputs": ("WorkflowTemplate", lambda spec: _template(spec)["inputs"].update(params=[])),
    "input artifact": ("WorkflowTemplate", lambda spec: _template(spec)["inputs"]["artifacts"][0].update(content="a")),
    "raw artifact": ("WorkflowTemplate", lambda spec: _template(spec)["inputs"]["artifacts"][0]["raw"].update(text="")),
    "output parameter": ("WorkflowTemplate", lambda spec: _output(spec).update(path="/tmp/a")),
    "value of an output": ("WorkflowTemplate", lambda spec: _output(spec)["valueFrom"].update(file="/tmp/a")),
    "container": ("WorkflowTemplate", lambda spec: _template(spec)["container"].update(arguments=["a"])),
    "container args": ("WorkflowTemplate", lambda spec: _template(spec)["container"].update(args="--document=a")),
    "environment": ("WorkflowTemplate", lambda spec: _template(spec)["container"]["env"][0].update(secret="a")),
    "key of a Secret": (
        "WorkflowTemplate",
        lambda spec: _template(spec)["container"]["env"][0]["valueFrom"]["secretKeyRef"].update(secretName="a"),
    ),
    "resources": ("WorkflowTemplate", lambda spec: _template(spec)["container"]["resources"].update(limit={})),
    "amount": (
        "WorkflowTemplate",
        lambda spec: _template(spec)["container"]["resources"]["limits"].update(memory="a lot"),
    ),
    "container security": (
        "WorkflowTemplate",
        lambda spec: _template(spec)["container"]["securityContext"].update(readOnlyFilesystem=True),
    ),
    "capabilities": (
        "WorkflowTemplate",
        lambda spec: _template(spec)["container"]["securityContext"]["capabilities"].update(remove=["ALL"]),
    ),
    "mount": ("WorkflowTemplate", lambda spec: _template(spec)["container"]["volumeMounts"][0].update(path="/tmp")),
    "volume": ("WorkflowTemplate", lambda spec: _template(spec)["volumes"][0].update(emptydir={})),
    "retry": ("WorkflowTemplate", lambda spec: _template(spec)["retryStrategy"].update(attempts=3)),
    "retry limit": ("WorkflowTemplate", lambda spec: _template(spec)["retryStrategy"].update(limit=3.5)),
    "retry policy": ("WorkflowTemplate", lambda spec: _template(spec)["retryStrategy"].update(retryPolicy="Sometimes")),
    "back-off": ("WorkflowTemplate", lambda spec: _template(spec)["retryStrategy"]["backoff"].update(delay="1m")),
    "DAG": ("WorkflowTemplate", lambda spec: _template(spec, "pipeline")["dag"].update(failfast=True)),
    "task": ("WorkflowTemplate", lambda spec: _template(spec, "pipeline")["dag"]["tasks"][1].update(after=["a"])),
    "schedule": ("CronWorkflow", lambda spec: spec.update(cron="0 3 * * *")),
    "concurrency": ("CronWorkflow", lambda spec: spec.update(concurrencyPolicy="Deny")),
    "history": ("CronWorkflow", lambda spec: spec.update(failedJobsHistoryLimit="seven")),
    "template of the schedule": (
        "CronWorkflow",
        lambda spec: spec["workflowSpec"]["workflowTemplateRef"].update(template="a"),
    ),
    "event": ("WorkflowEventBinding", lambda spec: spec["event"].update(when="true")),
    "submit": ("WorkflowEventBinding", lambda spec: spec["submit"].update(workflowTemplate={"name": "a"})),
    "value of an event": (
        "WorkflowEventBinding",
        lambda spec: spec["submit"]["arguments"]["parameters"][0]["valueFrom"].update(payload="a"),
    ),
}


def _output(spec: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = _template(spec)["outputs"]["parameters"][0]
    return first


@pytest.mark.parametrize("line", ["3.5", "4.1"])
@pytest.mark.parametrize("construct", MUTANTS)
def test_one_wrong_key_in_any_construct_is_caught(construct: str, line: str) -> None:
    kind, change = MUTANTS[construct]
    found = objects(line)[kind]
    change(found["spec"])
    assert schema_errors(found, line)


RULE_MUTANTS: dict[str, Change] = {
    "two kinds of template": lambda spec: _template(spec).update(suspend={}),
    "deadline on a DAG": lambda spec: _template(spec, "pipeline").update(activeDeadlineSeconds=60),
    "timeout on a DAG": lambda spec: _template(spec, "pipeline").update(timeout="1h"),
    "depends and dependencies": lambda spec: _template(spec, "pipeline")["dag"]["tasks"][1].update(dependencies=["a"]),
    "depends and continueOn": lambda spec: _template(spec, "pipeline")["dag"]["tasks"][1].update(
        continueOn={"failed": 1}
    ),
}


@pytest.mark.parametrize("mutant", RULE_MUTANTS)
def test_what_the_rules_of_argo_4_forbid_is_caught(mutant: str) -> None:
    found = objects("4.1")["WorkflowTemplate"]
    RULE_MUTANTS[mutant](found["spec"])
    assert rule_errors(found, "4.1")
