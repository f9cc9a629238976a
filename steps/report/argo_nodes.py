"""Reads a run from its Workflow object: the one parser of Argo's nodes.

Argo keeps a node for each graph, each task and each attempt of a task.
https://argo-workflows.readthedocs.io/en/latest/fields/#nodestatus
"""

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from steps.kinds import SERVICE_LABEL, TRIGGER_LABEL, Manifest
from steps.reconcile.outputs import RECAP
from steps.report.run import (
    ENDED,
    EXIT_TASKS,
    FAILED,
    NOT_FAILED,
    NOTHING_TO_DO,
    SUCCEEDED,
    SUSPENDED,
    Queue,
    Run,
    TaskResult,
)

# Argo's own labels. https://argo-workflows.readthedocs.io/en/latest/workflow-creator/
TEMPLATE_LABEL = "workflows.argoproj.io/workflow-template"
CRON_LABEL = "workflows.argoproj.io/cron-workflow"
EVENT_LABEL = "workflows.argoproj.io/workflow-event-binding"

# A task of the pipeline that does no work: it succeeds in a no-op run and is skipped in every other one.
MARKER = "nothing-changed"
_ATTEMPT = re.compile(r"(?P<task>.+)\((?P<number>\d+)\)")  # name of the node of an attempt
_EXIT_HANDLER = ".onExit"
# Argo's message of a task that its `when` skipped.
# https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/dag.go (executeDAGTask)
_WHEN = re.compile("when '.*' evaluated false")
LONGEST_NODES = 4  # MiB of unpacked nodes; a run of 12 tasks with 64 shards and all of their attempts has less than one

Node = Mapping[str, Any]


def read_run(workflow: Manifest) -> Run:
    """Never raises: a status that cannot be read costs the tasks, and `unread` names the reason."""
    try:
        return _read(workflow)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, zlib.error) as error:
        bare = _read({key: value for key, value in workflow.items() if key != "status"})
        return replace(bare, phase=_status_phase(workflow), unread=f"its status cannot be read: {error}")


def _read(workflow: Manifest) -> Run:
    metadata, status = workflow["metadata"], workflow.get("status") or {}
    nodes, unread = _nodes(status)
    labels = metadata.get("labels") or {}
    template = ((workflow.get("spec") or {}).get("workflowTemplateRef") or {}).get("name", "")
    return Run(
        name=metadata["name"],
        phase=_phase(workflow, nodes),
        message=_one_line(status.get("message")) or _shutdown(workflow),
        service=labels.get(SERVICE_LABEL) or template,
        trigger=labels.get(TRIGGER_LABEL) or _trigger(labels),
        progress=status.get("progress", ""),
        created=_time(metadata.get("creationTimestamp")),
        started=_time(status.get("startedAt")),
        finished=_time(status.get("finishedAt")),
        tasks=tuple(_in_order(_tasks(metadata["name"], nodes), _pipeline(status))),
        namespace=metadata.get("namespace", ""),
        shutdown=(workflow.get("spec") or {}).get("shutdown") or "",
        queued_behind=tuple(_queued(status)),
        unread=unread,
    )


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
    """Gzip in base64. Raises ValueError and zlib.error for other formats, which Argo 4.1 can be configured to write."""
    gzip = zlib.decompressobj(wbits=31)
    text = gzip.decompress(base64.b64decode(packed, validate=True), LONGEST_NODES * 2**20)
    if not gzip.eof:
        raise ValueError(f"its nodes are truncated, or longer than {LONGEST_NODES} MiB")
    found: Mapping[str, Node] = json.loads(text)
    return found


def _status_phase(workflow: Manifest) -> str:
    status = workflow.get("status")
    return str((status.get("phase") if isinstance(status, dict) else "") or "Pending")


def _phase(workflow: Manifest, nodes: Mapping[str, Node]) -> str:
    """Argo 3.5 reports Succeeded for a run that was terminated while it waited for a lock, although no task ran.

    https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/operator.go
    """
    phase, spec = _status_phase(workflow), workflow.get("spec") or {}
    if phase == SUCCEEDED and spec.get("shutdown"):
        graph = nodes.get(workflow["metadata"]["name"]) or {}
        return phase if graph.get("phase") == SUCCEEDED else "Failed"
    return SUSPENDED if spec.get("suspend") and phase not in ENDED else phase


def _shutdown(workflow: Manifest) -> str:
    strategy = (workflow.get("spec") or {}).get("shutdown")
    return f"Stopped with strategy '{strategy}'" if strategy else ""


def _trigger(labels: Mapping[str, str]) -> str:
    """The trigger of a run without our label, by the labels of Argo."""
    return "schedule" if CRON_LABEL in labels else "ci" if EVENT_LABEL in labels else "manual"


def _tasks(run: str, nodes: Mapping[str, Node]) -> Iterator[TaskResult]:
    retried = {_name(node) for node in nodes.values() if node.get("type") == "Retry"}
    attempts: dict[str, list[tuple[int, Node]]] = {}
    for node in nodes.values():
        match = _ATTEMPT.fullmatch(_name(node))
        if match and match["task"] in retried:
            attempts.setdefault(match["task"], []).append((int(match["number"]), node))
    of_attempts = {id(node) for found in attempts.values() for _, node in found}
    nothing_to_do = any(map(_is_skipped, nodes.values()))
    for node in nodes.values():
        if node.get("type") in ("Pod", "Retry", "Skipped") and id(node) not in of_attempts and not _is_marker(node):
            tried = sorted(attempts.get(_name(node), ()), key=lambda attempt: attempt[0])
            found = _task(run, node, [attempt for _, attempt in tried])
            # Argo omits a task that reads an output of a skipped one before it evaluates its `when`.
            yield replace(found, message=NOTHING_TO_DO) if nothing_to_do and found.phase == "Omitted" else found


def _task(run: str, node: Node, attempts: list[Node]) -> TaskResult:
    # An exit handler of one task has one node, with the name of the run.
    at_exit, is_handler = _name(node).startswith(run + _EXIT_HANDLER), _name(node) == run + _EXIT_HANDLER
    skipped = NOT_FAILED if at_exit else NOTHING_TO_DO
    found = TaskResult(
        name=node.get("templateName", "") if is_handler else node.get("displayName") or _name(node),
        phase=node.get("phase") or "Pending",
        message=skipped if _is_skipped(node) else _one_line(node.get("message")),
        started=_time(node.get("startedAt")),
        finished=_time(node.get("finishedAt")),
        progress=node.get("progress", ""),
        outputs=_outputs(node),
        recaps=tuple(_outputs(attempt).get(RECAP, "") for attempt in attempts or [node]),
        tried=tuple(_one_line(attempt.get("message")) for attempt in attempts if attempt.get("phase") in FAILED),
        at_exit=at_exit,
    )
    return _with_last_attempt(found, attempts[-1]) if attempts else found


def _is_marker(node: Node) -> bool:
    return node.get("displayName") == MARKER


def _is_skipped(node: Node) -> bool:
    return node.get("phase") == "Skipped" and bool(_WHEN.fullmatch(_one_line(node.get("message"))))


def _with_last_attempt(task: TaskResult, last: Node) -> TaskResult:
    """The message of a retried task is only that no retry is left; the message of its last attempt is the cause."""
    if task.phase == SUCCEEDED:
        return replace(task, message="", outputs=task.outputs or _outputs(last))
    phase = task.phase if task.ended else last.get("phase") or task.phase
    return replace(
        task,
        phase=phase if task.ended or phase not in ENDED else task.phase,
        message=_one_line(last.get("message")) or task.message,
        progress=last.get("progress") or task.progress,
        outputs=task.outputs or _outputs(last),
    )


def _queued(status: Mapping[str, Any]) -> Iterator[Queue]:
    """Locks that the run waits for. The holder is namespace/run or namespace/run/node.

    Argo keeps a lock in the list of waiting ones after the run has acquired it.
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


def _pipeline(status: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the tasks in the order of the graph, from the template as it was when the run started."""
    templates = (status.get("storedWorkflowTemplateSpec") or {}).get("templates") or ()
    return tuple(task["name"] for template in templates for task in (template.get("dag") or {}).get("tasks") or ())


def _in_order(tasks: Iterable[TaskResult], pipeline: tuple[str, ...]) -> list[TaskResult]:
    """Argo keeps its nodes in no order, and several have the same start."""
    places = {name: place for place, name in enumerate((*pipeline, *EXIT_TASKS))}

    def order(task: TaskResult) -> tuple[int, float]:
        started = task.started.timestamp() if task.started else float("inf")
        name = task.name.partition("(")[0]  # an instance of a fan-out is called `task(0:item)`
        return places.get(name, len(places) if task.at_exit else len(pipeline)), started

    return sorted(tasks, key=order)


def _time(text: str | None) -> datetime | None:
    """None for a malformed time: a status is only displayed."""
    try:
        return datetime.fromisoformat(text) if text else None
    except (ValueError, TypeError):
        return None


def _one_line(text: str | None) -> str:
    return " ".join(str(text or "").split())
