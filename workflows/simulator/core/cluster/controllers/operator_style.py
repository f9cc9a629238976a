"""Differences between releases of the RBG operator.

https://github.com/sgl-project/rbg, api/workloads at the tags named here.
"""

from dataclasses import dataclass, replace

_OLD = "rolebasedgroup.workloads.x-k8s.io/"
_NEW = "rbg.workloads.x-k8s.io/"


@dataclass(frozen=True)
class OperatorStyle:
    image: str
    crds: str  # folder of its CustomResourceDefinitions
    group_label: str
    role_label: str
    unique_label: str
    revision_label: str  # `{role}` in it is filled in
    size_annotation: str
    service_prefix: str
    environment_prefix: str
    config_of_role: bool  # one ConfigMap for each role, not one for the group
    # Later releases write the status in every turn; earlier ones only when a count of a role changed, so that
    # observedGeneration may stay behind.
    always_writes_status: bool = False


V06 = OperatorStyle(
    image="rolebasedgroup/rbgs-controller:v0.6.0-5390c07",
    crds="rbg-v0.6.0",
    group_label=_OLD + "name",
    role_label=_OLD + "role",
    unique_label=_OLD + "group-unique-key",
    revision_label=_OLD + "role-revision-hash-{role}",
    size_annotation=_OLD + "role-size",
    service_prefix="s-",
    environment_prefix="",
    config_of_role=True,
)
# The same served version; the fields that 0.5 and 0.6 added are left out by our manifests.
V04 = replace(V06, image="rolebasedgroup/rbgs-controller:v0.4.0-2c1b4f9", service_prefix="")
V08 = OperatorStyle(
    image="rolebasedgroup/rbgs-controller:v0.8.0-alpha.5",
    crds="rbg-v0.8.0-alpha.5",
    group_label=_NEW + "group-name",
    role_label=_NEW + "role-name",
    unique_label=_NEW + "group-uid",
    revision_label=_NEW + "role-revision-{role}",
    size_annotation=_NEW + "role-size",
    service_prefix="s-",
    environment_prefix="RBG_",
    config_of_role=False,
    always_writes_status=True,
)
