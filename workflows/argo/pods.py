"""The pod of each step: deadline, environment, security context, volumes and resources."""

from collections.abc import Iterator
from dataclasses import dataclass

from hera.workflows import EmptyDirVolume, ExistingVolume, Resources, SecretEnv
from hera.workflows import models as m

from steps.catalogue import CATALOGUE, Secret
from steps.document.schema import ModelService, SecretKey
from steps.kinds import ACCESS_KEY_ID, ACCESS_KEY_SECRET, HUB_TOKEN, NOTIFICATION, SESSION_TOKEN
from steps.objects.scratch_claim import claim_name
from workflows.pipeline import Places, Task

PLACES = Places(document="/service/service.yaml", outputs="/tmp/outputs", scratch="/scratch")  # noqa: S108  # a volume of the pod's own
RUN_NAME = "{{workflow.name}}"
SCRATCH = "scratch"
SECURITY_CONTEXT = m.SecurityContext(
    allow_privilege_escalation=False,
    capabilities=m.Capabilities(drop=["ALL"]),
    read_only_root_filesystem=True,
    run_as_non_root=True,
)
# The claim that create-scratch makes. Argo fills the name in as it does in the rest of a template.
_SCRATCH_VOLUME = ExistingVolume(name=SCRATCH, mount_path=PLACES.scratch, claim_name=claim_name(RUN_NAME))
# Longer than the step's own deadline, so that the step ends itself with a reason before the kubelet ends its pod
# without one. The kubelet counts from the moment it accepts the pod, so the pull of the image is in it.
MARGIN_MINUTES = 10


@dataclass(frozen=True)
class SecretVariable:
    """One environment variable that comes from a Secret in the namespace of the workflow."""

    name: str
    source: SecretKey
    optional: bool = False


def deadline_seconds(step: str, service: ModelService) -> int:
    """When the kubelet ends one attempt of the step."""
    return 60 * (CATALOGUE[step].deadline_minutes(service) + MARGIN_MINUTES)


def environment(step: str, service: ModelService) -> list[SecretEnv]:
    return [
        SecretEnv(
            name=variable.name,
            secret_name=variable.source.secret,
            secret_key=variable.source.key,
            optional=variable.optional or None,
        )
        for variable in secret_variables(step, service)
    ]


def volumes(task: Task) -> list[EmptyDirVolume | ExistingVolume]:
    return [
        EmptyDirVolume(name="tmp", mount_path="/tmp"),  # noqa: S108  # a volume of the pod's own
        *([_SCRATCH_VOLUME] if "scratch" in task.spec.options else ()),
    ]


def resources(step: str, service: ModelService) -> Resources:
    asked = CATALOGUE[step].resources(service)
    memory = f"{asked.memory_mebibytes}Mi"
    return Resources(cpu_request=asked.cpu, memory_request=memory, memory_limit=memory)


def secret_variables(step: str, service: ModelService) -> tuple[SecretVariable, ...]:
    """The variables of the Secrets that the catalogue and the document name."""
    return tuple(_secret_variables(CATALOGUE[step].secrets, service))


def _secret_variables(secrets: frozenset[Secret], service: ModelService) -> Iterator[SecretVariable]:
    if Secret.HUB in secrets and service.model.token:
        yield SecretVariable(HUB_TOKEN, service.model.token)
    if Secret.STORE in secrets and service.store.credentials.secret:
        yield from _access_key(service.store.credentials.secret)
    if Secret.NOTIFICATIONS in secrets:
        # Optional: without its Secret the pod would not start and hold the run open. The step reports the absence.
        yield from (
            SecretVariable(NOTIFICATION.format(index=index), target, optional=True)
            for index, target in enumerate(service.notifications)
        )


def _access_key(secret: str) -> tuple[SecretVariable, ...]:
    return (
        SecretVariable(ACCESS_KEY_ID, SecretKey(secret=secret, key="akId")),
        SecretVariable(ACCESS_KEY_SECRET, SecretKey(secret=secret, key="akSecret")),
        SecretVariable(SESSION_TOKEN, SecretKey(secret=secret, key="securityToken"), optional=True),
    )
