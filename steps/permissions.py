"""What each step may do at the API server: the one table.

The roles in manifests/install and manifests/argo, and docs/permissions.md are generated from it, `check-platform` asks
for what it says, and tests hold every step against it: each uses all of its rights and no other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from steps.document.schema import ModelService
from steps.kinds import OSS_DRIVER
from steps.ports.kubernetes import Right
from steps.release import GPU_LEASE, record_name, volume_secret_name, writer_lease_name

# Where a right holds: `serving` is metadata.namespace of the document, `workflow` its workflow.namespace.
Scope = Literal["serving", "workflow", "cluster"]
Names = Callable[[ModelService], tuple[str, ...]]


def any_name(_service: ModelService) -> tuple[str, ...]:
    return ()


def _always(_service: ModelService) -> bool:
    return True


@dataclass(frozen=True)
class Grant:
    """Some verbs on one resource, and why the step needs them."""

    verbs: tuple[str, ...]
    resource: str  # plural, "pods" or "pods/log"
    why: str
    group: str = ""
    scope: Scope = "serving"
    # Only objects of these names; none means any. Names that a hash of their content ends cannot be said beforehand.
    # It holds for `create` too: server-side apply is authorized with the name of the object that it would create.
    names: Names = any_name
    when: Callable[[ModelService], bool] = _always
    explains: bool = False  # the step does its work without it, only the reason of a failure says less


WORKLOADS = "workloads.x-k8s.io"


def _record(service: ModelService) -> tuple[str, ...]:
    return (record_name(service),)


def _traffic(service: ModelService) -> tuple[str, ...]:
    return (service.endpoint.service,)


def _lease(service: ModelService) -> tuple[str, ...]:
    return (writer_lease_name(service),)


def _has_key(service: ModelService) -> bool:
    return service.store.credentials.secret is not None


_RECORD_READ = Grant(("get",), "configmaps", "read the release record", names=_record)
# No names: that of a run is not known before it starts. A run holds no secret, only the names of some.
_RUN_READ = Grant(
    ("get",), "workflows", "tell what every task of the run did", "argoproj.io", "workflow", explains=True
)
_HOLDER_READ = Grant(
    ("get",),
    "workflows",
    "see whether the run that holds the Lease is at work, and what its tasks did",
    "argoproj.io",
    "workflow",
    explains=True,
)
_GUARD = (
    Grant(("get", "update"), "leases", "be the one writer of the service", "coordination.k8s.io", names=_lease),
    # A lock is created by POST, so that of two writers one is refused; that is authorized without a name.
    Grant(("create",), "leases", "be the one writer of the service", "coordination.k8s.io"),
    _HOLDER_READ,
)
_TAKE_GPUS = (
    Grant(
        ("get", "update"),
        "leases",
        "be the one run that takes GPUs",
        "coordination.k8s.io",
        "workflow",
        names=lambda _: (GPU_LEASE,),
    ),
    Grant(("create",), "leases", "be the one run that takes GPUs", "coordination.k8s.io", "workflow"),
)
_LOOK_AT_GROUP = (
    Grant(("get",), "statefulsets", "see whether the roles of the group are up", "apps"),
    Grant(("get",), "roleinstancesets", "the same, as newer RBG operators keep them", WORKLOADS),
    Grant(("list",), "pods", "count exactly the pods of the release"),
    Grant(("list",), "events", "say why pods do not come up", explains=True),
    Grant(("get",), "pods/log", "say why a container crashed", explains=True),
)

_STEPS: Mapping[str, tuple[Grant, ...]] = {
    "resolve-model": (_RECORD_READ,),
    # It asks the steps below what they would do, and writes nothing.
    "check-release": (
        Grant(
            ("get",),
            "secrets",
            "compare the key for the CSI driver with its own; its value is never shown",
            names=lambda service: (volume_secret_name(service),),
            when=_has_key,
        ),
        Grant(("get", "list"), "persistentvolumeclaims", "is the claim over the model there, is an older one left"),
        Grant(
            ("get", "list"),
            "persistentvolumes",
            "is the volume over the model there, is an older one left",
            scope="cluster",
        ),
        _RECORD_READ,
        Grant(
            ("get", "list"), "rolebasedgroups", "is the group of the release as wanted, is an older one left", WORKLOADS
        ),
        Grant(("get", "list"), "services", "is the traffic on the release, is an older one left"),
        Grant(("get",), "statefulsets", "see whether the roles of the group are up", "apps"),
        Grant(("get",), "roleinstancesets", "the same, as newer RBG operators keep them", WORKLOADS),
        Grant(("list",), "pods", "count exactly the pods of the release, and ask them"),
        Grant(("list",), "events", "say why pods do not come up", explains=True),
        Grant(("get",), "pods/log", "read which transport the KV cache takes"),
    ),
    "check-platform": (
        Grant(("get",), "namespaces", "is the serving namespace there", names=lambda service: (service.namespace,)),
        Grant(("get",), "configmaps", "which model serves, whose code is known", names=_record),
        Grant(("list",), "services", "is the name of the Service free"),
        replace(_RUN_READ, why="did Argo understand the lock of this run"),
        Grant(("list",), "resourcequotas", "is there room for the workers"),
        Grant(("list",), "resourcequotas", "is there room for the scratch volume", scope="workflow"),
        Grant(("list",), "nodes", "free GPUs, their memory, RDMA devices", scope="cluster"),
        Grant(("list",), "pods", "GPUs that are taken", scope="cluster"),
        Grant(("list",), "deployments", "operators that serve, in whatever namespace", "apps", "cluster"),
        Grant(("list",), "daemonsets", "CSI plugin on every node, in whatever namespace", "apps", "cluster"),
        Grant(
            ("get",),
            "csidrivers",
            "the OSS CSI driver",
            "storage.k8s.io",
            "cluster",
            names=lambda _: (OSS_DRIVER,),
        ),
        Grant(
            ("list",),
            "erdmadevices",
            "RDMA interfaces of the nodes",
            "network.alibabacloud.com",
            "cluster",
            when=lambda service: service.serving.fabric == "erdma",
        ),
        Grant(
            ("create",),
            "subjectaccessreviews",
            "ask what the accounts of the other steps may do, before hours of transfer",
            "authorization.k8s.io",
            "cluster",
        ),
    ),
    "create-scratch": (
        Grant(
            ("get", "create", "patch"),
            "persistentvolumeclaims",
            "the scratch volume of a run, named after the run",
            scope="workflow",
        ),
    ),
    "download-model": (),
    "upload-model": (),
    "mirror-model": (),
    "verify-model": (),
    "create-volume": (
        Grant(
            ("get", "create", "patch"),
            "secrets",
            "the key for the CSI driver; its value is compared, never shown",
            names=lambda service: (volume_secret_name(service),),
            when=_has_key,
        ),
        Grant(("get", "create", "patch"), "persistentvolumeclaims", "the claim over the model"),
        Grant(
            ("get", "create", "patch", "delete"),
            "persistentvolumes",
            "the volume over the model; one whose claim is gone is made anew",
            scope="cluster",
        ),
        _RECORD_READ,
        *_GUARD,
    ),
    "roll-out-service": (
        _RECORD_READ,
        Grant(("get", "list", "create", "patch", "delete"), "rolebasedgroups", "the group of the release", WORKLOADS),
        Grant(("get", "create", "patch"), "services", "the Service that leads to this release alone"),
        Grant(("get",), "persistentvolumeclaims", "is the claim over the model Bound, before anything starts or stops"),
        *_LOOK_AT_GROUP,
        *_GUARD,
        *_TAKE_GPUS,
    ),
    "smoke-test": (
        Grant(("list",), "pods", "find the workers"),
        Grant(("get",), "services", "find the router"),
        Grant(("get",), "pods/log", "read which transport the KV cache takes"),
    ),
    "promote-release": (
        Grant(("get", "create", "patch"), "configmaps", "record the release", names=_record),
        Grant(("create", "patch"), "services", "move the traffic", names=_traffic),
        Grant(("get", "list", "delete"), "services", "retire those of older releases"),
        Grant(("get", "list", "delete"), "rolebasedgroups", "retire those of older releases", WORKLOADS),
        Grant(("get", "list", "delete"), "persistentvolumeclaims", "retire those that no recorded release needs"),
        Grant(
            ("get", "list", "delete"),
            "persistentvolumes",
            "retire those that no recorded release needs",
            scope="cluster",
        ),
        *_LOOK_AT_GROUP,
        *_GUARD,
    ),
    "roll-back": (
        _RECORD_READ,
        Grant(
            ("get", "list", "create", "patch", "delete"),
            "services",
            "put back those of the recorded release, remove those of a failed one",
        ),
        Grant(
            ("get", "list", "create", "patch", "delete"),
            "rolebasedgroups",
            "put back the recorded release, remove a failed one",
            WORKLOADS,
        ),
        *_LOOK_AT_GROUP,
        *_GUARD,
    ),
    "report-run": (
        replace(_RECORD_READ, explains=True),
        _RUN_READ,
        Grant(
            ("get", "delete"),
            "persistentvolumeclaims",
            "give back the scratch volume that no Retry needs",
            scope="workflow",
        ),
        Grant(
            ("list", "delete"),
            "pods",
            "remove the pods of the transfer that have ended, which would keep that volume",
            scope="workflow",
        ),
    ),
}

# Argo's executor beside every step, in every line since 3.4; without it a run stays Running for ever.
# https://argo-workflows.readthedocs.io/en/latest/workflow-rbac/
EXECUTOR = Grant(
    ("create", "patch"), "workflowtaskresults", "Argo's executor reports outputs", "argoproj.io", scope="workflow"
)
# A laptop is outside of the pod network, so the smoke test goes through the API server.
_LAPTOP = (
    Grant(("get", "create"), "pods/proxy", "reach workers from outside"),
    Grant(("get", "create"), "services/proxy", "reach the router from outside"),
)

STEPS = tuple(_STEPS)


def account(step: str) -> str:
    """The service account of a step: one each, so that each may do only what it does."""
    return f"slipway-{step}"


def user(step: str, service: ModelService) -> str:
    """The same account as the API server calls it."""
    return f"system:serviceaccount:{service.workflow.namespace}:{account(step)}"


def grants(step: str, service: ModelService) -> tuple[Grant, ...]:
    """What a step itself calls, for this document."""
    return tuple(grant for grant in _STEPS[step] if grant.when(service))


def cluster_grants(step: str) -> tuple[Grant, ...]:
    """What a step calls in no namespace, for any document: services of one workflow namespace share these roles."""
    return tuple(grant for grant in _STEPS[step] if grant.scope == "cluster")


def rights(grant: Grant, service: ModelService, user: str = "") -> tuple[Right, ...]:
    """A grant verb by verb and name by name; `user` is whose right it is, empty for the caller's own."""
    namespace = {"serving": service.namespace, "workflow": service.workflow.namespace, "cluster": ""}[grant.scope]
    return tuple(
        Right(verb, grant.group, grant.resource, namespace, name, user)
        for verb in grant.verbs
        for name in grant.names(service) or ("",)
    )


def rights_of_accounts(service: ModelService) -> tuple[Right, ...]:
    """What the account of every step must be allowed, as a run in the cluster needs it."""
    return tuple(
        right
        for step in STEPS
        for grant in (*grants(step, service), EXECUTOR)
        for right in rights(grant, service, user(step, service))
    )


def rights_of_one(service: ModelService) -> tuple[Right, ...]:
    """What one account needs that runs all steps from outside of the cluster, as on a laptop."""
    asked_as_others = "subjectaccessreviews"  # needed only where the steps have accounts of their own
    every = (*(grant for step in STEPS for grant in grants(step, service)), *_LAPTOP)
    found = (right for grant in every if grant.resource != asked_as_others for right in rights(grant, service))
    return tuple(dict.fromkeys(found))
