"""One entry for each step. Wiring, pipeline, pods, roles, checks, docs and the import contract read it.

A step is its module, a factory in `steps.wiring`, an entry here, and a place in `workflows.pipeline`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from steps import resource_requests
from steps.document.schema import ModelService
from steps.kinds import ARGO, OSS_DRIVER, RBG
from steps.policy_rules import EXECUTOR, LAPTOP, PolicyRule, permissions, user
from steps.ports.kubernetes import Permission
from steps.release import GPU_LEASE, record_name, volume_secret_name, writer_lease_name
from steps.resource_requests import ResourceRequests

LIGHT_MINUTES = 15  # of a step without a deadline in the document


class Secret(Enum):
    """Secrets of the document that the kubelet passes to a step as environment variables."""

    HUB = "model.token"
    STORE = "store.credentials"
    NOTIFICATIONS = "notifications"


def _light(_service: ModelService) -> int:
    return LIGHT_MINUTES


def _transfer(service: ModelService) -> int:
    return service.transfer.deadline_minutes


def _rollout(service: ModelService) -> int:
    return service.rollout.deadline_minutes


@dataclass(frozen=True)
class StepSpec:
    name: str  # of the command, the Argo template and, with underscores, of the module
    description: str  # one sentence for people
    options: tuple[str, ...]  # of `steps.command_line`, beside those of every step
    deadline_minutes: Callable[[ModelService], int] = _light  # the deadline of the step itself
    retries: int = 3  # by Argo, after the first attempt
    # Without an answer, the loop of the step observes again for this long. 0: the next attempt is Argo's.
    no_answer_seconds: float = 0.0
    secrets: frozenset[Secret] = frozenset()
    resources: Callable[[ModelService], ResourceRequests] = resource_requests.light
    permissions: tuple[PolicyRule, ...] = ()
    writes: bool = False  # changes the service in the name of the run: no other run may until this one has ended
    skippable: bool = False  # a no-op run skips it
    inherits: bool = False  # by hand, it works on the release that the overrides of the release record name

    @property
    def module(self) -> str:
        """`check-platform` is the module `check_platform` of the package `steps`."""
        return self.name.replace("-", "_")


def _record(service: ModelService) -> tuple[str, ...]:
    return (record_name(service),)


def _traffic(service: ModelService) -> tuple[str, ...]:
    return (service.endpoint.service,)


def _volume_secret(service: ModelService) -> tuple[str, ...]:
    return (volume_secret_name(service),)


def _writer_lease(service: ModelService) -> tuple[str, ...]:
    return (writer_lease_name(service),)


def _gpu_lease(_service: ModelService) -> tuple[str, ...]:
    return (GPU_LEASE,)


def _has_key(service: ModelService) -> bool:
    return service.store.credentials.secret is not None


_LEASES = "coordination.k8s.io"
_CLAIM_READ = PolicyRule(
    ("get", "list"), "persistentvolumeclaims", "find the claim over the model, and older ones that are left"
)
_RECORD_READ = PolicyRule(("get",), "configmaps", "read the release record", names=_record)
# Without names: that of a run is not known before it starts. A Workflow holds no Secret, only names of Secrets.
_RUN_READ = PolicyRule(("get",), "workflows", "report the tasks of the run", ARGO, "workflow", explains=True)
_WRITER = (
    PolicyRule(("get", "update"), "leases", "be the one writer of the service", _LEASES, names=_writer_lease),
    # A Lease is created by POST, so that of two writers one is refused; that is authorized without a name.
    PolicyRule(("create",), "leases", "be the one writer of the service", _LEASES),
    replace(_RUN_READ, why="check whether the run that holds the Lease is at work, and read the results of its tasks"),
)
_GPU_TAKER = (
    PolicyRule(("get", "update"), "leases", "be the one run that takes GPUs", _LEASES, "workflow", names=_gpu_lease),
    PolicyRule(("create",), "leases", "be the one run that takes GPUs", _LEASES, "workflow"),
)
_ROLES_READ = (
    PolicyRule(("get",), "statefulsets", "read the status of the roles of the group", "apps"),
    PolicyRule(("get",), "roleinstancesets", "the same, for newer RBG operators", RBG),
)
_PODS_READ = PolicyRule(("list",), "pods", "count exactly the pods of the release")
_EVENTS_READ = PolicyRule(("list",), "events", "report why pods do not start", explains=True)
_TRANSPORT_READ = PolicyRule(("get",), "pods/log", "read the transport of the KV cache")
_GROUP_READ = (
    *_ROLES_READ,
    _PODS_READ,
    _EVENTS_READ,
    PolicyRule(("get",), "pods/log", "report why a container crashed", explains=True),
)

_PINNED = ("parameter", "model-digest", "overrides")
_WRITER_OPTIONS = (*_PINNED, "record-counter", "run-name")
_AT_EXIT = ("run-name", "run-status")
_HUB_AND_STORE = frozenset({Secret.HUB, Secret.STORE})
# A transfer keeps the bytes that it moved, so another attempt is cheap, and a hub that is down for half an hour is
# survived.
_TRANSFER_RETRIES = 5


def _transfer_step(name: str, description: str, option: str, secrets: frozenset[Secret]) -> StepSpec:
    """A step that moves bytes; it needs no permission on the cluster."""
    return StepSpec(
        name,
        description,
        (*_PINNED, option),
        _transfer,
        _TRANSFER_RETRIES,
        secrets=secrets,
        resources=resource_requests.transfer,
        skippable=True,
    )


_ENTRIES = (
    StepSpec(
        "resolve-model",
        "Pin the files of the model by one digest, and the overrides in force.",
        options=("parameter", "run-name"),
        secrets=frozenset({Secret.HUB}),
        permissions=(_RECORD_READ,),
    ),
    StepSpec(
        "check-release",
        "Is this exact release deployed and verified? Then the other tasks are skipped.",
        options=_WRITER_OPTIONS,
        secrets=_HUB_AND_STORE,
        # It plans the steps below, and writes nothing.
        permissions=(
            PolicyRule(
                ("get",),
                "secrets",
                "compare the key for the CSI driver with that of the step; its value is never shown",
                names=_volume_secret,
                when=_has_key,
            ),
            _CLAIM_READ,
            PolicyRule(
                ("get", "list"),
                "persistentvolumes",
                "find the volume over the model, and older ones that are left",
                scope="cluster",
            ),
            _RECORD_READ,
            PolicyRule(
                ("get", "list"),
                "rolebasedgroups",
                "compare the group of the release, find older ones that are left",
                RBG,
            ),
            PolicyRule(("get", "list"), "services", "check that the traffic goes to the release, find older Services"),
            *_ROLES_READ,
            replace(_PODS_READ, why="count exactly the pods of the release, and query them"),
            _EVENTS_READ,
            _TRANSPORT_READ,
        ),
        inherits=True,
    ),
    StepSpec(
        "check-platform",
        "Check hub, bucket, cluster, fabric and nodes; read-only.",
        options=(*_PINNED, "run-name"),
        secrets=_HUB_AND_STORE,
        resources=resource_requests.whole_cluster,
        permissions=(
            PolicyRule(
                ("get",),
                "namespaces",
                "check that the serving namespace exists",
                names=lambda service: (service.namespace,),
            ),
            PolicyRule(("get",), "configmaps", "compare the code of the model with that of the release", names=_record),
            PolicyRule(("list",), "services", "check that the name of the Service is free"),
            replace(_RUN_READ, why="check that Argo understood the lock of this run"),
            PolicyRule(("list",), "resourcequotas", "check that the quotas admit the workers"),
            PolicyRule(("list",), "resourcequotas", "check that the quotas admit the scratch volume", scope="workflow"),
            PolicyRule(("list",), "nodes", "free GPUs, their memory, RDMA devices", scope="cluster"),
            PolicyRule(("list",), "pods", "GPUs that are taken", scope="cluster"),
            PolicyRule(("list",), "deployments", "find the operators, in any namespace", "apps", "cluster"),
            PolicyRule(("list",), "daemonsets", "find the CSI plugin, in any namespace", "apps", "cluster"),
            PolicyRule(
                ("get",),
                "csidrivers",
                "the OSS CSI driver",
                "storage.k8s.io",
                "cluster",
                names=lambda _: (OSS_DRIVER,),
            ),
            PolicyRule(
                ("list",),
                "erdmadevices",
                "RDMA interfaces of the nodes",
                "network.alibabacloud.com",
                "cluster",
                when=lambda service: service.serving.fabric == "erdma",
            ),
            PolicyRule(
                ("create",),
                "subjectaccessreviews",
                "check the permissions of the other steps' accounts, before hours of transfer",
                "authorization.k8s.io",
                "cluster",
            ),
        ),
        skippable=True,
        inherits=True,
    ),
    StepSpec(
        "create-scratch",
        "Claim the scratch volume of this run.",
        options=(*_PINNED, "run-name", "run-uid"),
        permissions=(
            PolicyRule(
                ("get", "create", "patch"),
                "persistentvolumeclaims",
                "the scratch volume of a run, named after the run",
                scope="workflow",
            ),
        ),
        skippable=True,
    ),
    _transfer_step(
        "download-model", "Copy the files from the hub to the scratch volume, verified.", "scratch", _HUB_AND_STORE
    ),
    _transfer_step(
        "upload-model",
        "Copy the files from the scratch volume to the bucket, verified, the manifest last.",
        "scratch",
        frozenset({Secret.STORE}),
    ),
    _transfer_step(
        "mirror-model",
        "Copy the files from the hub to the bucket in one stream, verified, the manifest last.",
        "shard",
        _HUB_AND_STORE,
    ),
    StepSpec(
        "verify-model",
        "Read the files in the bucket again and compare every byte.",
        _PINNED,
        _transfer,
        _TRANSFER_RETRIES,
        secrets=frozenset({Secret.STORE}),
        resources=resource_requests.transfer,
    ),
    StepSpec(
        "create-volume",
        "Create Secret, volume and claim over the verified files.",
        _WRITER_OPTIONS,
        lambda service: service.volume.deadline_minutes,
        secrets=frozenset({Secret.STORE}),
        permissions=(
            PolicyRule(
                ("get", "create", "patch"),
                "secrets",
                "the key for the CSI driver; its value is compared, never shown",
                names=_volume_secret,
                when=_has_key,
            ),
            PolicyRule(("get", "create", "patch"), "persistentvolumeclaims", "the claim over the model"),
            PolicyRule(
                ("get", "create", "patch", "delete"),
                "persistentvolumes",
                "the volume over the model; a volume without its claim is created again",
                scope="cluster",
            ),
            _RECORD_READ,
            *_WRITER,
        ),
        writes=True,
        skippable=True,
        inherits=True,
    ),
    StepSpec(
        "roll-out-service",
        "Start the release and wait until its own pods are ready.",
        _WRITER_OPTIONS,
        _rollout,
        permissions=(
            _RECORD_READ,
            PolicyRule(
                ("get", "list", "create", "patch", "delete"), "rolebasedgroups", "the group of the release", RBG
            ),
            PolicyRule(("get", "create", "patch"), "services", "the Service of this release alone"),
            PolicyRule(
                ("get",),
                "persistentvolumeclaims",
                "check that the claim over the model is Bound before pods start or stop",
            ),
            *_GROUP_READ,
            *_WRITER,
            *_GPU_TAKER,
        ),
        writes=True,
        skippable=True,
        inherits=True,
    ),
    StepSpec(
        "smoke-test",
        "Prove the release by real inference: right model, right answers, KV cache moved on every pair.",
        _PINNED,
        lambda service: service.proof.deadline_minutes,
        permissions=(
            PolicyRule(("list",), "pods", "find the workers"),
            PolicyRule(("get",), "services", "find the router"),
            _TRANSPORT_READ,
        ),
        skippable=True,
        inherits=True,
    ),
    StepSpec(
        "promote-release",
        "Move the traffic to the proved release, record it, delete old ones.",
        options=(*_WRITER_OPTIONS, "proved-release"),
        permissions=(
            PolicyRule(("get", "create", "patch"), "configmaps", "record the release", names=_record),
            PolicyRule(("create", "patch"), "services", "move the traffic", names=_traffic),
            PolicyRule(("get", "list", "delete"), "services", "delete those of older releases"),
            PolicyRule(("get", "list", "delete"), "rolebasedgroups", "delete those of older releases", RBG),
            PolicyRule(
                ("get", "list", "delete"), "persistentvolumeclaims", "delete those that no recorded release needs"
            ),
            PolicyRule(
                ("get", "list", "delete"),
                "persistentvolumes",
                "delete those that no recorded release needs",
                scope="cluster",
            ),
            *_GROUP_READ,
            *_WRITER,
        ),
        writes=True,
        skippable=True,
        inherits=True,
    ),
    # The exit handler. Argo retries nothing in a run that was stopped or is past its deadline, so these two observe
    # again for minutes themselves, and nothing optional may keep a pod of them from starting.
    # https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/operator.go (processNodeRetries)
    StepSpec(
        "roll-back",
        "Restore the recorded release, remove the one that failed.",
        _AT_EXIT,
        _rollout,  # it may restore the recorded release, and waits until that is ready
        retries=0,
        no_answer_seconds=600.0,
        permissions=(
            _RECORD_READ,
            PolicyRule(
                ("get", "list", "create", "patch", "delete"),
                "services",
                "restore those of the recorded release, delete those of a failed one",
            ),
            PolicyRule(
                ("get", "list", "create", "patch", "delete"),
                "rolebasedgroups",
                "restore the recorded release, delete a failed one",
                RBG,
            ),
            *_GROUP_READ,
            *_WRITER,
        ),
        writes=True,
    ),
    StepSpec(
        "report-run",
        "Notify people of the result of the run.",
        options=_AT_EXIT,
        retries=0,
        no_answer_seconds=240.0,
        secrets=frozenset({Secret.NOTIFICATIONS}),
        permissions=(
            replace(_RECORD_READ, explains=True),
            _RUN_READ,
            PolicyRule(
                ("get", "delete"),
                "persistentvolumeclaims",
                "delete the scratch volume that no Retry needs",
                scope="workflow",
            ),
            PolicyRule(
                ("list", "delete"),
                "pods",
                "delete the pods of the transfer that have ended, which would keep that volume",
                scope="workflow",
            ),
        ),
    ),
)

CATALOGUE: Mapping[str, StepSpec] = {spec.name: spec for spec in _ENTRIES}


def rules(step: str, service: ModelService) -> tuple[PolicyRule, ...]:
    """The rules of a step for this document."""
    return tuple(rule for rule in CATALOGUE[step].permissions if rule.when(service))


def cluster_rules(step: str) -> tuple[PolicyRule, ...]:
    """The rules without a namespace, for any document: services of one workflow namespace share these roles."""
    return tuple(rule for rule in CATALOGUE[step].permissions if rule.scope == "cluster")


def permissions_of_accounts(service: ModelService) -> tuple[Permission, ...]:
    """The permissions of the account of each step, for a run in the cluster."""
    return tuple(
        permission
        for step in CATALOGUE
        for rule in (*rules(step, service), EXECUTOR)
        for permission in permissions(rule, service, user(step, service))
    )


def permissions_of_one_account(service: ModelService) -> tuple[Permission, ...]:
    """The permissions of one account that runs all steps from outside of the cluster, as on a laptop."""
    return tuple(dict.fromkeys(_permissions_of_one_account(service)))


def _permissions_of_one_account(service: ModelService) -> Iterator[Permission]:
    for rule in (*(rule for step in CATALOGUE for rule in rules(step, service)), *LAPTOP):
        if rule.resource != "subjectaccessreviews":  # needed only where the steps have accounts of their own
            yield from permissions(rule, service)
