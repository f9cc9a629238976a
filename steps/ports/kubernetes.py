"""The Kubernetes API."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from steps.kinds import Kind, Manifest, Ref

Labels: TypeAlias = Mapping[str, str] | None
Reduce: TypeAlias = Callable[[Manifest], Manifest] | None


@dataclass(frozen=True)
class Permission:
    """One verb on one resource, as an access review states it."""

    verb: str
    group: str
    resource: str  # plural, "pods" or "pods/log"
    namespace: str = ""
    name: str = ""
    user: str = ""  # account in the notation of the API server; empty: the caller

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        name = f" {self.name}" if self.name else ""
        user = f" for {self.user}" if self.user else ""
        return f"{self.verb} {self.resource}{'.' + self.group if self.group else ''}{name}{where}{user}"


class Cluster(Protocol):
    def get(self, ref: Ref) -> Manifest | None: ...

    def select(self, kind: Kind, namespace: str = "", labels: Labels = None, part: Reduce = None) -> list[Manifest]:
        """Objects in one namespace, or in all of them; sorted by namespace and name.

        `part` reduces each object on arrival, and keeps its name: a whole pod is 70 KiB in memory, and a cluster has
        thousands.
        """
        ...

    def preview(self, wanted: Manifest) -> Manifest:
        """The object after `apply`, by a server-side apply with dryRun=All."""
        ...

    def apply(self, wanted: Manifest) -> None:
        """Server-side apply with our field manager; the document wins over manual edits of declared fields.

        With a resourceVersion in it, raises TransientError if the object exists in another version.
        """
        ...

    def delete(self, ref: Ref, uid: str) -> None:
        """Delete the object with this uid, and its dependants in the background. An absent object is no error."""
        ...

    def serves(self, kind: Kind) -> bool: ...

    def allows(self, permission: Permission) -> bool:
        """Whether the caller, or the user that the permission names, has it."""
        ...

    def pod_log(self, namespace: str, pod: str, container: str, *, previous: bool = False, lines: int = 20) -> str:
        """The last lines of the log of a container; empty without one."""
        ...


class Locks(Protocol):
    """Objects that several writers replace by compare-and-swap."""

    def get(self, ref: Ref) -> Manifest | None: ...

    def swap(self, wanted: Manifest) -> bool:
        """Create it; or, with a resourceVersion in it, replace that version. False if another writer was faster."""
        ...
