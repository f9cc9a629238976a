"""Which object or collection a path of the API names."""

from dataclasses import dataclass
from urllib.parse import unquote

from workflows.simulator.core.cluster.errors import ApiError
from workflows.simulator.core.cluster.resources import KindRegistry, Resource


@dataclass(frozen=True)
class Target:
    resource: Resource
    namespace: str = ""
    name: str = ""  # empty: the collection
    subresource: str = ""

    @property
    def rule(self) -> str:
        """The resource as RBAC rules write it, `pods` or `pods/log`."""
        return self.resource.plural + (f"/{self.subresource}" if self.subresource else "")


def unknown() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def find(registry: KindRegistry, path: str) -> Target | None:
    """What `/api/v1/...` or `/apis/GROUP/VERSION/...` names; None if no such group and version is served.

    Raises ApiError 404 for an unknown resource of a group that is served.
    """
    parts = [unquote(part) for part in path.split("/")[1:]]
    if parts[0] == "api":
        group, version, rest = "", parts[1] if len(parts) > 1 else "", parts[2:]
    else:
        group, version, rest = parts[1], parts[2], parts[3:]
    if not any((one.group, one.version) == (group, version) for one in registry.all()):
        return None
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and registry.find(group, version, rest[2]):  # noqa: PLR2004  # a path
        namespace, rest = rest[1], rest[2:]
    resource = registry.find(group, version, rest[0]) if rest else None
    if resource is None or (namespace and not resource.namespaced):
        raise unknown()
    name, subresource, *_ = (*rest[1:], "", "")
    if name and resource.namespaced and not namespace:
        raise unknown()
    return Target(resource, namespace, name, subresource)
