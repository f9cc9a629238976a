"""Logs of a run, by its pods. Argo labels each pod with its run, and annotates it with its node.

https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/workflowpod.go#L192
"""

import re
from dataclasses import dataclass

from steps.kinds import Manifest

WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
NODE_NAME = "workflows.argoproj.io/node-name"  # `RUN.TASK(ATTEMPT)`, `RUN.onExit[0].TASK`
CONTAINER = "main"
LINES = 5000  # of each pod, from its end


@dataclass(frozen=True)
class PodLog:
    pod: str
    node: str  # of a task, with the number of the attempt: `download-model(1)`
    text: str

    def is_of(self, task: str) -> bool:
        """Also for one instance of a task with shards, `mirror-model(2:2)`."""
        return self.node == task or re.fullmatch(rf"{re.escape(task)}(\([\d:]+\))+", self.node) is not None


def node_of(pod: Manifest) -> str:
    name = (pod["metadata"].get("annotations") or {}).get(NODE_NAME, "")
    return str(name).rpartition(".")[2] or str(pod["metadata"]["name"])


def in_order(pods: list[Manifest]) -> list[Manifest]:
    """The oldest first."""
    return sorted(pods, key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), node_of(pod)))
