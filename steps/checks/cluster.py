"""The namespace, the permissions, and the components that Slipway does not install: RBG and the OSS CSI driver."""

from collections.abc import Iterable

from steps.checks.facts import Objects, PlatformFacts
from steps.checks.findings import Fail, Finding, Pass, Pending, Refusal
from steps.kinds import OSS_DRIVER, SERVICE_LABEL, Manifest
from steps.release import Release

RBG_OPERATOR = "rbgs-controller-manager"
CSI_PLUGIN = "csi-plugin"


def namespace(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    name = release.service.namespace
    if isinstance(facts.namespace, Refusal):
        return (Fail(facts.namespace.reason, f"permission to read namespace {name}"),)
    if facts.namespace is None:
        return (Fail(f"no namespace {name}", f"namespace {name}"),)
    if facts.namespace.get("status", {}).get("phase") == "Terminating":
        return (Fail(f"namespace {name} is being deleted", "a namespace that stays"),)
    return (Pass(f"namespace {name} exists"),)


def rbg_api(_release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    if isinstance(facts.rbg_versions, Refusal):
        return (Fail(facts.rbg_versions.reason, "the served versions of RoleBasedGroup"),)
    if not facts.rbg_versions:
        return (Fail("no RoleBasedGroup API", "workloads.x-k8s.io/v1alpha1 or v1alpha2"),)
    return (Pass(f"RoleBasedGroup is served as {', '.join(facts.rbg_versions)}"),)


def rbg_operator(_release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    return deployment_available(RBG_OPERATOR, facts.deployments)


def csi_driver(_release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    if isinstance(facts.csi_driver, Refusal):
        return (Fail(facts.csi_driver.reason, f"permission to read CSIDriver {OSS_DRIVER}"),)
    if facts.csi_driver is None:
        return (Fail(f"no CSIDriver {OSS_DRIVER}", "the OSS CSI driver"),)
    return (Pass(f"CSIDriver {OSS_DRIVER} is registered"),)


def csi_plugin(_release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    if isinstance(facts.daemon_sets, Refusal):
        return (Fail(facts.daemon_sets.reason, "permission to list DaemonSets"),)
    found = _named(CSI_PLUGIN, facts.daemon_sets)
    if found is None:
        return (Fail(f"no DaemonSet {CSI_PLUGIN} in any namespace", "the CSI plugin on every node"),)
    status = found.get("status", {})
    ready, wanted = status.get("numberReady", 0), status.get("desiredNumberScheduled", 0)
    if ready < wanted:
        return (Pending(f"DaemonSet {CSI_PLUGIN} is ready on {ready} of {wanted} nodes"),)
    return (Pass(f"DaemonSet {CSI_PLUGIN} is ready on {ready} nodes"),)


def permissions(_release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    denied = [str(right) for right, allowed in facts.rights.items() if not allowed]
    if denied:
        return tuple(Fail("a denial by the API server", f"permission to {right}") for right in denied)
    return (Pass(f"all {len(facts.rights)} permissions are granted"),)


def service_names(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """The Service for clients is free or of this document, and none has a name that the RBG operator would adopt."""
    if isinstance(facts.services, Refusal):
        return (Fail(facts.services.reason, f"permission to list Services in {release.service.namespace}"),)
    traffic = release.service.endpoint.service
    found = _named(traffic, facts.services)
    findings: list[Finding] = []
    if found and found["metadata"].get("labels", {}).get(SERVICE_LABEL) != release.service.name:
        findings.append(
            Fail(
                f"a Service {traffic} of another owner",
                f"a free name, or the label {SERVICE_LABEL}: {release.service.name}",
            )
        )
    findings += (
        Fail(f"a Service {release.group}-{role}", "no such Service: the RBG operator would adopt it")
        for role in release.replicas
        if _named(f"{release.group}-{role}", facts.services) and not _is_headless(release, role, facts.services)
    )
    return tuple(findings) or (Pass(f"the Service name {traffic} is free, or of this document"),)


def deployment_available(name: str, deployments: Objects | Refusal) -> tuple[Finding, ...]:
    """At least one replica serves; the namespace differs between installations, so all are searched."""
    if isinstance(deployments, Refusal):
        return (Fail(deployments.reason, "permission to list Deployments"),)
    found = _named(name, deployments)
    if found is None:
        return (Fail(f"no Deployment {name} in any namespace", f"{name} with a ready replica"),)
    where = f"{found['metadata']['namespace']}/{name}"
    available = found.get("status", {}).get("availableReplicas", 0)
    wanted = found["spec"].get("replicas", 1)
    if wanted == 0:
        return (Fail(f"Deployment {where} scaled to 0", "at least one replica"),)
    if not available:
        return (Pending(f"Deployment {where} has 0 of {wanted} replicas available"),)
    return (Pass(f"Deployment {where} has {available} of {wanted} replicas available"),)


def _named(name: str, objects: Iterable[Manifest]) -> Manifest | None:
    return next((item for item in objects if item["metadata"]["name"] == name), None)


def _is_headless(release: Release, role: str, services: Iterable[Manifest]) -> bool:
    """Operators before v0.5 create a headless Service of that name themselves."""
    found = _named(f"{release.group}-{role}", services)
    owners = found["metadata"].get("ownerReferences", ()) if found else ()
    return any(owner["kind"] in ("RoleBasedGroup", "StatefulSet") for owner in owners)
