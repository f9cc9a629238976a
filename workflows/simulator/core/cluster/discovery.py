"""The discovery documents of the API. https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api"""

from typing import Any

from workflows.simulator.core.cluster.resources import PODS, REVIEWS, SERVICES, KindRegistry, Resource

VERSION = {
    "major": "1",
    "minor": "34",
    "gitVersion": "v1.34.0+slipway-embedded",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2025-08-27T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "linux/amd64",
}
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def document(registry: KindRegistry, path: str) -> dict[str, Any] | None:
    """The discovery document at `path`; None if there is none."""
    parts = [part for part in path.split("/") if part]
    fixed: dict[tuple[str, ...], dict[str, Any]] = {
        ("version",): VERSION,
        ("api",): _core_versions(),
        ("apis",): _group_list(registry),
    }
    if tuple(parts) in fixed:
        return fixed[tuple(parts)]
    if parts == ["api", "v1"]:
        return _resource_list(registry, "", "v1")
    if parts[0] == "apis" and len(parts) == 2:  # noqa: PLR2004  # /apis/GROUP
        return _group(registry, parts[1])
    if parts[0] == "apis" and len(parts) == 3:  # noqa: PLR2004  # /apis/GROUP/VERSION
        return _resource_list(registry, parts[1], parts[2])
    return None


def _core_versions() -> dict[str, Any]:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def _group_list(registry: KindRegistry) -> dict[str, Any]:
    names = dict.fromkeys(resource.group for resource in registry.all() if resource.group)
    groups = [_group(registry, name) for name in names]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def _group(registry: KindRegistry, name: str) -> dict[str, Any] | None:
    served = dict.fromkeys(resource.version for resource in registry.all() if resource.group == name)
    if not name or not served:
        return None
    # The preferred version is the highest: v1, then v1beta1, then v1alpha2, then v1alpha1.
    versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in sorted(served, key=_rank)]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def _rank(version: str) -> tuple[int, str]:
    stage = 2 if "alpha" in version else 1 if "beta" in version else 0
    return stage, "".join(chr(255 - ord(letter)) for letter in version)


def _resource_list(registry: KindRegistry, group: str, version: str) -> dict[str, Any] | None:
    served = [one for one in registry.all() if (one.group, one.version) == (group, version)]
    if not served:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [entry for resource in served for entry in _entries(resource)],
    }


def _entries(resource: Resource) -> list[dict[str, Any]]:
    entry = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": ["create"] if resource in REVIEWS else _VERBS,
    }
    below = {
        name: {"group": "autoscaling", "version": "v1", "kind": "Scale"} if name == "scale" else {"kind": resource.kind}
        for name in resource.subresources
    }
    if resource == PODS:
        below["log"] = {"kind": "Pod"}
    if resource in (PODS, SERVICES):
        below["proxy"] = {"kind": "PodProxyOptions" if resource == PODS else "ServiceProxyOptions"}
    return [
        entry,
        *(
            {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "verbs": ["get", "patch", "update"],
                **kind,
            }
            for name, kind in below.items()
        ),
    ]
