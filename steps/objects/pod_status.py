"""Status of a pod, for people."""

from collections.abc import Iterator
from typing import Any

from steps.kinds import HASH_LABEL, ROLE_LABEL, Manifest
from steps.objects.metadata import being_deleted, labels_of


def name_of(pod: Manifest) -> str:
    return str(pod["metadata"]["name"])


def role_of(pod: Manifest) -> str:
    return labels_of(pod).get(ROLE_LABEL, "")


def hash_of(pod: Manifest) -> str:
    return labels_of(pod).get(HASH_LABEL, "")


def condition(manifest: Manifest, kind: str) -> dict[str, Any]:
    """One condition of the status; empty if it is absent."""
    found = (manifest.get("status") or {}).get("conditions") or []
    return next((entry for entry in found if entry.get("type") == kind), {})


def is_ready(pod: Manifest) -> bool:
    """Ready and not being deleted."""
    return condition(pod, "Ready").get("status") == "True" and not being_deleted(pod)


def container_statuses(pod: Manifest) -> Iterator[dict[str, Any]]:
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def restarts(pod: Manifest) -> int:
    return sum(int(status.get("restartCount", 0)) for status in container_statuses(pod))


def waiting(status: dict[str, Any]) -> dict[str, Any]:
    """The waiting state of a container, with `reason` and `message`; empty if it runs or has ended."""
    found: dict[str, Any] = (status.get("state") or {}).get("waiting") or {}
    return found


def last_end(status: dict[str, Any]) -> dict[str, Any]:
    """The last termination of a container, with `exitCode`, `reason` and `message`; empty without one."""
    found: dict[str, Any] = (
        (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    )
    return found


def state(pod: Manifest) -> str:
    """`ContainerCreating`, `Pending: 0/3 nodes are available: …`, `Running but not Ready`, `Ready`."""
    if being_deleted(pod):
        return "Terminating"
    if is_ready(pod):
        return "Ready"
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', 'Pending')}: {scheduled.get('message', '')}".rstrip(": ")
    held = next((found for found in map(waiting, container_statuses(pod)) if found.get("reason")), {})
    if held:
        message = held.get("message", "")
        return f"{held['reason']} ({message})" if message else str(held["reason"])
    phase = (pod.get("status") or {}).get("phase", "Pending")
    count = restarts(pod)
    again = f", restarted {count} {'time' if count == 1 else 'times'}" if count else ""
    return f"Running but not Ready{again}" if phase == "Running" else f"{phase}{again}"
