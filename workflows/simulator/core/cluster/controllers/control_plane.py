"""All controllers over one store."""

import time
from pathlib import Path

from workflows.simulator.core.cluster.controllers.deployments import DaemonSetController, DeploymentController
from workflows.simulator.core.cluster.controllers.garbage import GarbageCollector
from workflows.simulator.core.cluster.controllers.groups import RoleBasedGroupOperator
from workflows.simulator.core.cluster.controllers.loop import Loop
from workflows.simulator.core.cluster.controllers.network import Network, ServiceController
from workflows.simulator.core.cluster.controllers.operator_style import OperatorStyle
from workflows.simulator.core.cluster.controllers.recovery import Recovery
from workflows.simulator.core.cluster.controllers.role_instance_sets import RoleInstanceSetController
from workflows.simulator.core.cluster.controllers.scheduler import Scheduler
from workflows.simulator.core.cluster.controllers.statefulsets import StatefulSetController
from workflows.simulator.core.cluster.controllers.timing import ClusterTiming
from workflows.simulator.core.cluster.controllers.view import ClusterView
from workflows.simulator.core.cluster.controllers.volumes import VolumeBinder
from workflows.simulator.core.cluster.kubelet.kubelet import Kubelet
from workflows.simulator.core.cluster.resources import PODS
from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.runtime import ContainerRuntime, Dial

_POLL = 0.02  # seconds between two checks of the recovery


class ControlPlane:
    def __init__(
        self,
        store: ClusterStore,
        runtime: ContainerRuntime,
        buckets: Path,
        folder: Path,
        timing: ClusterTiming,
        operator: OperatorStyle,
    ) -> None:
        """`buckets` is the state folder of the embedded bucket, `folder` holds the volumes of single pods."""
        view = ClusterView(store)
        self._store = store
        self._timing = timing
        wake_up = store.subscribe()
        self.kubelet = Kubelet(runtime, buckets, folder, timing, self._dial, wake_up.trigger)
        self.network = Network(view, self.kubelet.address)
        self._loop = Loop(
            view,
            wake_up,
            (
                VolumeBinder(),
                GarbageCollector(),
                RoleBasedGroupOperator(operator, timing),
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
        """Run, and return once the pods of an earlier process are up again, or after `timing.reboot`."""
        recovery = Recovery(self._store, self.kubelet.is_up)
        self._loop.start()
        deadline = time.monotonic() + self._timing.reboot
        wake_up = self._store.subscribe()
        while time.monotonic() < deadline and not recovery.is_complete():
            wake_up.wait(_POLL)

    def stop(self) -> None:
        """Stop as a node that is shut off: containers end, objects stay as they are."""
        self._loop.stop()
        self.kubelet.stop()

    def pod_log(self, namespace: str, pod: str, container: str, previous: bool) -> str | None:
        """The log of a container; None without such a pod, or if the container has not run (before)."""
        found = self._store.get(PODS, pod, namespace)
        return self.kubelet.log(found["metadata"]["uid"], container, previous=previous) if found else None

    def _dial(self, namespace: str) -> Dial:
        return self.network.dial(namespace)
