"""The owner of an object: checked before every write, also in a rollback and in the exit handler.

A label names the service of an object. Two namespaces may hold services of one name, so the namespace counts as well.
A volume has none: there it is the namespace of the claim for which the volume is reserved.
"""

from dataclasses import dataclass

from steps.document.schema import ModelService
from steps.errors import Blocked
from steps.kinds import PERSISTENT_VOLUME, SERVICE_LABEL, Manifest, Ref
from steps.objects.metadata import labels_of


@dataclass(frozen=True)
class Owner:
    service: str  # empty: the object has no label of Slipway
    namespace: str  # empty: a volume that is reserved for no claim; its name is unique for the namespace

    @classmethod
    def of(cls, manifest: Manifest) -> "Owner":
        return cls(labels_of(manifest).get(SERVICE_LABEL, ""), namespace_of(manifest))

    def owns(self, live: Manifest) -> bool:
        found = Owner.of(live)
        return found.service == self.service and found.namespace in ("", self.namespace)


def owner(service: ModelService) -> Owner:
    return Owner(service.name, service.namespace)


def is_ours(manifest: Manifest, service: ModelService) -> bool:
    return owner(service).owns(manifest)


def namespace_of(manifest: Manifest) -> str:
    """The namespace of the service that owns an object."""
    if manifest["kind"] == PERSISTENT_VOLUME.kind:
        return str(((manifest.get("spec") or {}).get("claimRef") or {}).get("namespace", ""))
    return str(manifest["metadata"].get("namespace", ""))


def foreign_owner(wanted: Owner, live: Manifest | None) -> str:
    """Why an object of this name must not be changed; empty if it is absent or belongs to the wanted owner."""
    if live is None or wanted.owns(live):
        return ""
    ref, found = Ref.of(live), Owner.of(live)
    if found.service == wanted.service:
        return (
            f"{ref} exists and belongs to {found.service} in namespace {found.namespace}, expected {wanted.namespace}. "
            f"Next: choose another name in the document"
        )
    cause = f"it belongs to {found.service}" if found.service else "it was not made by Slipway"
    where = f" -n {ref.namespace}" if ref.namespace else ""
    return (
        f"{ref} exists and {cause}: label {SERVICE_LABEL} is {found.service or 'absent'}, expected {wanted.service}. "
        f"Next: choose another name in the document, or hand it over: kubectl label --overwrite "
        f"{ref.kind.kind.lower()} {ref.name}{where} {SERVICE_LABEL}={wanted.service}"
    )


def refuse_foreign(wanted: Owner, live: Manifest | None) -> None:
    """Raises Blocked for an object that belongs to another owner."""
    foreign = foreign_owner(wanted, live)
    if foreign:
        reason, _, hint = foreign.partition(". Next: ")
        raise Blocked(reason, hint)
