"""The limits that RBAC cannot express: CI may start runs of one template, with the parameters of a run, and no more.

An account that may create a Workflow may run pods under every account of its namespace, and
`templateReferencing: Strict` has two gaps: fields beside the template reference on older Argo, and on any Argo a status
that holds a spec already.
From Kubernetes 1.30 on, the API server itself enforces the policy.
https://github.com/argoproj/argo-workflows/security/advisories/GHSA-3wf5-g532-rcrr
https://github.com/argoproj/argo-workflows/blob/v4.1.2/workflow/controller/operator.go (setStoredWfSpec)
https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

import json
from typing import Any

from steps.document.overrides import OVERRIDES
from steps.document.schema import ModelService
from workflows.argo.accounts import ARGO, Manifest, account_of_ci
from workflows.runs.submission import DOCUMENT, REASON, REASON_PATTERN

ADMISSION = "admissionregistration.k8s.io"


def validations(service: ModelService) -> list[dict[str, str]]:
    """CEL over the Workflow that CI sends; all must be true.

    `params` is the WorkflowTemplate as it is on the cluster.
    """
    shapes = {override.parameter: override.pattern for override in OVERRIDES} | {REASON: REASON_PATTERN}
    names = [*shapes, DOCUMENT]
    return [
        _rule('request.operation == "CREATE"', "CI may start a run, and not change one"),
        _rule(
            'dyn(object.spec).all(field, field in ["arguments", "synchronization", "workflowTemplateRef"])',
            "CI may set arguments, synchronization and workflowTemplateRef of a Workflow, nothing else",
        ),
        # A run repeats the lock of its template on Argo 3.5 (workflows.runs.submission).
        _rule(
            "!has(object.spec.synchronization) || (has(params.spec.synchronization) && "
            "dyn(object.spec.synchronization) == dyn(params.spec.synchronization))",
            f"CI may set the synchronization that the WorkflowTemplate {service.name} has, and no other lock",
        ),
        _rule(
            f"has(variables.template.name) && variables.template.name == {json.dumps(service.name)} && "
            "!(has(variables.template.clusterScope) && variables.template.clusterScope)",
            f"CI may start the WorkflowTemplate {service.name}, no other",
        ),
        # The controller takes a spec that the status holds for what it has read from the template. Argo's clients send
        # two empty times and the templates that they read, which serve `templateRef` alone; ours has none.
        _rule(
            'variables.status.all(field, field == "storedTemplates" || variables.status[field] == null)',
            "CI may start a Workflow without a status: it is for Argo's controller to write",
        ),
        _rule(
            'variables.arguments.all(field, field == "parameters") && variables.parameters.all(given, '
            f'given.all(field, field in ["name", "value"]) && given.name in {json.dumps(names)})',
            f"CI may pass the parameters {', '.join(names)}, each with a value, and no artifacts",
        ),
        # The value of a parameter is pasted into the templates, and Argo evaluates {{=...}} there.
        *(
            _rule(
                _value(name, f"string(given.value).matches({json.dumps(pattern)})"),
                f"CI may set {name} to what matches {pattern}",
            )
            for name, pattern in shapes.items()
        ),
        _rule(
            _value(
                DOCUMENT,
                "params.spec.arguments.parameters.exists(declared, "
                f"declared.name == {json.dumps(DOCUMENT)} && declared.value == given.value)",
            ),
            f"CI may pass {DOCUMENT} as the WorkflowTemplate {service.name} holds it, and no other document",
        ),
    ]


def policy(service: ModelService) -> list[Manifest]:
    """The policy and its binding."""
    # Neither part holds a dot, so no other service has a policy of this name.
    name = f"{account_of_ci(service)}.{service.workflow.namespace}"
    user = f"system:serviceaccount:{service.workflow.namespace}:{account_of_ci(service)}"
    rule = {
        "apiGroups": [ARGO],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["workflows"],
    }
    spec: dict[str, Any] = {
        "failurePolicy": "Fail",
        "paramKind": {"apiVersion": f"{ARGO}/v1alpha1", "kind": "WorkflowTemplate"},
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [{"name": "sent-by-ci", "expression": f'request.userInfo.username == "{user}"'}],
        "variables": [
            {"name": "template", "expression": _found("object.spec.workflowTemplateRef")},
            {"name": "status", "expression": _found("object.status")},
            {"name": "arguments", "expression": _found("object.spec.arguments")},
            {
                "name": "parameters",
                "expression": "has(variables.arguments.parameters) ? variables.arguments.parameters : []",
            },
        ],
        "validations": validations(service),
    }
    binding = {
        "policyName": name,
        "validationActions": ["Deny"],
        "paramRef": {
            "name": service.name,
            "namespace": service.workflow.namespace,
            "parameterNotFoundAction": "Deny",
        },
    }
    head = {"apiVersion": f"{ADMISSION}/v1", "metadata": {"name": name}}
    return [
        {**head, "kind": "ValidatingAdmissionPolicy", "spec": spec},
        {**head, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    ]


def _value(name: str, holds: str) -> str:
    """The condition on this parameter, where a value is given."""
    return f"variables.parameters.all(given, given.name != {json.dumps(name)} || !has(given.value) || {holds})"


def _found(path: str) -> str:
    """The field, or an empty map; without a type, so that its fields can be counted."""
    return f"has({path}) ? dyn({path}) : dyn({{}})"


def _rule(expression: str, message: str) -> dict[str, str]:
    return {"expression": expression, "message": message}
