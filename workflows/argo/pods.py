"""Deadline and environment of the pod of each step, from its entry in the catalogue."""

from collections.abc import Iterator
from dataclasses import dataclass

from steps.catalogue import CATALOGUE, Secret
from steps.document.schema import ModelService, SecretKey
from steps.kinds import ACCESS_KEY_ID, ACCESS_KEY_SECRET, HUB_TOKEN, NOTIFICATION, SESSION_TOKEN

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
