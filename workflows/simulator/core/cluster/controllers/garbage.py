"""Removes objects without a living owner.

https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from workflows.simulator.core.cluster.controllers.view import ClusterView, is_going
from workflows.simulator.core.cluster.resources import (
    CUSTOM_RESOURCE_DEFINITIONS,
    EVENTS,
    NAMESPACES,
    REVIEWS,
    Resource,
)
from workflows.simulator.core.cluster.store import Manifest

_FOREGROUND = "foregroundDeletion"
_ORPHAN = "orphan"

Found = tuple[Resource, Manifest]


class GarbageCollector:
    def __init__(self) -> None:
        self._seen = -1

    def reconcile(self, view: ClusterView) -> float | None:
        revision = view.store.revision
        if revision == self._seen:
            return None
        found = [(resource, one) for resource in _resources(view) for one in view.all(resource)]
        living = {one["metadata"]["uid"] for _, one in found}
        for resource, one in found:
            references = one["metadata"].get("ownerReferences") or []
            if references and not any(reference["uid"] in living for reference in references) and not is_going(one):
                view.delete(resource, one)
        for resource, one in found:
            if is_going(one):
                _finish(view, resource, one, found)
        # Changes of this turn are read in the next one.
        self._seen = revision
        return None


def _resources(view: ClusterView) -> list[Resource]:
    """Each kind once, in one of its served versions."""
    skipped = {EVENTS.key, *(review.key for review in REVIEWS), CUSTOM_RESOURCE_DEFINITIONS.key}
    by_key = {resource.key: resource for resource in view.store.registry.all()}
    return [resource for key, resource in by_key.items() if key not in skipped]


def _finish(view: ClusterView, resource: Resource, one: Manifest, found: list[Found]) -> None:
    if resource == NAMESPACES:
        _empty(view, one, found)
        return
    finalizers = one["metadata"].get("finalizers") or []
    dependants = [item for item in found if one["metadata"]["uid"] in _owners(item[1])]
    if _ORPHAN in finalizers:
        for kind, dependant in dependants:
            kept = [each for each in dependant["metadata"]["ownerReferences"] if each["uid"] != one["metadata"]["uid"]]
            view.write(kind, {**dependant, "metadata": {**dependant["metadata"], "ownerReferences": kept}})
        _remove_finalizer(view, resource, one, _ORPHAN)
    elif _FOREGROUND in finalizers:
        for kind, dependant in dependants:
            if not is_going(dependant):
                view.delete(kind, dependant)
        if not dependants:
            _remove_finalizer(view, resource, one, _FOREGROUND)


def _empty(view: ClusterView, namespace: Manifest, found: list[Found]) -> None:
    name = namespace["metadata"]["name"]
    content = [item for item in found if item[1]["metadata"].get("namespace") == name]
    for resource, one in content:
        if not is_going(one):
            view.delete(resource, one)
    if not content:
        for event in view.all(EVENTS, name):
            view.delete(EVENTS, event)
        view.write(NAMESPACES, {**namespace, "spec": {**namespace.get("spec", {}), "finalizers": []}})


def _owners(one: Manifest) -> set[str]:
    return {reference["uid"] for reference in one["metadata"].get("ownerReferences") or []}


def _remove_finalizer(view: ClusterView, resource: Resource, one: Manifest, finalizer: str) -> None:
    kept = [each for each in one["metadata"]["finalizers"] if each != finalizer]
    view.write(resource, {**one, "metadata": {**one["metadata"], "finalizers": kept}})
