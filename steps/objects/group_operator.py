"""The RBG operator of a cluster, as far as the manifests depend on it.

No object has a field with the version of the operator, so it is derived from the kinds that the API server serves:

| operator | RoleBasedGroup | other kinds | headless Service of a role |
|---|---|---|---|
| v0.3, v0.4 | v1alpha1 | | `<group>-<role>` |
| v0.5, v0.6 | v1alpha1 | Instance | `s-<group>-<role>` |
| v0.7 and later | v1alpha1, v1alpha2 | Instance, RoleInstanceSet | `s-<group>-<role>` |

https://github.com/sgl-project/rbg/tree/main/config/crd/bases and api/workloads/v1alpha1/helper.go there
"""

from collections.abc import Collection
from dataclasses import dataclass

from steps.kinds import INSTANCE, ROLE_BASED_GROUP, ROLE_INSTANCE_SET, V1ALPHA1, V1ALPHA2, Kind
from steps.ports.kubernetes import Cluster

TELLING_KINDS = (Kind(V1ALPHA1, ROLE_BASED_GROUP), Kind(V1ALPHA2, ROLE_BASED_GROUP), INSTANCE, ROLE_INSTANCE_SET)
ABSENT = "the cluster serves no RoleBasedGroup. Next: install the RBG operator (on ACK: component ack-rbgs), run again"


@dataclass(frozen=True)
class GroupOperator:
    """Properties of the operator that determine a manifest."""

    api_version: str
    service_prefix: str  # of the headless Service of a role

    @property
    def kind(self) -> Kind:
        return Kind(self.api_version, ROLE_BASED_GROUP)


def operator_of(served: Collection[Kind]) -> GroupOperator | None:
    """The operator that serves these kinds; None without a RoleBasedGroup.

    v1alpha1 with StatefulSets is preferred as long as it is served: every operator from v0.3 to v0.8 supports it, and
    an upgrade of the operator must not rewrite a group that exists as StatefulSets.
    """
    prefix = "s-" if INSTANCE in served or ROLE_INSTANCE_SET in served else ""
    for version in (V1ALPHA1, V1ALPHA2):
        if Kind(version, ROLE_BASED_GROUP) in served:
            return GroupOperator(version, prefix)
    return None


def ask(cluster: Cluster) -> GroupOperator | None:
    """The operator of a live cluster."""
    return operator_of([kind for kind in TELLING_KINDS if cluster.serves(kind)])
