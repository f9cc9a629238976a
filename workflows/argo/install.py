"""Everything that `kubectl apply -k` sets up for one service, and the page that says who may do what."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from steps.document.schema import ModelService
from steps.permissions import EXECUTOR, PolicyRule, any_name
from workflows.argo import accounts, policies
from workflows.argo.accounts import EXECUTOR_ROLE, PEOPLE, Manifest

KUSTOMIZATION = Path("kustomization.yaml")
SHARED: Mapping[str, Callable[[ModelService], list[Manifest]]] = {
    "accounts.yaml": accounts.accounts,
    "cluster-roles.yaml": accounts.cluster_roles,
}
OWN: Mapping[str, Callable[[ModelService], list[Manifest]]] = {
    "permissions.yaml": accounts.steps,
    "ci.yaml": accounts.continuous_integration,
    "people.yaml": accounts.people,
}
_HEAD = "# Generated from {origin} by `python -m workflows render`; change that, not this.\n"


def shared(service: ModelService) -> dict[Path, str]:
    """What all services of one workflow namespace use, the same bytes for each of them: file name -> text."""
    origin = f"any document whose workflow.namespace is {service.workflow.namespace}"
    files = {Path(name): _documents(origin, make(service)) for name, make in SHARED.items()}
    return files | {KUSTOMIZATION: kustomization(origin, files)}


def own(service: ModelService, origin: str) -> dict[Path, str]:
    """Roles of one service, for the steps, for CI and for people: file name -> text."""
    return {Path(name): _documents(origin, make(service)) for name, make in OWN.items()}


def policy(service: ModelService, origin: str) -> dict[Path, str]:
    """What needs Kubernetes 1.30: the policy that holds CI to one template."""
    text = _documents(origin, policies.policy(service))
    return {Path("policy.yaml"): text, KUSTOMIZATION: kustomization(origin, ["policy.yaml"])}


def kustomization(origin: str, resources: Iterable[object]) -> str:
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(resource) for resource in resources],
    }
    return _documents(origin, [content])


def permissions_page(service: ModelService) -> str:
    """docs/permissions.md: the table of the roles, for people."""
    parts = [_INTRODUCTION.format(service=service.name)]
    parts.append(_rows((account, rule) for account, rule in accounts.table(service)))
    parts.append(_PEOPLE)
    parts.append(_rows((name, rule) for name, granted in PEOPLE.items() for rule in granted if _own(name, rule)))
    return "\n".join(parts).replace("@EXECUTOR@", f"`{EXECUTOR_ROLE}` ({', '.join(EXECUTOR.verbs)})") + "\n"


def _own(name: str, rule: PolicyRule) -> bool:
    """The operator's table says only what it adds to the viewer's."""
    return name == accounts.VIEWER or rule not in PEOPLE[accounts.VIEWER]


def _rows(rows: Iterable[tuple[str, PolicyRule]]) -> str:
    lines = ["| account | verbs | resource | where | why |", "|---|---|---|---|---|"]
    before = ""
    for account, rule in rows:
        resource = f"{rule.resource}.{rule.group}" if rule.group else rule.resource
        only = "; it works without" if rule.explains else ""
        shown = f"`{account}`" if account != before else ""
        where = rule.scope + (", by name" if rule.names is not any_name else "")
        lines.append(f"| {shown} | {', '.join(rule.verbs)} | `{resource}` | {where} | {rule.why}{only} |")
        before = account
    return "\n".join(lines) + "\n"


_INTRODUCTION = """# Who may do what

Generated from `steps/catalogue.py` and `workflows/argo/accounts.py` by `python -m workflows render`, as the roles
in `manifests/install` and `manifests/argo` are; here for the document {service}. Tests hold every step against it: each
uses all of its rights and no other, and with one of them missing its error names the verb and the resource.

Where: *serving* is the namespace of the document, *workflow* is `workflow.namespace`. *By name*: only the objects
that the document names, such as the release record; it holds for `create` too, since a server-side apply is
authorized with the name of what it would create. Names that end with a hash of their content cannot be said
beforehand.

Every step has its own account, and beside the rows below the role @EXECUTOR@ on `workflowtaskresults.argoproj.io` in
the namespace of the workflow, for Argo's executor. `slipway-download-model`, `slipway-upload-model`,
`slipway-mirror-model` and `slipway-verify-model` have nothing else: their keys come from the kubelet as environment
variables. The value of a Secret is read by `slipway-create-volume` alone, of the one Secret
that it writes, and by `slipway-check-release`, which compares that one with the key that it was given.

`preflight` asks for all of it with `SubjectAccessReview`, as API01 of [the checks](checks.md), before any byte moves.
From a laptop, one account runs all steps; it needs the sum, and `get`, `create` on `pods/proxy` and `services/proxy`.

## What keeps CI to one template

**Whoever may create a Workflow may run pods under every account of its namespace.** So the namespace of the workflow
holds nothing else.

*Kubernetes 1.30 and later*: the folder `policy` of the service. The API server takes from CI new Workflows alone, with
`workflowTemplateRef` to this template, `arguments`, no other field and no status; parameters in the shape of
[their table](runs.md#submit); the document as the template on the cluster holds it. A refusal says what is allowed.

*Older*: nothing, so give CI no token of that cluster, but let it send
[signed webhooks](https://argo-workflows.readthedocs.io/en/latest/webhooks/) to Argo Server, which let it call the
event binding and nothing else. RBAC cannot look into a Workflow. Argo's `templateReferencing: Strict` refuses a spec of
one's own, but on 3.5 no other `serviceAccountName` beside the reference, and nowhere a spec that the
[status holds already](https://github.com/argoproj/argo-workflows/blob/v4.1.2/workflow/controller/operator.go#L4600).
`Secure` refuses that one, too, and ends every run whose template is changed meanwhile.

The policy knows CI by its account. With Argo Server in auth mode `server`, everybody acts as the server itself: use
`client` or `sso`.

## Rights
"""
_PEOPLE = """
## People

Roles without bindings, in both namespaces; bind them to your groups: `kubectl -n slipway create rolebinding on-call
--role=slipway-operator-qwen3-32b --group=on-call`. The operator may do what the viewer may, and:
"""


def _documents(origin: str, manifests: Iterable[Manifest]) -> str:
    return _HEAD.format(origin=origin) + "---\n".join(_as_yaml(manifest) for manifest in manifests)


def _as_yaml(manifest: dict[str, Any]) -> str:
    return yaml.safe_dump(manifest, sort_keys=False, width=1000)
