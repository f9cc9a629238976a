"""The two Services of a release: one that leads to it alone, and the one that clients use."""

from typing import Any

from steps.objects.kinds import SERVICE, is_ours, owned_metadata
from steps.objects.role_based_group import ROUTER
from steps.ports import Manifest, Ref
from steps.release import RELEASE_LABEL, ROLE_LABEL, SERVICE_LABEL, Release
from steps.service import ModelService


def release_service_ref(release: Release) -> Ref:
    return Ref(SERVICE, release.group, release.service.namespace)


def traffic_service_ref(service: ModelService) -> Ref:
    return Ref(SERVICE, service.serving.service_name, service.namespace)


def release_service(release: Release) -> Manifest:
    """Leads to the router of this release, whatever takes the traffic: a candidate is proved through it."""
    return _service(release, release_service_ref(release), {RELEASE_LABEL: release.id})


def traffic_service(release: Release) -> Manifest:
    """Leads to the router of the release that takes the traffic; its selector moves, so no label names a release."""
    return _service(release, traffic_service_ref(release.service), {})


def serving_release(traffic: Manifest | None) -> str:
    """Id of the release that the traffic goes to now; empty if there is none."""
    return str(((traffic or {}).get("spec", {}).get("selector") or {}).get(RELEASE_LABEL, ""))


def foreign_owner(service: ModelService, live: Manifest | None) -> str:
    """Why an object of this name may not be touched; empty if it is absent or ours."""
    if live is None or is_ours(live, service):
        return ""
    ref = Ref.of(live)
    found = (live["metadata"].get("labels") or {}).get(SERVICE_LABEL)
    owner = f"it belongs to {found}" if found else "it was not made by Slipway"
    return (
        f"{ref} exists and {owner}: label {SERVICE_LABEL} is {found or 'absent'}, expected {service.name}. "
        f"Next: choose another name in the document, or hand it over: kubectl label --overwrite "
        f"{ref.kind.kind.lower()} {ref.name} -n {ref.namespace} {SERVICE_LABEL}={service.name}"
    )


def _service(release: Release, ref: Ref, labels: dict[str, str]) -> Manifest:
    port = release.service.serving.port
    http: dict[str, Any] = {"name": "http", "port": port, "protocol": "TCP", "targetPort": port}
    return {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.kind,
        "metadata": owned_metadata(release.service, ref.name, ref.namespace, labels),
        "spec": {
            "type": "ClusterIP",
            # Our own labels: the domain of the operator's labels changed between its releases.
            "selector": {SERVICE_LABEL: release.service.name, RELEASE_LABEL: release.id, ROLE_LABEL: ROUTER},
            "ports": [http],
        },
    }
