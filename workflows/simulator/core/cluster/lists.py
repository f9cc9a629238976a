"""Lists: selectors, pages and their metadata.

https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workflows.simulator.core.cluster.errors import bad_request
from workflows.simulator.core.cluster.labels import Selector
from workflows.simulator.core.cluster.resources import EVENTS, NAMESPACES, PODS, SECRETS, Resource
from workflows.simulator.core.cluster.store import ClusterStore, Manifest

# https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/#supported-fields
_FIELDS: Mapping[tuple[str, str], frozenset[str]] = {
    EVENTS.key: frozenset(
        {
            *("involvedObject.kind", "involvedObject.name", "involvedObject.namespace", "involvedObject.uid"),
            *("reason", "type"),
        }
    ),
    NAMESPACES.key: frozenset({"status.phase"}),
    PODS.key: frozenset({"spec.nodeName", "spec.restartPolicy", "status.phase", "status.podIP"}),
    SECRETS.key: frozenset({"type"}),
}
_EVERYWHERE = frozenset({"metadata.name", "metadata.namespace"})


@dataclass(frozen=True)
class Filter:
    """Which objects of a collection a list or a watch is about."""

    resource: Resource
    namespace: str
    labels: Selector
    fields: tuple[tuple[str, bool, str], ...]  # path, wanted, value

    @classmethod
    def of(cls, resource: Resource, namespace: str, query: Mapping[str, str]) -> "Filter":
        """Raises ApiError 400 for a selector that cannot be read."""
        return cls(
            resource,
            namespace,
            Selector.parse(query.get("labelSelector", "")),
            tuple(_field(resource, part) for part in query.get("fieldSelector", "").split(",") if part),
        )

    def matches(self, content: Manifest) -> bool:
        metadata = content["metadata"]
        return (
            self.namespace in ("", metadata.get("namespace", ""))
            and self.labels.matches(metadata.get("labels"))
            and all((_at(content, path) == value) == wanted for path, wanted, value in self.fields)
        )


def listing(store: ClusterStore, chosen: Filter, query: Mapping[str, str]) -> dict[str, Any]:
    """One page of a collection, as a `…List` object."""
    limit = int(query.get("limit") or 0)
    start = _start(query.get("continue", ""))
    with store.exclusive():
        revision = store.revision
        found = [one for one in store.select(chosen.resource, chosen.namespace, chosen.labels) if chosen.matches(one)]
    rest = [one for one in found if _place(one) > start]
    page = rest[:limit] if limit else rest
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if len(page) < len(rest):
        metadata["continue"] = _token(_place(page[-1]))
        metadata["remainingItemCount"] = len(rest) - len(page)
    custom = store.registry.schema(chosen.resource) is not None
    return {
        "kind": f"{chosen.resource.kind}List",
        "apiVersion": chosen.resource.api_version,
        "metadata": metadata,
        # Items of built-in kinds have neither apiVersion nor kind.
        "items": page
        if custom
        else [{k: v for k, v in one.items() if k not in ("apiVersion", "kind")} for one in page],
    }


def _field(resource: Resource, part: str) -> tuple[str, bool, str]:
    path, sign, value = part.partition("!=") if "!=" in part else part.replace("==", "=").partition("=")
    known = _EVERYWHERE | _FIELDS.get(resource.key, frozenset())
    if not sign or path not in known:
        names = ", ".join(f'"{name}"' for name in sorted(known))
        raise bad_request(f'"{path}" is not a known field selector: only {names}')
    return path, sign != "!=", value


def _at(content: Any, path: str) -> str:
    for key in path.split("."):
        content = (content or {}).get(key)
    return "" if content is None else str(content)


def _place(content: Manifest) -> tuple[str, str]:
    return content["metadata"].get("namespace", ""), content["metadata"]["name"]


def _token(place: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _start(token: str) -> tuple[str, str]:
    if not token:
        return "", ""
    try:
        namespace, name = json.loads(base64.urlsafe_b64decode(token))
    except ValueError as error:
        raise bad_request("continue key is not valid") from error
    return namespace, name
