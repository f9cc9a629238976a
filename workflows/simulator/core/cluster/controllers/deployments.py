"""Deployments, their ReplicaSets, and DaemonSets: enough for an operator's own pods and for roles without identity."""

from collections.abc import Mapping
from typing import Any

from workflows.simulator.core.cluster.controllers.ordered import is_running_and_ready, template_hash
from workflows.simulator.core.cluster.controllers.view import ClusterView, condition, is_going, owned, owner
from workflows.simulator.core.cluster.resources import DAEMON_SETS, DEPLOYMENTS, NODES, PODS, REPLICA_SETS
from workflows.simulator.core.cluster.store import Manifest, copied

_HASH = "pod-template-hash"
_GENERATION = "pod-template-generation"


class DeploymentController:
    """A new ReplicaSet for each template; the old ones go when the new one is ready, or before with `Recreate`."""

    def reconcile(self, view: ClusterView) -> float | None:
        for deployment in view.all(DEPLOYMENTS):
            if not is_going(deployment):
                _reconcile_deployment(view, deployment)
        for replica_set in view.all(REPLICA_SETS):
            if not is_going(replica_set):
                _reconcile_replica_set(view, replica_set)
        return None


class DaemonSetController:
    """One pod on each node that the template's nodeSelector allows."""

    def reconcile(self, view: ClusterView) -> float | None:
        nodes = view.all(NODES)
        for daemon_set in view.all(DAEMON_SETS):
            if not is_going(daemon_set):
                _reconcile_daemon_set(view, daemon_set, nodes)
        return None


def _reconcile_deployment(view: ClusterView, deployment: Manifest) -> None:
    namespace, name = deployment["metadata"]["namespace"], deployment["metadata"]["name"]
    revision = template_hash(deployment["spec"]["template"])
    sets = owned(view.all(REPLICA_SETS, namespace), deployment)
    newest = next((one for one in sets if one["metadata"]["labels"][_HASH] == revision), None)
    old = [one for one in sets if one is not newest]
    view.write_status(DEPLOYMENTS, deployment, _deployment_status(deployment, newest, old))
    wanted = int(deployment["spec"].get("replicas", 1))
    recreate = (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"
    if recreate and any((one.get("status") or {}).get("replicas") for one in old):
        _scale(view, old, 0)
        return
    if newest is None:
        view.create(REPLICA_SETS, _replica_set(deployment, f"{name}-{revision}", revision, wanted))
        return
    _scale(view, [newest], wanted)
    if (newest.get("status") or {}).get("readyReplicas", 0) >= wanted:
        _scale(view, old, 0)


def _scale(view: ClusterView, sets: list[Manifest], replicas: int) -> None:
    for one in sets:
        if one["spec"]["replicas"] != replicas:
            view.write(REPLICA_SETS, {**one, "spec": {**one["spec"], "replicas": replicas}})


def _replica_set(deployment: Manifest, name: str, revision: str, replicas: int) -> Manifest:
    template = copied(deployment["spec"]["template"])
    template["metadata"]["labels"] = {**template["metadata"]["labels"], _HASH: revision}
    return {
        "metadata": {
            "name": name,
            "namespace": deployment["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
            "ownerReferences": [owner(deployment)],
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {**deployment["spec"]["selector"]["matchLabels"], _HASH: revision}},
            "template": template,
        },
    }


def _deployment_status(deployment: Manifest, newest: Manifest | None, old: list[Manifest]) -> Manifest:
    statuses = [(one.get("status") or {}) for one in [*([newest] if newest else []), *old]]
    ready = sum(status.get("readyReplicas", 0) for status in statuses)
    total = sum(status.get("replicas", 0) for status in statuses)
    wanted = int(deployment["spec"].get("replicas", 1))
    before = deployment.get("status") or {}
    enough = ready >= wanted
    reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    message = f"Deployment {'has' if enough else 'does not have'} minimum availability."
    return {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": total,
        "updatedReplicas": ((newest or {}).get("status") or {}).get("replicas", 0),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, wanted - ready),
        "conditions": condition(before, "Available", enough, reason, message),
    }


def _reconcile_replica_set(view: ClusterView, replica_set: Manifest) -> None:
    metadata = replica_set["metadata"]
    pods = [pod for pod in owned(view.all(PODS, metadata["namespace"]), replica_set) if not is_going(pod)]
    ready = sum(map(is_running_and_ready, pods))
    counted = {
        "observedGeneration": metadata["generation"],
        "replicas": len(pods),
        "fullyLabeledReplicas": len(pods),
        "readyReplicas": ready,
        "availableReplicas": ready,
    }
    view.write_status(REPLICA_SETS, replica_set, counted)
    wanted = int(replica_set["spec"]["replicas"])
    for _ in range(wanted - len(pods)):
        view.create(PODS, _pod(replica_set, {"generateName": f"{metadata['name']}-"}, {}))
    # Those that do not serve go first.
    for pod in sorted(pods, key=is_running_and_ready)[: max(0, len(pods) - wanted)]:
        view.delete(PODS, pod)


def _reconcile_daemon_set(view: ClusterView, daemon_set: Manifest, nodes: list[Manifest]) -> None:
    metadata, template = daemon_set["metadata"], daemon_set["spec"]["template"]
    revision = template_hash(template)
    pods = owned(view.all(PODS, metadata["namespace"]), daemon_set)
    on = {pod["spec"]["nodeName"]: pod for pod in pods}
    selector = template["spec"].get("nodeSelector") or {}
    wanted = [node["metadata"]["name"] for node in nodes if _matches(node, selector)]
    ready = sum(map(is_running_and_ready, pods))
    counted = {
        "observedGeneration": metadata["generation"],
        "desiredNumberScheduled": len(wanted),
        "currentNumberScheduled": len(pods),
        "updatedNumberScheduled": sum(_revision(pod) == revision for pod in pods),
        "numberReady": ready,
        "numberAvailable": ready,
        "numberUnavailable": max(0, len(wanted) - ready),
        "numberMisscheduled": sum(name not in wanted for name in on),
    }
    view.write_status(DAEMON_SETS, daemon_set, counted)
    for name in wanted:
        if name not in on:
            pod = _pod(daemon_set, {"generateName": f"{metadata['name']}-"}, {_GENERATION: revision})
            pod["spec"]["nodeName"] = name
            view.create(PODS, pod)
    outdated = [pod for name, pod in on.items() if name not in wanted or _revision(pod) != revision]
    for pod in outdated[:1]:
        view.delete(PODS, pod)


def _pod(of: Manifest, named: Mapping[str, Any], labels: Mapping[str, str]) -> Manifest:
    pod: Manifest = copied(of["spec"]["template"])
    metadata = pod.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    metadata |= {**named, "namespace": of["metadata"]["namespace"], "ownerReferences": [owner(of)]}
    return {**pod, "status": {"phase": "Pending"}}


def _revision(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"].get(_GENERATION, ""))


def _matches(node: Manifest, selector: Mapping[str, str]) -> bool:
    labels = node["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())
