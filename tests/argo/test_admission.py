"""The rules that hold CI to one template, evaluated as CEL. A real API server keeps them in tests/contract."""

from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel

from steps.kinds import Manifest
from tests.support.ci_requests import DOCUMENT, MINE, REFUSED, STATUSES, given, run_of_ci
from tests.support.rendered import objects, workflow_spec
from tests.support.samples import service
from workflows.argo import policies
from workflows.argo.versions import argo_version, for_version
from workflows.argo.workflow import workflow_template

SERVICE = service()
TEMPLATE = workflow_template(SERVICE, DOCUMENT)


def refusals(workflow: Manifest, operation: str = "CREATE", template: Manifest = TEMPLATE) -> list[str]:
    """The sentences with which the API server would refuse this to CI."""
    rule, _ = policies.policy(SERVICE)
    known: dict[str, Any] = {
        name: json_to_cel(found)
        for name, found in (("object", workflow), ("params", template), ("request", {"operation": operation}))
    }
    variables: dict[str, Any] = {}
    for variable in rule["spec"]["variables"]:
        variables[variable["name"]] = _evaluate(variable["expression"], known | {"variables": _map(variables)})
    known["variables"] = _map(variables)
    return [one["message"] for one in rule["spec"]["validations"] if not _evaluate(one["expression"], known)]


def _evaluate(expression: str, known: dict[str, Any]) -> Any:
    environment = celpy.Environment()
    return environment.program(environment.compile(expression)).evaluate(known)


def _map(variables: dict[str, Any]) -> Any:
    return celpy.celtypes.MapType({celpy.celtypes.StringType(name): value for name, value in variables.items()})


@pytest.mark.parametrize("spec", [{}, {"arguments": {}}, given("reason", "nightly #12"), given("image", "")], ids=str)
def test_ci_may_start_its_template_with_all_parameters_or_fewer(spec: dict[str, Any]) -> None:
    assert refusals(run_of_ci(TEMPLATE, **spec)) == []


def test_ci_may_repeat_the_lock_of_the_template_as_a_run_on_argo_3_5_does() -> None:
    template = for_version(TEMPLATE, argo_version("3.5"))
    run = run_of_ci(template)
    assert run["spec"]["synchronization"] == {"mutex": {"name": "slipway-default-qwen3-32b"}}
    assert refusals(run, template=template) == []
    for other in ({}, {"mutex": {"name": "another"}}, {"mutex": {**run["spec"]["synchronization"]["mutex"], "a": "b"}}):
        found = refusals(run_of_ci(template, synchronization=other), template=template)
        assert found == ["CI may set the synchronization that the WorkflowTemplate qwen3-32b has, and no other lock"]


def test_ci_may_start_its_template_without_arguments_and_as_the_clients_of_argo_send_it() -> None:
    bare = {"metadata": {}, "spec": {"workflowTemplateRef": {"name": "qwen3-32b"}}}
    assert refusals(bare) == []
    looked_at = {"namespaced/qwen3-32b/a": MINE[0]}
    assert refusals({**bare, "status": {"startedAt": None, "finishedAt": None, "storedTemplates": looked_at}}) == []


def test_no_task_names_a_template_elsewhere_so_what_a_client_stores_of_it_is_never_run() -> None:
    for template in workflow_spec()["templates"]:
        for task in template.get("dag", {}).get("tasks", ()):
            assert "templateRef" not in task


@pytest.mark.parametrize("case", REFUSED)
def test_ci_may_start_nothing_else_and_is_told_what_it_may(case: str) -> None:
    spec, sentence = REFUSED[case]
    found = refusals(run_of_ci(TEMPLATE, **spec))
    assert any(sentence in one for one in found), found


@pytest.mark.parametrize("status", STATUSES, ids=lambda status: next(iter(status)))
def test_ci_may_not_write_what_the_controller_writes(status: dict[str, Any]) -> None:
    assert any("without a status" in one for one in refusals({**run_of_ci(TEMPLATE), "status": status}))


def test_ci_changes_no_run_and_starts_none_without_the_template() -> None:
    assert refusals(run_of_ci(TEMPLATE), "UPDATE") == ["CI may start a run, and not change one"]
    assert refusals({"metadata": {}, "spec": {"arguments": {}}}) == [
        "CI may start the WorkflowTemplate qwen3-32b, no other"
    ]


def test_what_an_event_hands_on_is_what_ci_may_pass() -> None:
    named = objects()["WorkflowEventBinding"]["spec"]["submit"]["arguments"]["parameters"]
    for one in named:
        assert refusals(run_of_ci(TEMPLATE, **given(one["name"], ""))) == []


def test_the_policy_is_about_ci_alone_and_denies() -> None:
    rule, binding = policies.policy(SERVICE)
    (condition,) = rule["spec"]["matchConditions"]
    assert '"system:serviceaccount:slipway:slipway-ci-qwen3-32b"' in condition["expression"]
    assert rule["spec"]["failurePolicy"] == "Fail"
    assert (binding["spec"]["policyName"], binding["spec"]["validationActions"]) == (rule["metadata"]["name"], ["Deny"])
    assert binding["spec"]["paramRef"]["parameterNotFoundAction"] == "Deny"
