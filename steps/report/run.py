"""A run and its tasks, as people know them from the pipeline. `argo_nodes` reads them from a Workflow object."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from steps.document.overrides import DOCUMENT, InForce, of_text
from steps.reconcile.outputs import NOTHING_CHANGED, RECAP

SUCCEEDED = "Succeeded"
SUSPENDED = "Suspended"  # no phase of Argo, which leaves such a run at Running or Pending
FAILED = ("Failed", "Error")  # Argo's phases of a run or a task that did not succeed
ENDED = (SUCCEEDED, *FAILED, "Skipped", "Omitted")
# Tasks of the exit handler, in their order.
ROLL_BACK = "roll-back"
REPORT_RUN = "report-run"
EXIT_TASKS = (ROLL_BACK, REPORT_RUN)
# A run that started one of these tasks may have changed the release that serves.
TOUCHING = frozenset({"roll-out-service", "smoke-test", "promote-release"})
# Reasons for which Argo skips a task: of the pipeline, and of the exit handler.
NOTHING_TO_DO = "check-release found nothing to do"
NOT_FAILED = "the run did not fail"
NO_EXIT_HANDLER = "its exit handler did not run. Next: submit a new run, which cleans up, or run slipway step roll-back"


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
    recaps: tuple[str, ...] = ()  # of each attempt; empty for an attempt that ended before it wrote one
    tried: tuple[str, ...] = ()  # messages of the attempts that failed, in their order
    at_exit: bool = False  # a task of the exit handler

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    @property
    def failed(self) -> bool:
        return self.phase in FAILED

    @property
    def skipped(self) -> bool:
        """Whether Argo skipped it because the run is a no-op."""
        return self.message == NOTHING_TO_DO

    @property
    def ran(self) -> bool:
        return self.phase not in ("Skipped", "Omitted")

    @property
    def recap(self) -> str:
        """Recap of the last attempt."""
        return self.outputs.get(RECAP, "")

    @property
    def changed(self) -> bool | None:
        """Whether an attempt made a change; None if that is not known."""
        if self.skipped:
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
        gone = ", which is gone: a running controller passes the mutex on within seconds" if self.gone else ""
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
    tasks: tuple[TaskResult, ...] = ()  # those with a node, in the order of the pipeline, the exit handler last
    namespace: str = ""
    shutdown: str = ""  # Stop or Terminate, once requested
    queued_behind: tuple[Queue, ...] = ()
    unread: str = ""  # why its tasks are not known, although Argo may know them

    @property
    def ended(self) -> bool:
        return self.phase in (SUCCEEDED, *FAILED)

    @property
    def failed(self) -> bool:
        return self.phase in FAILED

    @property
    def left_behind(self) -> str:
        """Why a failed run needs a cleanup, for people: Argo starts no exit handler after Terminate, nor if it cannot
        create one.

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
        """The changed tasks of the pipeline, in a few words; empty if that is not known."""
        pipeline = [task for task in self.tasks if not task.at_exit]
        changed = [task.name for task in pipeline if task.changed]
        if changed:
            return f"changed by {', '.join(changed)}"
        return NOTHING_CHANGED if pipeline and all(task.changed is False for task in pipeline) else ""

    @property
    def release(self) -> str:
        """The release that the run promoted or found promoted; empty before that."""
        found = {task.name: task.outputs.get("release", "") for task in self.tasks}
        return found.get("promote-release") or found.get("check-release", "")

    @property
    def overrides(self) -> tuple[InForce, ...]:
        """Overrides in force, by the first task; none if they are not known."""
        text = next((task.outputs["overrides"] for task in self.tasks if "overrides" in task.outputs), DOCUMENT)
        try:
            return of_text(text)
        except ValueError:
            return ()
