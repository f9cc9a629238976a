"""Workers and router of a release as HTTP servers."""

from collections.abc import Iterable
from dataclasses import dataclass

from steps.kinds import Manifest
from steps.objects.group import WORKERS
from steps.objects.metadata import being_deleted
from steps.objects.pod_status import name_of, role_of
from steps.objects.services import release_service_ref
from steps.ports.sglang import Server
from steps.release import Release


@dataclass(frozen=True)
class WorkerEndpoint:
    """One worker pod."""

    name: str  # short: `prefill-0`
    role: str  # "prefill" or "decode"
    uid: str
    pod: str
    container: str
    http: Server
    bootstrap: Server


def workers(release: Release, pods: Iterable[Manifest]) -> tuple[WorkerEndpoint, ...]:
    """Workers with an address that are not being deleted, by name."""
    there = (pod for pod in pods if role_of(pod) in WORKERS and not being_deleted(pod) and _address(pod))
    return tuple(sorted((_endpoint(release, pod) for pod in there), key=lambda endpoint: endpoint.name))


def missing(release: Release, endpoints: Iterable[WorkerEndpoint]) -> list[str]:
    """Workers that are not there yet, one line for each role."""
    roles = [endpoint.role for endpoint in endpoints]
    return [
        f"{role} pods with an address: {roles.count(role)} of {release.replicas[role]}"
        for role in WORKERS
        if roles.count(role) != release.replicas[role]
    ]


def router(release: Release) -> Server:
    """The Service of this release alone, independent of the traffic."""
    ref = release_service_ref(release)
    host = f"{ref.name}.{ref.namespace}.svc"
    return Server("services", ref.namespace, ref.name, release.service.serving.ports.http, host)


def _endpoint(release: Release, pod: Manifest) -> WorkerEndpoint:
    serving, name = release.service.serving, name_of(pod)
    namespace = pod["metadata"]["namespace"]
    return WorkerEndpoint(
        name=name.removeprefix(f"{release.group}-"),
        role=role_of(pod),
        uid=pod["metadata"]["uid"],
        pod=name,
        container=pod["spec"]["containers"][0]["name"],
        http=Server("pods", namespace, name, serving.ports.http, _address(pod)),
        bootstrap=Server("pods", namespace, name, serving.ports.bootstrap, _address(pod)),
    )


def _address(pod: Manifest) -> str:
    return str((pod.get("status") or {}).get("podIP") or "")
