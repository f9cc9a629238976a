"""The end of a run, for its exit handler: name and status from Argo, the rest from the Workflow object.

No text of a task passes through a template: Argo would evaluate expressions in it, and a long text would stop the exit
handler.
"""

from collections.abc import Callable
from dataclasses import dataclass

from steps.document.schema import ModelService
from steps.errors import Blocked, StepError
from steps.kinds import WORKFLOW, Manifest, Ref
from steps.ports.kubernetes import Cluster
from steps.report.argo_nodes import read_run
from steps.report.run import FAILED, SUCCEEDED, Run

ReadWorkflow = Callable[[], Manifest | None]


@dataclass(frozen=True)
class Failure:
    task: str
    message: str

    def __str__(self) -> str:
        return f"{self.task} failed: {self.message}" if self.message else f"{self.task} failed"


@dataclass(frozen=True)
class RunEnd:
    """The variables that Argo passes to an exit handler.

    https://argo-workflows.readthedocs.io/en/latest/variables/#exit-handler
    """

    name: str
    status: str  # Succeeded, Failed or Error; empty if it was not given, or not resolved
    by_hand: bool = False  # a person started the step, so there is no status

    @classmethod
    def of(cls, name: str, status: str) -> "RunEnd":
        return cls(_filled_in(name), _filled_in(status), by_hand=not status)

    @property
    def failed(self) -> bool:
        return self.status in FAILED

    def __str__(self) -> str:
        return f"run {self.name}" if self.name else "the run"


@dataclass(frozen=True)
class ObservedRun:
    """The run by its Workflow object, as far as that can be read."""

    run: Run | None = None  # None outside of Argo, and if it cannot be read
    unread: str = ""  # why the state of its tasks is not known, in whole or in part

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The last attempt of each task that failed, and of each that failed before it succeeded."""
        pipeline = [task for task in self.run.tasks if not task.at_exit] if self.run else []
        final = ((task.name, task.message) for task in pipeline if task.failed)
        retried = ((task.name, task.tried[-1]) for task in pipeline if task.tried and not task.failed)
        return tuple(Failure(name, message) for name, message in (*final, *retried))

    def ran(self, tasks: frozenset[str]) -> bool:
        """Whether one of these tasks may have started."""
        if self.run is None or self.unread:
            return True
        return any(task.name in tasks and task.ran for task in self.run.tasks)

    @property
    def record_counter(self) -> int | None:
        """Counter of the release record that the run read in its first task; None if that is not known."""
        found = [task.outputs.get("record-counter", "") for task in self.run.tasks] if self.run else []
        return next((int(text) for text in found if text.isdecimal()), None)

    def recap(self, end: RunEnd) -> tuple[str, ...]:
        again = ", then retried" if end.status == SUCCEEDED else ""
        unread = (f"the state of the tasks is not known: {self.unread}",) if self.unread else ()
        return (*(f"{failure}{again}" for failure in self.failures), *unread)


def observe_run(read: ReadWorkflow) -> ObservedRun:
    """Never raises: without its own Workflow an exit handler still rolls back and still notifies."""
    try:
        found = read()
    except StepError as error:
        return ObservedRun(unread=error.reason)
    run = read_run(found) if found else None
    return ObservedRun(run, run.unread if run else "")


def workflow_of(cluster: Cluster, service: ModelService, name: str) -> Manifest | None:
    """The Workflow object of a run; None on a cluster without Argo. Raises Blocked if it is absent."""
    if not name or not cluster.serves(WORKFLOW):
        return None
    ref = Ref(WORKFLOW, name, service.workflow.namespace)
    found = cluster.get(ref)
    if found is None:
        raise Blocked(f"{ref} does not exist")
    return found


def _filled_in(text: str) -> str:
    """The value of a variable of Argo; empty if it was never resolved."""
    return "" if "{{" in text else text.strip()
