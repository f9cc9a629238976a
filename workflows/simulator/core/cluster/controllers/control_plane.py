"""All controllers over one store."""

import time
from pathlib import Path

from workflows.simulator.core.cluster.controllers.deployments import DaemonSetController, DeploymentController
from workflows.simulator.core.cluster.controllers.garbage import GarbageCollector
from workflows.simulator.core.cluster.controllers.groups import RoleBasedGroupOperator
from workflows.simulator.core.cluster.controllers.loop import Loop
from workflows.simulator.core.cluster.controllers.network import Network, ServiceController
from workflows.simulator.core.cluster.controllers.operator_style import OperatorStyle
from workflows.simulator.core.cluster.controllers.pace import Pace
from workflows.simulator.core.cluster.controllers.recovery import Comeback
from workflows.simulator.core.cluster.controllers.role_instance_sets import RoleInstanceSetController
from workflows.simulator.core.cluster.controllers.scheduler import Scheduler
from workflows.simulator.core.cluster.controllers.statefulsets import StatefulSetController
from workflows.simulator.core.cluster.controllers.view import World
from workflows.simulator.core.cluster.controllers.volumes import VolumeBinder
from workflows.simulator.core.cluster.kubelet.kubelet import Kubelet
from workflows.simulator.core.cluster.resources import PODS
from workflows.simulator.core.cluster.store import Store
from workflows.simulator.runtime import ContainerRuntime, Dial

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
        comeback = Comeback(self._store, self.kubelet.is_up)
        self._loop.start()
        deadline = time.monotonic() + self._pace.reboot
        bell = self._store.subscribe()
        while time.monotonic() < deadline and not comeback.is_complete():
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
