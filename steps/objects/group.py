"""The RoleBasedGroup of a release: prefill and decode workers, and the router in front of them.

https://github.com/sgl-project/rbg, api/workloads
"""

from collections.abc import Collection, Mapping
from typing import Any, get_args

from steps.kinds import V1ALPHA1, Manifest
from steps.objects.group_operator import GroupOperator
from steps.objects.metadata import owned_metadata
from steps.objects.pod_template import PodTemplate, labelled, router_template, worker_template
from steps.release import Release
from steps.sglang.flags import WorkerRole

WORKERS: tuple[WorkerRole, ...] = get_args(WorkerRole)
ROUTER = "router"
ROLES = (*WORKERS, ROUTER)


def role_based_group(
    release: Release,
    operator: GroupOperator,
    adopted: Collection[str] = (),
    labels: Mapping[str, Mapping[str, str]] | None = None,
) -> Manifest:
    """The manifest of the group.

    `adopted` are roles with an unprefixed headless Service under a new operator (`adopted_services`). `labels` are the
    labels on the pods of a live group, by role; the labels of the document are for new pods.
    """
    urls = {role: worker_urls(release, operator, role, role in adopted) for role in WORKERS}
    templates: dict[str, PodTemplate] = {role: worker_template(release, role) for role in WORKERS}
    templates[ROUTER] = router_template(release, urls["prefill"], urls["decode"])
    of_pods = labels or dict.fromkeys(ROLES, release.service.metadata.labels)
    templates = {name: labelled(template, of_pods.get(name, {})) for name, template in templates.items()}
    role = _role_v1alpha1 if operator.api_version == V1ALPHA1 else _role_v1alpha2
    return {
        "apiVersion": operator.kind.api_version,
        "kind": operator.kind.kind,
        "metadata": owned_metadata(release.service, release.group, release.service.namespace, release.labels),
        "spec": {"roles": [role(name, release.replicas[name], templates[name]) for name in ROLES]},
    }


def worker_urls(release: Release, operator: GroupOperator, role: WorkerRole, adopted: bool) -> list[str]:
    """Stable addresses of the workers of a role, one for each replica."""
    service = headless_service(release.group, role, operator, adopted)
    port = release.service.serving.ports.http
    return [f"http://{release.group}-{role}-{index}.{service}:{port}" for index in range(release.replicas[role])]


def headless_service(group: str, role: str, operator: GroupOperator, adopted: bool = False) -> str:
    """The Service of the operator for the DNS names of the pods of a role. Slipway never creates one of that name."""
    return f"{'' if adopted else operator.service_prefix}{group}-{role}"


def adopted_services(group: str, names: Collection[str]) -> list[str]:
    """Roles with a headless Service of the old name: their group is older than the operator.

    Operators from v0.5 on keep a Service `<group>-<role>` that exists (api/workloads/v1alpha1/helper.go).
    """
    return [role for role in WORKERS if f"{group}-{role}" in names]


def _role_v1alpha1(name: str, replicas: int, template: PodTemplate) -> dict[str, Any]:
    return {
        "name": name,
        "replicas": replicas,
        **_start_order(name),
        "workload": {"apiVersion": "apps/v1", "kind": "StatefulSet"},
        "restartPolicy": "None",
        "rolloutStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        "template": template,
    }


def _role_v1alpha2(name: str, replicas: int, template: PodTemplate) -> dict[str, Any]:
    return {
        "name": name,
        "replicas": replicas,
        **_start_order(name),
        # The default, InPlaceIfPossible, would change labels of a running pod and leave its process as it was.
        "rolloutStrategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"type": "RecreatePod", "maxUnavailable": 1, "maxSurge": 0},
        },
        "standalonePattern": {"template": template},
    }


def _start_order(name: str) -> dict[str, Any]:
    """The operator creates the router when all workers are ready.

    Never combine this with gang scheduling of the whole group: the gang waits for the router, and the router for it.
    """
    return {"dependencies": ["decode", "prefill"]} if name == ROUTER else {}
