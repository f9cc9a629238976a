"""Create, replace, patch, apply and delete, as the API server does them on behalf of a client."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from workflows.simulator.core.cluster.admission.admit import addressed, admit, undeclared
from workflows.simulator.core.cluster.errors import ApiError, Cause, bad_request, invalid, not_found, stale
from workflows.simulator.core.cluster.fields import patches
from workflows.simulator.core.cluster.fields.apply import apply
from workflows.simulator.core.cluster.fields.ownership import Owner
from workflows.simulator.core.cluster.resources import NAMESPACES, NODES, SERVICES
from workflows.simulator.core.cluster.scales import scale_of, scaled, scaling
from workflows.simulator.core.cluster.store import ClusterStore, Manifest, copied, now
from workflows.simulator.core.cluster.targets import Target, unknown

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
_FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
# Only a kubelet that registers its Node, and the namespace controller, start with a status of their own.
_KEEP_STATUS = frozenset({NODES.key, NAMESPACES.key})


@dataclass(frozen=True)
class Options:
    """The options in the query of a write."""

    manager: str = "unknown"
    named: bool = False  # with fieldManager in the query; server-side apply requires it
    dry_run: bool = False
    force: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str], user_agent: str) -> "Options":
        named = query.get("fieldManager", "")
        dry_run = query.get("dryRun", "")
        if dry_run not in ("", "All"):
            raise bad_request(f'Invalid value: "{dry_run}": dryRun: supported values: "All"')
        return cls(
            manager=named or user_agent.partition("/")[0] or "unknown",
            named=bool(named),
            dry_run=bool(dry_run),
            force=query.get("force", "").lower() == "true",
        )


class Writes:
    def __init__(self, store: ClusterStore) -> None:
        self._store = store

    def create(self, target: Target, sent: Any, options: Options) -> Manifest:
        resource = target.resource
        content = self._addressed(target, "", sent)
        metadata = content["metadata"]
        if metadata.pop("resourceVersion", None):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        for field in ("uid", "managedFields"):
            metadata.pop(field, None)
        if not metadata.get("name") and not metadata.get("generateName"):
            wrong = Cause("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")
            raise invalid(resource, "", [wrong])
        content = admit(self._store.registry, resource, self._without_status(target, content), None)
        return self._store.create(resource, content, manager=options.manager, dry_run=options.dry_run)

    def replace(self, target: Target, sent: Any, options: Options) -> Manifest:
        """PUT: absent fields are removed."""
        if target.subresource == "scale":
            with self._store.exclusive():
                return self._scale(target, self._live(target), sent, options)
        content = self._addressed(target, target.name, sent)
        with self._store.exclusive():
            live = self._live(target)
            blind = not content["metadata"].get("resourceVersion")
            if blind and (self._is_custom(target) or target.resource == SERVICES):
                wrong = Cause("metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update")
                raise invalid(target.resource, target.name, [wrong])
            return self._update(target, live, content, options, options.manager)

    def patch(self, target: Target, kind: str, body: bytes, options: Options) -> tuple[bool, Manifest]:
        """Returns whether the object is new, and the object."""
        if kind == APPLY:
            return self._apply(target, _parsed_yaml(body), options)
        change = parsed_json(body)
        with self._store.exclusive():
            live = self._live(target)
            if target.subresource == "scale":
                scale = self._patched(target, scale_of_or_empty(self._store, target, live), kind, change)
                return False, self._scale(target, live, scale, options)
            content = addressed(
                target.resource, target.namespace, target.name, self._patched(target, copied(live), kind, change)
            )
            if content["metadata"].get("uid") != live["metadata"]["uid"]:
                found = f'Invalid value: "{content["metadata"].get("uid")}": field is immutable'
                raise invalid(target.resource, target.name, [Cause("metadata.uid", found)])
            return False, self._update(target, live, content, options, options.manager)

    def delete(self, target: Target, sent: Mapping[str, Any], options: Options) -> tuple[bool, Manifest]:
        """Returns whether the object is gone, and the object as it was last."""
        resource, name, namespace = target.resource, target.name, target.namespace
        conditions = sent.get("preconditions") or {}
        dry_run = options.dry_run or "All" in (sent.get("dryRun") or ())
        with self._store.exclusive():
            live = self._live(target)
            uid = conditions.get("uid", "")
            revision = conditions.get("resourceVersion")
            if revision and revision != live["metadata"]["resourceVersion"]:
                raise stale(resource, name)
            finalizer = _FINALIZERS.get(sent.get("propagationPolicy", ""))
            matches = uid in ("", live["metadata"]["uid"])
            if finalizer and matches and not dry_run and "deletionTimestamp" not in live["metadata"]:
                held = {*live["metadata"].get("finalizers", []), finalizer}
                self._store.replace(resource, patches.merge(live, {"metadata": {"finalizers": sorted(held)}}))
            grace = sent.get("gracePeriodSeconds")
            last = self._store.delete(resource, name, namespace, uid=uid, grace=grace, dry_run=dry_run)
            return self._store.get(resource, name, namespace) is None, last

    def _apply(self, target: Target, sent: Any, options: Options) -> tuple[bool, Manifest]:
        store, resource = self._store, target.resource
        if not options.named:
            raise ApiError(
                422,
                "Invalid",
                'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
            )
        if not isinstance(sent, dict) or sent.get("apiVersion") != resource.api_version:
            found = sent.get("apiVersion", "") if isinstance(sent, dict) else ""
            raise bad_request(
                "Incorrect version specified in apply patch. "
                f"Specified patch version: {found}, expected: {resource.api_version}"
            )
        wanted = addressed(resource, target.namespace, target.name, sent)
        if wanted["metadata"].pop("managedFields", None):
            raise bad_request("metadata.managedFields must be nil")
        undeclared(store.registry, resource, wanted)
        wanted = wanted if target.subresource == "status" else self._without_status(target, wanted)
        shape = store.registry.shape(resource)
        applier = Owner(options.manager, "Apply", resource.api_version, target.subresource, now(), frozenset())
        with store.exclusive():
            live = store.get(resource, target.name, target.namespace)
            revision = wanted["metadata"].pop("resourceVersion", None)
            if live is None and target.subresource:
                raise not_found(resource, target.name)
            if revision and live and revision != live["metadata"]["resourceVersion"]:
                raise stale(resource, target.name)
            content = apply(copied(live) if live else None, wanted, shape, applier, force=options.force)
            if live:
                return False, self._update(target, live, content, options, "")
            content = admit(store.registry, resource, content, None)
            return True, store.create(resource, content, manager="", dry_run=options.dry_run)

    def _update(self, target: Target, live: Manifest, content: Manifest, options: Options, manager: str) -> Manifest:
        resource = target.resource
        if target.subresource == "status":
            content = {**live, "metadata": content["metadata"], "status": content.get("status", {})}
        elif "status" in resource.subresources:
            content = (
                {**content, "status": live["status"]} if "status" in live else self._without_status(target, content)
            )
        admitted = admit(self._store.registry, resource, copied(content), live)
        return self._store.replace(
            resource, admitted, subresource=target.subresource, manager=manager, dry_run=options.dry_run
        )

    def _scale(self, target: Target, live: Manifest, scale: Mapping[str, Any], options: Options) -> Manifest:
        where = scaling(self._store, target.resource)
        whole = Target(target.resource, target.namespace, target.name)
        written = self._update(whole, live, scaled(live, where, scale), options, options.manager)
        return scale_of(written, where)

    def _patched(self, target: Target, live: Any, kind: str, change: Any) -> Any:
        if kind == MERGE:
            return patches.merge(live, change)
        custom = self._is_custom(target)
        if kind == STRATEGIC and not custom:
            return patches.strategic(live, change, self._store.registry.shape(target.resource))
        accepted = [MERGE, *([] if custom else [STRATEGIC]), APPLY]
        raise ApiError(
            415,
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}",
        )

    def _addressed(self, target: Target, name: str, sent: Any) -> Manifest:
        if self._is_custom(target) and isinstance(sent, dict) and not (sent.get("kind") and sent.get("apiVersion")):
            raise bad_request(f"Object 'Kind' or 'apiVersion' is missing in a {target.resource.kind}")
        return addressed(target.resource, target.namespace, name, sent)

    def _is_custom(self, target: Target) -> bool:
        return self._store.registry.schema(target.resource) is not None

    def _live(self, target: Target) -> Manifest:
        if target.subresource and target.subresource not in target.resource.subresources:
            raise unknown()
        live = self._store.get(target.resource, target.name, target.namespace)
        if live is None:
            raise not_found(target.resource, target.name)
        return live

    def _without_status(self, target: Target, content: Manifest) -> Manifest:
        """Status is written through its subresource alone."""
        if "status" not in target.resource.subresources or target.resource.key in _KEEP_STATUS:
            return content
        return {key: value for key, value in content.items() if key != "status"}


def scale_of_or_empty(store: ClusterStore, target: Target, live: Manifest) -> Manifest:
    """The base of a patch of the scale, also without replicas in the object."""
    try:
        return scale_of(live, scaling(store, target.resource))
    except ApiError:
        return {"metadata": {"name": target.name}, "spec": {}}


def parsed_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise bad_request(f"the body of the request is not JSON: {error}") from error


def _parsed_yaml(body: bytes) -> Any:
    try:
        return json.loads(body)  # JSON is YAML, and this is much faster
    except ValueError:
        pass
    try:
        return yaml.safe_load(body)
    except yaml.YAMLError as error:
        raise bad_request(f"error decoding YAML: {error}") from error
