"""What the pod of each step needs on the cluster, as a table: time, credentials, memory, attempts, an account."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from steps.document.schema import ModelService, SecretKey

# Longer than the step's own deadline, so that the step ends itself with a reason before the kubelet ends its pod
# without one. The kubelet counts from the moment it accepts the pod, so the pull of the image is in it.
MARGIN_MINUTES = 10
LIGHT_MINUTES = 15  # for steps whose deadline is not in the document


@dataclass(frozen=True)
class SecretVariable:
    """One environment variable that comes from a Secret in the namespace of the workflow."""

    name: str
    source: SecretKey
    optional: bool = False


@dataclass(frozen=True)
class Pod:
    minutes: Callable[[ModelService], int]  # the step's own deadline
    retries: int = 3  # by Argo, after the first attempt
    hub: bool = False  # reads the model at the hub
    store: bool = False  # reads or writes the bucket, or hands its key to the CSI driver
    webhook: bool = False


def _light(_service: ModelService) -> int:
    return LIGHT_MINUTES


def _transfer(service: ModelService) -> int:
    return service.transfer.deadline_minutes


def _rollout(service: ModelService) -> int:
    return service.rollout.deadline_minutes


# A transfer keeps what it moved, so another attempt is cheap and a hub that is down for half an hour is survived.
_FROM_SCRATCH = Pod(_transfer, retries=5, store=True)
_FROM_HUB = replace(_FROM_SCRATCH, hub=True)

PODS: Mapping[str, Pod] = {
    "resolve-model": Pod(_light, hub=True),
    "check-release": Pod(_light, hub=True, store=True),
    "check-platform": Pod(_light, hub=True, store=True),
    "download-model": _FROM_HUB,
    "upload-model": _FROM_SCRATCH,
    "mirror-model": _FROM_HUB,
    "verify-model": _FROM_SCRATCH,
    "create-scratch": Pod(_light),
    "create-volume": Pod(lambda service: service.volume.deadline_minutes, store=True),
    "roll-out-service": Pod(_rollout),
    "smoke-test": Pod(lambda service: service.proof.deadline_minutes),
    "promote-release": Pod(_light),
    # The exit handler. A step of it asks again itself for minutes: whatever Argo might try again, it does not in a run
    # that was stopped or is past its deadline, and nothing that is optional may keep a pod of it from starting.
    "roll-back": Pod(_rollout, retries=0),  # may put the recorded release back, and waits until it serves
    "report-run": Pod(_light, retries=0, webhook=True),
}


def deadline_seconds(step: str, service: ModelService) -> int:
    """When the kubelet ends one attempt of the step."""
    return 60 * (PODS[step].minutes(service) + MARGIN_MINUTES)


def secret_variables(step: str, service: ModelService) -> tuple[SecretVariable, ...]:
    """Only what this step needs; names of the variables as in `steps.wiring`."""
    pod = PODS[step]
    variables: list[SecretVariable] = []
    if pod.hub and service.model.token:
        variables.append(SecretVariable("MODELSCOPE_API_TOKEN", service.model.token))
    if pod.store and service.store.credentials.secret:
        variables += _access_key(service.store.credentials.secret)
    if pod.webhook:
        # Optional: without its Secret the pod would not start and hold the run open. The step reports it.
        variables += (
            SecretVariable(f"SLIPWAY_NOTIFICATION_{index}", target, optional=True)
            for index, target in enumerate(service.notifications)
        )
    return tuple(variables)


def _access_key(secret: str) -> tuple[SecretVariable, ...]:
    return (
        SecretVariable("OSS_ACCESS_KEY_ID", SecretKey(secret=secret, key="akId")),
        SecretVariable("OSS_ACCESS_KEY_SECRET", SecretKey(secret=secret, key="akSecret")),
        SecretVariable("OSS_SESSION_TOKEN", SecretKey(secret=secret, key="securityToken"), optional=True),
    )
