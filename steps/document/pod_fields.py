"""Fields of Kubernetes that the document may set on pods: an allow-list, with Kubernetes' own names and rules.

The list is part of the security policy: no host path, no host network, no privilege, no container of another origin.
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#PodSpec
Rules: pkg/apis/core/validation/validation.go of Kubernetes 1.34.
"""

import re
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from steps.document.section import AsTuple, LabelKey, LabelValue, Name, Section

_Some = TypeVar("_Some", bound=Section)
Labels = dict[LabelKey, LabelValue]
Values = Annotated[tuple[str, ...], AsTuple]
Weight = Annotated[int, Field(ge=1, le=100)]


class ImagePullSecret(Section):
    name: Name = Field(description="Secret of type kubernetes.io/dockerconfigjson, in the namespace of the pods.")


class Toleration(Section):
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""

    key: LabelKey | None = Field(None, description="Key of the taint; without it, every taint, with operator Exists.")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="Relation of key and value.")
    value: LabelValue | None = Field(None, description="Value of the taint, with operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint; default is every effect."
    )
    toleration_seconds: int | None = Field(None, description="Time until eviction, with effect NoExecute.")

    @model_validator(mode="after")
    def _as_kubernetes_has_it(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise PydanticCustomError("toleration", "no `value` with `operator: Exists`")
        if self.operator == "Equal" and self.key is None:
            raise PydanticCustomError("toleration", "a `key`, or `operator: Exists`")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise PydanticCustomError("toleration", "`tolerationSeconds` only with `effect: NoExecute`")
        return self


class Requirement(Section):
    """One expression of a label selector."""

    key: LabelKey = Field(description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="Relation of key and values.")
    values: Values = Field((), description="Values, with operators In and NotIn.")

    @model_validator(mode="after")
    def _values_for_in_alone(self) -> Self:
        return _with_values(self, self.operator, self.values, some=("In", "NotIn"))


class NodeRequirement(Section):
    key: LabelKey = Field(description="Key of the node's label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="Relation of key and values."
    )
    values: Values = Field((), description="Values, with operators In and NotIn; one integer with Gt and Lt.")

    @model_validator(mode="after")
    def _values_fit_the_operator(self) -> Self:
        if self.operator in ("Gt", "Lt") and not (len(self.values) == 1 and re.fullmatch(r"-?\d+", self.values[0])):
            raise PydanticCustomError("requirement", "one integer as text in `values` with operators Gt and Lt")
        return _with_values(self, self.operator, self.values, some=("In", "NotIn", "Gt", "Lt"))


class FieldRequirement(Section):
    """The scheduler knows one field of a node, and one value of it."""

    key: Literal["metadata.name"] = Field(description="Field of the node.")
    operator: Literal["In", "NotIn"] = Field(description="Relation of field and value.")
    values: Annotated[tuple[str, ...], AsTuple, Field(min_length=1, max_length=1)] = Field(
        description="Name of one node."
    )


class NodeSelectorTerm(Section):
    """All requirements of a term must match."""

    match_expressions: Annotated[tuple[NodeRequirement, ...], AsTuple] = Field((), description="Labels of the node.")
    match_fields: Annotated[tuple[FieldRequirement, ...], AsTuple] = Field((), description="Fields of the node.")

    @model_validator(mode="after")
    def _matches_some_node(self) -> Self:
        if not self.match_expressions and not self.match_fields:
            raise PydanticCustomError(
                "term", "`matchExpressions` or `matchFields`: a term without both matches no node"
            )
        return self


class NodeSelector(Section):
    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], AsTuple, Field(min_length=1)] = Field(
        description="Terms, of which one must match."
    )


class PreferredNode(Section):
    weight: Weight = Field(description="Weight of this preference, 1 to 100.")
    preference: NodeSelectorTerm = Field(description="Nodes that are preferred.")


class NodeAffinity(Section):
    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        None, description="Nodes that may run the pod."
    )
    preferred_during_scheduling_ignored_during_execution: Annotated[tuple[PreferredNode, ...], AsTuple] = Field(
        (), description="Nodes that are preferred."
    )


class LabelSelector(Section):
    match_labels: Labels = Field(default_factory=dict, description="Labels that an object must have.")
    match_expressions: Annotated[tuple[Requirement, ...], AsTuple] = Field((), description="Expressions over labels.")


class PodAffinityTerm(Section):
    topology_key: LabelKey = Field(description="Label of nodes that names a zone, a rack or a host.")
    label_selector: LabelSelector | None = Field(None, description="Pods that count.")
    namespaces: Annotated[tuple[Name, ...], AsTuple] = Field((), description="Namespaces of those pods.")
    namespace_selector: LabelSelector | None = Field(None, description="Namespaces of those pods, by label.")


class PreferredPods(Section):
    weight: Weight = Field(description="Weight of this preference, 1 to 100.")
    pod_affinity_term: PodAffinityTerm = Field(description="Pods to be near to, or away from.")


class PodAffinity(Section):
    required_during_scheduling_ignored_during_execution: Annotated[tuple[PodAffinityTerm, ...], AsTuple] = Field(
        (), description="Terms that must hold."
    )
    preferred_during_scheduling_ignored_during_execution: Annotated[tuple[PreferredPods, ...], AsTuple] = Field(
        (), description="Terms that are preferred."
    )


class Affinity(Section):
    node_affinity: NodeAffinity | None = Field(None, description="Nodes by label.")
    pod_affinity: PodAffinity | None = Field(None, description="Near to other pods.")
    pod_anti_affinity: PodAffinity | None = Field(None, description="Away from other pods.")


class TopologySpreadConstraint(Section):
    """https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/"""

    max_skew: int = Field(description="Largest difference of the numbers of pods.", ge=1)
    topology_key: LabelKey = Field(description="Label of nodes that names a zone, a rack or a host.")
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description="Whether a pod waits for a place that keeps the difference."
    )
    label_selector: LabelSelector | None = Field(None, description="Pods that count.")
    min_domains: int | None = Field(None, description="Least number of zones, with DoNotSchedule.", ge=1)
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(None, description="Whether node affinity counts.")
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(None, description="Whether taints count.")
    match_label_keys: Annotated[tuple[LabelKey, ...], AsTuple] = Field(
        (), description="Labels that select in addition."
    )


class Pod(Section):
    """Fields of Kubernetes' PodSpec, with the names and rules of Kubernetes."""

    node_selector: Labels = Field(default_factory=dict, description="Labels that a node must have.")
    tolerations: Annotated[tuple[Toleration, ...], AsTuple] = Field((), description="Taints that the pods tolerate.")
    affinity: Affinity = Field(default_factory=Affinity, description="Nodes and pods to be near to, or away from.")
    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], AsTuple] = Field(
        (), description="Distribution over zones or hosts."
    )
    priority_class_name: Name | None = Field(None, description="PriorityClass of the pods.")
    image_pull_secrets: Annotated[tuple[ImagePullSecret, ...], AsTuple] = Field(
        (), description="Secrets with the passwords of image registries."
    )

    @property
    def spec(self) -> dict[str, Any]:
        """These fields as a pod template has them, without those at their default."""
        return self.model_dump(by_alias=True, mode="json", exclude_defaults=True)

    def over(self, common: "Pod") -> "Pod":
        """The fields that are set here, and those of `common` for the others."""
        own = {name for name in Pod.model_fields if getattr(self, name) != getattr(Pod(), name)}
        return common.model_copy(update={name: getattr(self, name) for name in own})


def _with_values(section: _Some, operator: str, values: tuple[str, ...], *, some: tuple[str, ...]) -> _Some:
    if bool(values) != (operator in some):
        needs = "at least one of `values`" if operator in some else "no `values`"
        raise PydanticCustomError(
            "requirement", "{needs} with operator {operator}", {"needs": needs, "operator": operator}
        )
    return section
