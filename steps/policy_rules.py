"""Permissions at the API server: the rules that a step declares, and the single permissions that a rule stands for.

`steps.catalogue` holds the rules of each step. The roles in manifests/install and manifests/argo, and
docs/permissions.md are generated from them, `check-platform` asks for each of them, and tests compare each step with
them: it uses all of its permissions and no other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from steps.document.schema import ModelService
from steps.ports.kubernetes import Permission

# The namespace of a rule: `serving` is metadata.namespace of the document, `workflow` its workflow.namespace.
Scope = Literal["serving", "workflow", "cluster"]
Names = Callable[[ModelService], tuple[str, ...]]


def any_name(_service: ModelService) -> tuple[str, ...]:
    return ()


def _always(_service: ModelService) -> bool:
    return True


@dataclass(frozen=True)
class PolicyRule:
    """Verbs on one resource, as in a Role, and the reason of the step."""

    verbs: tuple[str, ...]
    resource: str  # plural, "pods" or "pods/log"
    why: str
    group: str = ""
    scope: Scope = "serving"
    # Only objects of these names; none means any. A name that ends with a hash of its content is not known beforehand.
    # The names hold for `create` too: server-side apply is authorized with the name of the object that it would create.
    names: Names = any_name
    when: Callable[[ModelService], bool] = _always
    explains: bool = False  # the step works without it; only the reason of a failure is shorter


# Argo's executor beside each step, in each version since 3.4; without it a run stays Running forever.
# https://argo-workflows.readthedocs.io/en/latest/workflow-rbac/
EXECUTOR = PolicyRule(
    ("create", "patch"), "workflowtaskresults", "Argo's executor reports outputs", "argoproj.io", scope="workflow"
)
# A laptop is outside of the pod network, so the smoke test goes through the API server.
LAPTOP = (
    PolicyRule(("get", "create"), "pods/proxy", "reach workers from outside of the pod network"),
    PolicyRule(("get", "create"), "services/proxy", "reach the router from outside of the pod network"),
)


def account(step: str) -> str:
    """The service account of a step: one for each, so that a step has its own permissions alone."""
    return f"slipway-{step}"


def user(step: str, service: ModelService) -> str:
    """The same account in the notation of the API server."""
    return f"system:serviceaccount:{service.workflow.namespace}:{account(step)}"


def permissions(rule: PolicyRule, service: ModelService, user: str = "") -> tuple[Permission, ...]:
    """A rule verb by verb and name by name, for `user`; empty means the caller."""
    namespace = {"serving": service.namespace, "workflow": service.workflow.namespace, "cluster": ""}[rule.scope]
    return tuple(
        Permission(verb, rule.group, rule.resource, namespace, name, user)
        for verb in rule.verbs
        for name in rule.names(service) or ("",)
    )
