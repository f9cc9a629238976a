"""What RBAC cannot say: CI may start runs of one template, with the parameters that a run may change, and nothing else.

Whoever may create a Workflow may run pods under every account of its namespace, and `templateReferencing: Strict` of
older Argo can be passed by. From Kubernetes 1.30 on, the API server itself refuses what a policy forbids.
https://github.com/argoproj/argo-workflows/security/advisories/GHSA-3wf5-g532-rcrr
https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

import json
from typing import Any

from steps.service import ModelService
from workflows.argo import workflow_template
from workflows.permissions import ARGO, Manifest, account_of_ci

ADMISSION = "admissionregistration.k8s.io"


def validations(service: ModelService) -> list[dict[str, str]]:
    """CEL over the Workflow that CI sends; all must be true."""
    declared = workflow_template(service, document="")["spec"]["arguments"]["parameters"]
    parameters = [parameter["name"] for parameter in declared]
    allowed = json.dumps(parameters)
    template = "object.spec.workflowTemplateRef"
    return [
        {
            "expression": 'dyn(object.spec).all(field, field in ["arguments", "workflowTemplateRef"])',
            "message": "CI may set arguments and workflowTemplateRef of a Workflow, nothing else",
        },
        {
            "expression": f'has({template}) && {template}.name == "{service.name}" && '
            f"!(has({template}.clusterScope) && {template}.clusterScope)",
            "message": f"CI may start the WorkflowTemplate {service.name}, no other",
        },
        {
            "expression": "!has(object.spec.arguments) || (!has(object.spec.arguments.artifacts) && "
            "(!has(object.spec.arguments.parameters) || "
            f"object.spec.arguments.parameters.all(parameter, parameter.name in {allowed})))",
            "message": f"CI may pass the parameters {', '.join(parameters)} and no artifacts",
        },
    ]


def policy(service: ModelService) -> list[Manifest]:
    """The policy and its binding."""
    name = f"{account_of_ci(service)}-in-{service.workflow.namespace}"
    user = f"system:serviceaccount:{service.workflow.namespace}:{account_of_ci(service)}"
    rule = {
        "apiGroups": [ARGO],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["workflows"],
    }
    spec: dict[str, Any] = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [{"name": "sent-by-ci", "expression": f'request.userInfo.username == "{user}"'}],
        "validations": validations(service),
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    head = {"apiVersion": f"{ADMISSION}/v1", "metadata": {"name": name}}
    return [
        {**head, "kind": "ValidatingAdmissionPolicy", "spec": spec},
        {**head, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    ]
