"""The two Services of a release: its own, and the one that clients use."""

from typing import Any

from steps.document.schema import ModelService
from steps.kinds import RELEASE_LABEL, ROLE_LABEL, SERVICE, SERVICE_LABEL, Manifest, Ref
from steps.objects.group import ROUTER
from steps.objects.metadata import owned_metadata
from steps.release import Release


def release_service_ref(release: Release) -> Ref:
    return Ref(SERVICE, release.group, release.service.namespace)


def traffic_service_ref(service: ModelService) -> Ref:
    return Ref(SERVICE, service.endpoint.service, service.namespace)


def release_service(release: Release) -> Manifest:
    """Selects the routers of this release, independent of the traffic: a candidate is proved through it."""
    port = release.service.serving.ports.http
    return _service(release, release_service_ref(release), port, {RELEASE_LABEL: release.id})


def traffic_service(release: Release) -> Manifest:
    """Selects the routers of the release that takes the traffic; the selector moves, so no label names a release."""
    endpoint = release.service.endpoint
    found = _service(release, traffic_service_ref(release.service), endpoint.port, {})
    annotations = {**release.service.metadata.annotations, **endpoint.annotations}
    return {**found, "metadata": {**found["metadata"], **({"annotations": annotations} if annotations else {})}}


def serving_release(traffic: Manifest | None) -> str:
    """Id of the release that takes the traffic; empty without one."""
    return str(((traffic or {}).get("spec", {}).get("selector") or {}).get(RELEASE_LABEL, ""))


def _service(release: Release, ref: Ref, port: int, labels: dict[str, str]) -> Manifest:
    target = release.service.serving.ports.http
    http: dict[str, Any] = {"name": "http", "port": port, "protocol": "TCP", "targetPort": target}
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
