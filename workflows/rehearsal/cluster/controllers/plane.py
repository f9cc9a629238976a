"""All controllers over one store."""

import time
from collections.abc import Callable
from pathlib import Path

from workflows.rehearsal.cluster.controllers.deployments import DaemonSetController, DeploymentController
from workflows.rehearsal.cluster.controllers.garbage import GarbageCollector
from workflows.rehearsal.cluster.controllers.groups import RoleBasedGroupOperator
from workflows.rehearsal.cluster.controllers.kubelet import SIMULATED, Kubelet
from workflows.rehearsal.cluster.controllers.loop import Loop
from workflows.rehearsal.cluster.controllers.network import Network, ServiceController
from workflows.rehearsal.cluster.controllers.operator_style import OperatorStyle
from workflows.rehearsal.cluster.controllers.pace import Pace
from workflows.rehearsal.cluster.controllers.role_instance_sets import RoleInstanceSetController
from workflows.rehearsal.cluster.controllers.scheduler import Scheduler
from workflows.rehearsal.cluster.controllers.statefulsets import StatefulSetController
from workflows.rehearsal.cluster.controllers.volumes import VolumeBinder
from workflows.rehearsal.cluster.controllers.world import World, is_going, is_true
from workflows.rehearsal.cluster.resources import DAEMON_SETS, DEPLOYMENTS, PODS
from workflows.rehearsal.cluster.store import Manifest, Store
from workflows.rehearsal.runtime import ContainerRuntime, Dial

_LOOK = 0.02  # seconds between two looks at what an earlier process left


class ControlPlane:
    def __init__(
        self, store: Store, runtime: ContainerRuntime, buckets: Path, folder: Path, pace: Pace, operator: OperatorStyle
    ) -> None:
        """`buckets` is the state folder of the embedded bucket, `folder` holds the volumes of single pods."""
        world = World(store)
        self._store = store
        self._pace = pace
        bell = store.subscribe()
        self.kubelet = Kubelet(runtime, buckets, folder, pace, self._dial, bell.ring)
        self.network = Network(world, self.kubelet.address)
        self._loop = Loop(
            world,
            bell,
            (
                VolumeBinder(),
                GarbageCollector(),
                RoleBasedGroupOperator(operator, pace),
                StatefulSetController(),
                RoleInstanceSetController(),
                DeploymentController(),
                DaemonSetController(),
                Scheduler(),
                self.kubelet,
                ServiceController(),
            ),
        )

    def start(self) -> None:
        """Run, and come back once what was up in an earlier process is up again, or `pace.reboot` is over."""
        expected = self._expected()
        self._loop.start()
        deadline = time.monotonic() + self._pace.reboot
        bell = self._store.subscribe()
        while time.monotonic() < deadline and not all(is_back() for is_back in expected):
            bell.wait(_LOOK)

    def stop(self) -> None:
        """Stop as a node that is shut off: containers end, objects stay as they are."""
        self._loop.stop()
        self.kubelet.stop()

    def pod_log(self, namespace: str, pod: str, container: str, previous: bool) -> str | None:
        """What a container wrote; None without such a pod, or if the container has not run (before)."""
        found = self._store.get(PODS, pod, namespace)
        return self.kubelet.log(found["metadata"]["uid"], container, previous=previous) if found else None

    def _dial(self, namespace: str) -> Dial:
        return self.network.dial(namespace)

    def _expected(self) -> list[Callable[[], bool]]:
        ready = [
            pod["metadata"]["uid"] for pod in self._store.select(PODS) if is_true(pod, "Ready") and not is_going(pod)
        ]
        return [*(self._pod_is_back(uid) for uid in ready), self._components_are_up, self._groups_are_back()]

    def _pod_is_back(self, uid: str) -> Callable[[], bool]:
        return lambda: self.kubelet.is_up(uid)

    def _components_are_up(self) -> bool:
        """Whether the simulated parts of the cluster itself are complete; those of users may be broken for good."""
        deployments = [one for one in self._store.select(DEPLOYMENTS) if _is_simulated(one)]
        daemon_sets = [one for one in self._store.select(DAEMON_SETS) if _is_simulated(one)]
        return all(
            (one.get("status") or {}).get("readyReplicas") == one["spec"].get("replicas", 1) for one in deployments
        ) and all(
            status.get("numberReady", -1) == status.get("desiredNumberScheduled")
            for status in (one.get("status") or {} for one in daemon_sets)
        )

    def _groups_are_back(self) -> Callable[[], bool]:
        resource = self._store.registry.kind("workloads.x-k8s.io/v1alpha1", "RoleBasedGroup")
        if resource is None:
            return lambda: True
        ready = {group["metadata"]["uid"] for group in self._store.select(resource) if is_true(group, "Ready")}
        return lambda: (
            ready <= {group["metadata"]["uid"] for group in self._store.select(resource) if is_true(group, "Ready")}
        )


def _is_simulated(workload: Manifest) -> bool:
    return SIMULATED in (workload["spec"]["template"]["metadata"].get("annotations") or {})
