"""Permissions on the cluster, as RBAC objects: the accounts of the steps, CI, people.

`steps.catalogue` holds the rules of a step. They become a Role where they hold in a namespace and a
ClusterRole where they do not. Roles are named by service, so that those of several services add up. Accounts and
ClusterRoles belong to the namespace of the workflow and do not depend on the service that renders them.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from steps.catalogue import CATALOGUE, Secret, cluster_rules
from steps.catalogue import rules as rules_of_step
from steps.document.schema import ModelService
from steps.policy_rules import EXECUTOR, PolicyRule, Scope, account
from steps.release import GPU_LEASE, writer_lease_name

Manifest = dict[str, Any]

RBAC = "rbac.authorization.k8s.io"
ARGO = "argoproj.io"
EXECUTOR_ROLE = "slipway-executor"
OPERATOR = "slipway-operator"
VIEWER = "slipway-viewer"
# For the webhook of RRSA: the RAM role of the pods of an account.
# https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/use-rrsa-to-authorize-pods-to-access-different-cloud-services
RAM_ROLE = "pod-identity.alibabacloud.com/role-name"
RAM_INJECTION = "pod-identity.alibabacloud.com/injection"

_READ = ("get", "list", "watch")
# Starting a run is creating a Workflow; RBAC cannot see which template it names. `workflows.argo.policies` does that.
_CI_RULES = (
    PolicyRule(("list",), "workfloweventbindings", "start a run by an event", ARGO, "workflow"),
    # Not by name: Argo Server 4.1 asks whether all may be read, for any one of them, and answers 403 otherwise.
    # https://github.com/argoproj/argo-workflows/blob/v4.1.2/util/auth/auth.go (CanIArgo)
    PolicyRule(("get",), "workflowtemplates", "read the template that is started", ARGO, "workflow"),
    PolicyRule(("create", *_READ), "workflows", "start a run and learn how it ends", ARGO, "workflow"),
)
_SEE = (
    PolicyRule(
        _READ,
        "workflows",
        "see runs, templates and schedules",
        ARGO,
        "workflow",
    ),
    PolicyRule(_READ, "workflowtemplates", "see runs, templates and schedules", ARGO, "workflow"),
    PolicyRule(_READ, "cronworkflows", "see runs, templates and schedules", ARGO, "workflow"),
    PolicyRule(_READ, "workfloweventbindings", "see runs, templates and schedules", ARGO, "workflow"),
    PolicyRule(_READ, "pods", "see the pods of a run", scope="workflow"),
    PolicyRule(("get",), "pods/log", "read the log of a step", scope="workflow"),
    PolicyRule(_READ, "events", "see why a pod does not start", scope="workflow"),
    PolicyRule(_READ, "rolebasedgroups", "see the objects that serve", "workloads.x-k8s.io"),
    PolicyRule(_READ, "pods", "see the objects that serve"),
    PolicyRule(_READ, "services", "see the objects that serve"),
    PolicyRule(_READ, "configmaps", "see the release record"),
    PolicyRule(_READ, "events", "see why a worker does not start"),
    PolicyRule(("get",), "pods/log", "read the log of a worker"),
    PolicyRule(_READ, "leases", "see which run writes now", "coordination.k8s.io"),
    PolicyRule(_READ, "leases", "see which run takes GPUs now", "coordination.k8s.io", "workflow"),
)
_OPERATE = (
    PolicyRule(
        ("create", "update", "patch", "delete"),
        "workflows",
        "submit, retry, stop and delete runs",
        ARGO,
        "workflow",
    ),
    PolicyRule(("update", "patch"), "cronworkflows", "suspend and resume the schedule", ARGO, "workflow"),
    PolicyRule(("delete",), "pods", "retry: Argo deletes the pods of failed nodes", scope="workflow"),
    PolicyRule(
        ("delete",),
        "leases",
        "take the service over from a writer that is gone",
        "coordination.k8s.io",
        names=lambda service: (writer_lease_name(service),),
    ),
    PolicyRule(
        ("delete",),
        "leases",
        "let another run take GPUs after one that is gone",
        "coordination.k8s.io",
        "workflow",
        names=lambda _: (GPU_LEASE,),
    ),
)
PEOPLE: Mapping[str, tuple[PolicyRule, ...]] = {VIEWER: _SEE, OPERATOR: (*_SEE, *_OPERATE)}


def account_of_ci(service: ModelService) -> str:
    return f"slipway-ci-{service.name}"


def installation(accounts: Iterable[Manifest]) -> str:
    """The identity of an installation: the namespace and the RAM role of its accounts."""
    made = [one["metadata"] for one in accounts if one["kind"] == "ServiceAccount"]
    spaces = ", ".join(sorted({one["namespace"] for one in made}))
    roles = ", ".join(sorted({role for one in made if (role := one.get("annotations", {}).get(RAM_ROLE))}))
    return f"namespace {spaces} with {f'RAM role {roles}' if roles else 'no RAM role'}"


def accounts(service: ModelService) -> list[Manifest]:
    """One account for each step, and what all of them share: Argo's executor beside each step reports its outputs."""
    space = service.workflow.namespace
    names = [account(step) for step in CATALOGUE]
    return [
        *(_account(service, step) for step in CATALOGUE),
        _role("Role", EXECUTOR_ROLE, space, [EXECUTOR], service),
        _binding("Role", EXECUTOR_ROLE, space, names, service),
    ]


def cluster_roles(service: ModelService) -> list[Manifest]:
    """Cluster-wide permissions of the accounts of the steps. Of the document, they depend on the accounts alone."""
    found: list[Manifest] = []
    for step in CATALOGUE:
        name = f"{account(step)}-{service.workflow.namespace}"
        found += _bound(name, "cluster", account(step), list(cluster_rules(step)), service)
    return found


def steps(service: ModelService) -> list[Manifest]:
    """The permissions of the accounts of the steps for this service."""
    # Both namespaces may be one. A service has no dot in its name, so no other service makes a role of this name.
    suffixes: Mapping[Scope, str] = {"serving": service.name, "workflow": f"{service.name}.runs"}
    found: list[Manifest] = []
    for step in CATALOGUE:
        name = account(step)
        for scope, suffix in suffixes.items():
            granted = [rule for rule in rules_of_step(step, service) if rule.scope == scope]
            found += _bound(f"{name}-{suffix}", scope, name, granted, service)
    return found


def continuous_integration(service: ModelService) -> list[Manifest]:
    """The account of CI, which starts runs of one template and follows them. One for each service, as its template."""
    name = account_of_ci(service)
    made = _object("v1", "ServiceAccount", name, service.workflow.namespace)
    return [made, *_bound(name, "workflow", name, list(_CI_RULES), service)]


def people(service: ModelService) -> list[Manifest]:
    """Roles to bind to people: one to read, one to act."""
    return [
        _role("Role", f"{name}-{service.name}", namespace, rules, service)
        for name, granted in PEOPLE.items()
        for namespace, rules in _by_namespace(service, granted).items()
    ]


def table(service: ModelService) -> Iterator[tuple[str, PolicyRule]]:
    """(account, rule) of every step and of CI, for people to read."""
    for step in CATALOGUE:
        yield from ((account(step), rule) for rule in rules_of_step(step, service))
    yield from ((account_of_ci(service), rule) for rule in _CI_RULES)


def _by_namespace(service: ModelService, granted: Iterable[PolicyRule]) -> dict[str, list[PolicyRule]]:
    """Both namespaces may be one; then one role holds it all."""
    found: dict[str, list[PolicyRule]] = {}
    for rule in granted:
        found.setdefault(_namespace(rule.scope, service), []).append(rule)
    return found


def _bound(name: str, scope: Scope, subject: str, granted: list[PolicyRule], service: ModelService) -> list[Manifest]:
    """A role with a binding; empty without a rule."""
    if not granted:
        return []
    kind = "ClusterRole" if scope == "cluster" else "Role"
    namespace = _namespace(scope, service)
    return [_role(kind, name, namespace, granted, service), _binding(kind, name, namespace, [subject], service)]


def _namespace(scope: Scope, service: ModelService) -> str:
    return {"workflow": service.workflow.namespace, "serving": service.namespace, "cluster": ""}[scope]


def _account(service: ModelService, step: str) -> Manifest:
    found = _object("v1", "ServiceAccount", account(step), service.workflow.namespace)
    if Secret.STORE in CATALOGUE[step].secrets and service.store.credentials.role:
        found["metadata"]["annotations"] = {RAM_ROLE: service.store.credentials.role}
    return found


def _role(kind: str, name: str, namespace: str, granted: Iterable[PolicyRule], service: ModelService) -> Manifest:
    return {**_object(f"{RBAC}/v1", kind, name, namespace), "rules": [_rule(rule, service) for rule in granted]}


def _rule(rule: PolicyRule, service: ModelService) -> Manifest:
    names = rule.names(service)
    return {
        "apiGroups": [rule.group],
        "resources": [rule.resource],
        **({"resourceNames": list(names)} if names else {}),
        "verbs": list(rule.verbs),
    }


def _binding(kind: str, name: str, namespace: str, subjects: Iterable[str], service: ModelService) -> Manifest:
    """Binds the role of the same name."""
    space = service.workflow.namespace
    return {
        **_object(f"{RBAC}/v1", f"{kind}Binding", name, namespace),
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": subject, "namespace": space} for subject in subjects],
    }


def _object(api_version: str, kind: str, name: str, namespace: str = "") -> Manifest:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}
