"""May the scheduler put a pod on a node? Taints, cordons, node selector and required node affinity.

https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
Rules: k8s.io/component-helpers/scheduling/corev1 (helpers.go, nodeaffinity/nodeaffinity.go) of Kubernetes 1.34.
"""

from collections.abc import Mapping
from typing import Any

from steps.checks.nodes import is_ready, name_of
from steps.document.pod_fields import FieldRequirement, NodeRequirement, NodeSelector, NodeSelectorTerm, Pod, Toleration
from steps.kinds import Manifest

_REPELLING = ("NoSchedule", "NoExecute")  # PreferNoSchedule is a preference
# The taint of a cordoned node; the scheduler also counts `spec.unschedulable` as this taint
# (pkg/scheduler/framework/plugins/nodeunschedulable).
_CORDON = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


def obstacle(node: Manifest, pod: Pod) -> str:
    """Why no pod with these fields can stay on this node; empty if one can."""
    labels = node["metadata"].get("labels") or {}
    if not is_ready(node):
        return "not Ready"
    if taint := _not_tolerated(node, pod):
        return "cordoned" if taint["key"] == _CORDON["key"] else f"taint {_text(taint)} not tolerated"
    if not pod.node_selector.items() <= labels.items():
        return "without the labels of nodeSelector"
    affinity = pod.affinity.node_affinity
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    if required and not _matches(required, labels, name_of(node)):
        return "not in the required node affinity"
    return ""


def _not_tolerated(node: Manifest, pod: Pod) -> Mapping[str, Any] | None:
    spec = node["spec"]
    cordon = (_CORDON,) if spec.get("unschedulable") else ()
    return next(
        (
            taint
            for taint in (*cordon, *(spec.get("taints") or ()))
            if taint.get("effect") in _REPELLING and not any(_tolerates(one, taint) for one in pod.tolerations)
        ),
        None,
    )


def _tolerates(toleration: Toleration, taint: Mapping[str, Any]) -> bool:
    """A toleration with `tolerationSeconds` does not count: the pod would be evicted after that time."""
    if toleration.toleration_seconds is not None and taint["effect"] == "NoExecute":
        return False
    if toleration.effect not in (None, taint["effect"]) or toleration.key not in (None, taint["key"]):
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == (taint.get("value") or "")


def _text(taint: Mapping[str, Any]) -> str:
    """As kubectl writes it."""
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"


def _matches(selector: NodeSelector, labels: Mapping[str, str], name: str) -> bool:
    return any(_matches_term(term, labels, name) for term in selector.node_selector_terms)


def _matches_term(term: NodeSelectorTerm, labels: Mapping[str, str], name: str) -> bool:
    return all(_matches_label(one, labels) for one in term.match_expressions) and all(
        _matches_name(one, name) for one in term.match_fields
    )


def _matches_label(requirement: NodeRequirement, labels: Mapping[str, str]) -> bool:
    found = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return found in requirement.values
        case "NotIn":
            return found not in requirement.values  # also of a node without the label
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case operator:
            return _compares(operator, found, requirement.values[0])


def _compares(operator: str, found: str | None, value: str) -> bool:
    try:
        number = int(found or "")
    except ValueError:
        return False
    return number > int(value) if operator == "Gt" else number < int(value)


def _matches_name(requirement: FieldRequirement, name: str) -> bool:
    return (name in requirement.values) == (requirement.operator == "In")
