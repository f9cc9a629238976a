"""The recovery of pods that served in an earlier process, before a new one answers."""

from collections.abc import Callable

from workflows.simulator.core.cluster.controllers.network import is_ready
from workflows.simulator.core.cluster.controllers.view import is_going, is_true
from workflows.simulator.core.cluster.kubelet.kubelet import SIMULATED
from workflows.simulator.core.cluster.resources import DAEMON_SETS, DEPLOYMENTS, PODS, STATEFUL_SETS
from workflows.simulator.core.cluster.store import ClusterStore, Manifest


class Recovery:
    """Records the ready objects when it is made: make it before the controllers run."""

    def __init__(self, store: ClusterStore, is_up: Callable[[str], bool]) -> None:
        """`is_up` takes the uid of a pod: whether this very process runs it."""
        self._store = store
        self._is_up = is_up
        self._pods = {_uid(pod) for pod in store.select(PODS) if is_ready(pod)}
        self._complete = {_version(one) for one in self._workloads() if _is_complete(one)}
        self._ready = {_uid(group) for group in self._groups() if is_true(group, "Ready")}

    def is_complete(self) -> bool:
        """True once the objects are as ready as they were.

        Each follows from the one before: workloads count ready pods, groups count ready workloads. In this order, no
        object counts as ready before its controller has read the state of its pods.
        """
        return self._pods_are_back() and self._workloads_are_back() and self._groups_are_back()

    def _pods_are_back(self) -> bool:
        # The kubelet knows that a pod serves before the object shows it.
        return all(
            self._is_up(_uid(pod)) and is_ready(pod)
            for pod in self._store.select(PODS)
            if _uid(pod) in self._pods and not is_going(pod)
        )

    def _workloads_are_back(self) -> bool:
        """The simulated parts of the cluster itself are complete; those of users may be broken for good, or roll."""
        return all(
            _is_complete(one) for one in self._workloads() if _is_simulated(one) or _version(one) in self._complete
        )

    def _groups_are_back(self) -> bool:
        return all(is_true(group, "Ready") for group in self._groups() if _uid(group) in self._ready)

    def _workloads(self) -> list[Manifest]:
        instances = self._store.registry.kind("workloads.x-k8s.io/v1alpha2", "RoleInstanceSet")
        kinds = [STATEFUL_SETS, DEPLOYMENTS, DAEMON_SETS, *([instances] if instances else [])]
        return [one for kind in kinds for one in self._store.select(kind)]

    def _groups(self) -> list[Manifest]:
        kind = self._store.registry.kind("workloads.x-k8s.io/v1alpha1", "RoleBasedGroup")
        return self._store.select(kind) if kind else []


def _uid(manifest: Manifest) -> str:
    return str(manifest["metadata"]["uid"])


def _version(workload: Manifest) -> tuple[str, int]:
    """An object with one specification."""
    return _uid(workload), workload["metadata"]["generation"]


def _is_complete(workload: Manifest) -> bool:
    status = workload.get("status") or {}
    if workload["kind"] == "DaemonSet":
        return bool(status.get("numberReady", -1) == status.get("desiredNumberScheduled"))
    return bool(status.get("readyReplicas") == status.get("updatedReplicas") == workload["spec"].get("replicas", 1))


def _is_simulated(workload: Manifest) -> bool:
    return SIMULATED in (workload["spec"]["template"]["metadata"].get("annotations") or {})
