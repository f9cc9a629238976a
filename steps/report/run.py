"""A run as Argo tells it: the status of a Workflow as tasks that people know from the line.

Argo keeps a node for everything: for the graph, for each task, and for each attempt of a task.
https://argo-workflows.readthedocs.io/en/latest/fields/#nodestatus
"""

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from steps.document.overrides import DOCUMENT, InForce, of_text
from steps.kinds import SERVICE_LABEL, TRIGGER_LABEL, Manifest
from steps.reconcile.outputs import NOTHING_CHANGED, RECAP

# Argo's own labels. https://argo-workflows.readthedocs.io/en/latest/workflow-creator/
TEMPLATE_LABEL = "workflows.argoproj.io/workflow-template"
CRON_LABEL = "workflows.argoproj.io/cron-workflow"
EVENT_LABEL = "workflows.argoproj.io/workflow-event-binding"

SUCCEEDED = "Succeeded"
SUSPENDED = "Suspended"  # no phase of Argo, which leaves such a run at Running or Pending
FAILED = ("Failed", "Error")  # what Argo calls a run or a task that did not succeed
_ENDED = (SUCCEEDED, *FAILED, "Skipped", "Omitted")
_ATTEMPT = re.compile(r"(?P<task>.+)\((?P<number>\d+)\)")  # name of the node of an attempt
_EXIT_HANDLER = ".onExit"
# Tasks of the exit handler, in their order.
ROLL_BACK = "roll-back"
REPORT_RUN = "report-run"
EXIT_TASKS = (ROLL_BACK, REPORT_RUN)
# Tasks from which on a run may have changed what serves.
TOUCHING = frozenset({"roll-out-service", "smoke-test", "promote-release"})
# A node of the line that does no work: it is green if nothing changed, and left out of every other run.
SIGN = "nothing-changed"
# How Argo says that the `when` of a task kept it from running, here always because check-release found nothing to do.
# https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/dag.go (executeDAGTask)
_WHEN = re.compile("when '.*' evaluated false")
LEFT_OUT = "check-release found nothing to do"
NO_EXIT_HANDLER = (
    "its exit handler did not run; what it left is removed by the next run, or by python -m steps roll-back"
)
NOT_FAILED = "the run did not fail"  # why the exit handler left out its task
# MiB of nodes that are unpacked; a line of 12 tasks with 64 shards and all of their attempts has less than one.
LONGEST_NODES = 4

Node = Mapping[str, Any]


@dataclass(frozen=True)
class TaskResult:
    """One task of a run, its attempts taken together."""

    name: str
    phase: str  # Pending, Running, Succeeded, Failed, Error, Skipped or Omitted
    message: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    progress: str = ""  # done/all, in megabytes for a transfer
    outputs: Mapping[str, str] = field(default_factory=dict)
    recaps: tuple[str, ...] = ()  # of each attempt; empty texts for those that were ended before they could say
    tried: tuple[str, ...] = ()  # messages of the attempts that failed, in their order
    at_exit: bool = False  # a task of the exit handler

    @property
    def ended(self) -> bool:
        return self.phase in _ENDED

    @property
    def failed(self) -> bool:
        return self.phase in FAILED

    @property
    def left_out(self) -> bool:
        """Whether it did not run because there was nothing to do."""
        return self.message == LEFT_OUT

    @property
    def ran(self) -> bool:
        return self.phase not in ("Skipped", "Omitted")

    @property
    def recap(self) -> str:
        """What the last attempt did, in its own words."""
        return self.outputs.get(RECAP, "")

    @property
    def changed(self) -> bool | None:
        """Whether any attempt changed anything; None if that is not known."""
        if self.left_out:
            return False
        if any(recap and not recap.startswith(NOTHING_CHANGED) for recap in self.recaps):
            return True
        return False if self.recaps and all(self.recaps) else None

    @property
    def seconds(self) -> float | None:
        return (self.finished - self.started).total_seconds() if self.started and self.finished else None


@dataclass(frozen=True)
class Queue:
    """A lock of Argo that a run waits for."""

    lock: str
    holder: str  # name of a run
    gone: bool = False  # there is no such run

    def __str__(self) -> str:
        gone = ", which is gone: a controller that is at work gives the mutex on within seconds" if self.gone else ""
        return f"mutex {self.lock} held by run {self.holder}{gone}"


@dataclass(frozen=True)
class Run:
    name: str
    phase: str  # Pending, Running, Suspended, Succeeded, Failed or Error
    message: str = ""
    service: str = ""
    trigger: str = "manual"  # manual, schedule or ci
    progress: str = ""
    created: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    tasks: tuple[TaskResult, ...] = ()  # those that Argo has come to, in the order of the line, the exit handler last
    namespace: str = ""
    shutdown: str = ""  # Stop or Terminate, once that was asked for
    queued_behind: tuple[Queue, ...] = ()
    unread: str = ""  # why its tasks are not known, although Argo may know them

    @classmethod
    def of(cls, workflow: Manifest) -> "Run":
        """Total: what a status holds that cannot be read costs the tasks, and `unread` says so."""
        try:
            return cls._of(workflow)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, zlib.error) as error:
            bare = cls._of({key: value for key, value in workflow.items() if key != "status"})
            return replace(bare, phase=_told_phase(workflow), unread=f"its status cannot be read: {error}")

    @classmethod
    def _of(cls, workflow: Manifest) -> "Run":
        metadata, status = workflow["metadata"], workflow.get("status") or {}
        nodes, unread = _nodes(status)
        labels = metadata.get("labels") or {}
        template = ((workflow.get("spec") or {}).get("workflowTemplateRef") or {}).get("name", "")
        return cls(
            name=metadata["name"],
            phase=_phase(workflow, nodes),
            message=_one_line(status.get("message")) or _shutdown(workflow),
            service=labels.get(SERVICE_LABEL) or template,
            trigger=labels.get(TRIGGER_LABEL) or _trigger(labels),
            progress=status.get("progress", ""),
            created=_moment(metadata.get("creationTimestamp")),
            started=_moment(status.get("startedAt")),
            finished=_moment(status.get("finishedAt")),
            tasks=tuple(_in_order(_tasks(metadata["name"], nodes), _line(status))),
            namespace=metadata.get("namespace", ""),
            shutdown=(workflow.get("spec") or {}).get("shutdown") or "",
            queued_behind=tuple(_queued(status)),
            unread=unread,
        )

    @property
    def ended(self) -> bool:
        return self.phase in (SUCCEEDED, *FAILED)

    @property
    def failed(self) -> bool:
        return self.phase in FAILED

    @property
    def left_behind(self) -> str:
        """What a failed run left to others, for people: Argo starts no exit handler after Terminate, nor where it
        cannot make one.

        https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/operator.go (operate)
        """
        touched = any(task.name in TOUCHING and task.ran for task in self.tasks)
        if not self.failed or not touched or any(task.name == ROLL_BACK for task in self.tasks):
            return ""
        why = "terminated" if self.shutdown == "Terminate" else self.phase
        return f"{why}: {NO_EXIT_HANDLER}"

    @property
    def failures(self) -> tuple[TaskResult, ...]:
        return tuple(task for task in self.tasks if task.failed)

    @property
    def result(self) -> str:
        """What the run did, in a few words; empty if no task said. The exit handler only tells of the others."""
        line = [task for task in self.tasks if not task.at_exit]
        changed = [task.name for task in line if task.changed]
        if changed:
            return f"changed by {', '.join(changed)}"
        return NOTHING_CHANGED if line and all(task.changed is False for task in line) else ""

    @property
    def release(self) -> str:
        """The release that the run promoted or found promoted; empty if it did not come so far."""
        told = {task.name: task.outputs.get("release", "") for task in self.tasks}
        return told.get("promote-release") or told.get("check-release", "")

    @property
    def overrides(self) -> tuple[InForce, ...]:
        """Those that its first task found in force; none if that is not known."""
        said = next((task.outputs["overrides"] for task in self.tasks if "overrides" in task.outputs), DOCUMENT)
        try:
            return of_text(said)
        except ValueError:
            return ()


def _nodes(status: Mapping[str, Any]) -> tuple[Mapping[str, Node], str]:
    """The nodes, or why they are not in the object. Argo packs those of a run that would be too large for etcd.

    https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/packer/packer.go, and workflow/hydrator
    """
    if status.get("nodes"):
        return status["nodes"], ""
    if status.get("offloadNodeStatusVersion"):
        return {}, "Argo keeps its nodes in a database (nodeStatusOffLoad)"
    packed = status.get("compressedNodes")
    return (_unpacked(packed), "") if packed else ({}, "")


def _unpacked(packed: str) -> Mapping[str, Node]:
    """Gzip in base64. Raises ValueError and zlib.error for anything else, as Argo 4.1 packs it if it is told to."""
    gzip = zlib.decompressobj(wbits=31)
    text = gzip.decompress(base64.b64decode(packed, validate=True), LONGEST_NODES * 2**20)
    if not gzip.eof:
        raise ValueError(f"its nodes are cut off, or longer than {LONGEST_NODES} MiB")
    found: Mapping[str, Node] = json.loads(text)
    return found


def _told_phase(workflow: Manifest) -> str:
    status = workflow.get("status")
    return str((status.get("phase") if isinstance(status, dict) else "") or "Pending")


def _phase(workflow: Manifest, nodes: Mapping[str, Node]) -> str:
    """Argo 3.5 calls a run Succeeded that was terminated while it waited for a lock, although it did nothing.

    https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/operator.go
    """
    phase, spec = _told_phase(workflow), workflow.get("spec") or {}
    if phase == SUCCEEDED and spec.get("shutdown"):
        graph = nodes.get(workflow["metadata"]["name"]) or {}
        return phase if graph.get("phase") == SUCCEEDED else "Failed"
    return SUSPENDED if spec.get("suspend") and phase not in _ENDED else phase


def _shutdown(workflow: Manifest) -> str:
    strategy = (workflow.get("spec") or {}).get("shutdown")
    return f"Stopped with strategy '{strategy}'" if strategy else ""


def _trigger(labels: Mapping[str, str]) -> str:
    """What Argo itself says of a run that was started without our label."""
    return "schedule" if CRON_LABEL in labels else "ci" if EVENT_LABEL in labels else "manual"


def _tasks(run: str, nodes: Mapping[str, Node]) -> Iterator[TaskResult]:
    retried = {_name(node) for node in nodes.values() if node.get("type") == "Retry"}
    attempts: dict[str, list[tuple[int, Node]]] = {}
    for node in nodes.values():
        match = _ATTEMPT.fullmatch(_name(node))
        if match and match["task"] in retried:
            attempts.setdefault(match["task"], []).append((int(match["number"]), node))
    of_attempts = {id(node) for found in attempts.values() for _, node in found}
    nothing_to_do = any(map(_is_left_out, nodes.values()))
    for node in nodes.values():
        if node.get("type") in ("Pod", "Retry", "Skipped") and id(node) not in of_attempts and not _is_sign(node):
            tried = sorted(attempts.get(_name(node), ()), key=lambda attempt: attempt[0])
            found = _task(run, node, [attempt for _, attempt in tried])
            # What reads an output of a task that was left out is not skipped by its own `when`.
            yield replace(found, message=LEFT_OUT) if nothing_to_do and found.phase == "Omitted" else found


def _task(run: str, node: Node, attempts: list[Node]) -> TaskResult:
    # Up to now the exit handler is a task itself, and its node is called after the run.
    at_exit, is_handler = _name(node).startswith(run + _EXIT_HANDLER), _name(node) == run + _EXIT_HANDLER
    left_out = NOT_FAILED if at_exit else LEFT_OUT
    found = TaskResult(
        name=node.get("templateName", "") if is_handler else node.get("displayName") or _name(node),
        phase=node.get("phase") or "Pending",
        message=left_out if _is_left_out(node) else _one_line(node.get("message")),
        started=_moment(node.get("startedAt")),
        finished=_moment(node.get("finishedAt")),
        progress=node.get("progress", ""),
        outputs=_outputs(node),
        recaps=tuple(_outputs(attempt).get(RECAP, "") for attempt in attempts or [node]),
        tried=tuple(_one_line(attempt.get("message")) for attempt in attempts if attempt.get("phase") in FAILED),
        at_exit=at_exit,
    )
    return _with_last_attempt(found, attempts[-1]) if attempts else found


def _is_sign(node: Node) -> bool:
    return node.get("displayName") == SIGN


def _is_left_out(node: Node) -> bool:
    return node.get("phase") == "Skipped" and bool(_WHEN.fullmatch(_one_line(node.get("message"))))


def _with_last_attempt(task: TaskResult, last: Node) -> TaskResult:
    """Of a task that is tried again Argo says only that it will not be tried again; its last attempt says why."""
    if task.phase == SUCCEEDED:
        return replace(task, message="", outputs=task.outputs or _outputs(last))
    phase = task.phase if task.ended else last.get("phase") or task.phase
    return replace(
        task,
        phase=phase if task.ended or phase not in _ENDED else task.phase,
        message=_one_line(last.get("message")) or task.message,
        progress=last.get("progress") or task.progress,
        outputs=task.outputs or _outputs(last),
    )


def _queued(status: Mapping[str, Any]) -> Iterator[Queue]:
    """Locks that the run waits for. The holder is namespace/run or namespace/run/node.

    Argo leaves a lock among those that are waited for when the run gets it.
    https://github.com/argoproj/argo-workflows/blob/v3.5.15/pkg/apis/workflow/v1alpha1/workflow_types.go (LockAcquired)
    """
    mutex = (status.get("synchronization") or {}).get("mutex") or {}
    got = {holding.get("mutex") for holding in mutex.get("holding") or ()}
    for waiting in mutex.get("waiting") or ():
        if waiting.get("mutex") not in got:
            holder = waiting.get("holder", "").split("/")
            yield Queue(waiting.get("mutex", "").rpartition("/")[2], holder[1] if len(holder) > 1 else holder[0])


def _name(node: Node) -> str:
    return str(node.get("name", ""))


def _outputs(node: Node) -> dict[str, str]:
    parameters = (node.get("outputs") or {}).get("parameters") or ()
    return {parameter["name"]: str(parameter.get("value", "")) for parameter in parameters}


def _line(status: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the tasks in the order of the graph, from the template as it was when the run started."""
    templates = (status.get("storedWorkflowTemplateSpec") or {}).get("templates") or ()
    return tuple(task["name"] for template in templates for task in (template.get("dag") or {}).get("tasks") or ())


def _in_order(tasks: Iterable[TaskResult], line: tuple[str, ...]) -> list[TaskResult]:
    """Argo keeps its nodes in no order, and dates several alike."""
    places = {name: place for place, name in enumerate((*line, *EXIT_TASKS))}

    def order(task: TaskResult) -> tuple[int, float]:
        started = task.started.timestamp() if task.started else float("inf")
        name = task.name.partition("(")[0]  # one of several of a task is called `task(0:item)`
        return places.get(name, len(places) if task.at_exit else len(line)), started

    return sorted(tasks, key=order)


def _moment(text: str | None) -> datetime | None:
    """Nothing, rather than an error, for what is no time: whoever reads a status only tells of it."""
    try:
        return datetime.fromisoformat(text) if text else None
    except (ValueError, TypeError):
        return None


def _one_line(text: str | None) -> str:
    return " ".join(str(text or "").split())
