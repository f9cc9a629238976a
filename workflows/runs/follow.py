"""Following a run is a step that only reads: the loop waits, and the plan names the reason."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from steps.errors import TransientError
from steps.kinds import Manifest
from steps.reconcile.clock import Clock
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.report.argo_nodes import read_run
from steps.report.run import SUSPENDED, Run, TaskResult

NO_ANSWER_SECONDS = 300.0  # seconds without an answer after which following ends; the run goes on without us
APPEARS_WITHIN = 60.0  # seconds; a run that an event requests may appear late, or never


RunExists = Callable[[str], bool]  # by the name of a run


def with_gone_holders(run: Run, exists: RunExists) -> Run:
    """Argo records the holder of a lock when it last refused the run; that holder may be deleted since."""
    if run.ended or not run.queued_behind:
        return run
    return replace(run, queued_behind=tuple(replace(one, gone=not exists(one.holder)) for one in run.queued_behind))


@dataclass(frozen=True)
class RunObservation:
    run: Run | None
    since: float  # seconds on the clock: of the last answer, or of the start of following
    unanswered: str = ""  # why there was no answer this time; the run is the one observed before


@dataclass(frozen=True)
class FollowRun:
    """Wait for the end of a run. Done means Succeeded; any other end is a fault."""

    name: str
    read: Callable[[], Manifest | None]
    deadline: float  # seconds
    clock: Clock
    exists: RunExists = lambda _: True
    latest: Callable[[Run], None] = lambda _: None  # called with each state of the run

    def observe(self, past: Past[RunObservation]) -> RunObservation:
        """Raises TransientError only after minutes without an answer: an API server may restart during a long run."""
        before = past.facts or RunObservation(None, self.clock.now())
        try:
            found = self.read()
        except TransientError as error:
            if self.clock.now() - before.since >= NO_ANSWER_SECONDS:
                raise
            return replace(before, unanswered=error.reason)
        if found is None:
            late = self.clock.now() - before.since >= APPEARS_WITHIN
            return RunObservation(None, before.since, "deleted" if before.run else "never" if late else "")
        run = with_gone_holders(read_run(found), self.exists)
        self.latest(run)
        return RunObservation(run, self.clock.now())

    def plan(self, observed: RunObservation) -> Plan:
        return plan(self.name, observed)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        """Never called: this step has no changes."""

    def outputs(self, observed: RunObservation) -> Run | None:
        return observed.run


def plan(name: str, observed: RunObservation) -> Plan:
    run = observed.run
    if run is None:
        return _absent(name, observed.unanswered)
    if run.failed:
        return Plan(failed=(failure(run),))
    if run.ended:
        return Plan(ok=(f"run {name} {run.phase}" + (f": {run.result}" if run.result else ""),))
    return Plan(waiting=tuple(_unanswered(observed)) or (where(run),))


def where(run: Run) -> str:
    """The current state of the run in one line."""
    asked = f", {run.shutdown} was asked for" if run.shutdown else ""
    if run.phase == SUSPENDED:
        return f"Suspended{asked}, it goes on with: argo resume -n {run.namespace} {run.name}; {_done(run)}"
    if run.queued_behind:
        return f"{run.phase}{asked}, queued for {' and '.join(map(str, run.queued_behind))}"
    if run.phase == "Pending":
        return f"Pending{f': {run.message}' if run.message else ', no controller of Argo has reconciled it yet'}"
    return f"{run.shutdown} was asked for; {_done(run)}" if run.shutdown else _done(run)


def _done(run: Run) -> str:
    at_work = [_at_work(task) for task in run.tasks if not task.ended]
    done = sum(task.ended for task in run.tasks)
    total = f" ({run.progress})" if run.progress else ""
    return f"{done} {'task' if done == 1 else 'tasks'} done{total}" + (f"; {', '.join(at_work)}" if at_work else "")


def failure(run: Run) -> str:
    """Why a run failed: the messages of its failed tasks, else the message of Argo."""
    causes = "; ".join(f"{task.name}: {task.message or task.phase}" for task in run.failures)
    why = "; ".join(filter(None, (run.left_behind, causes or run.message)))
    return f"run {run.name} {run.phase}: {why or 'Argo gives no reason'}"


def _at_work(task: TaskResult) -> str:
    attempt = f", attempt {len(task.recaps)}" if len(task.recaps) > 1 else ""
    progress = f" {task.progress}" if task.progress not in ("", "0/1", "1/1") else ""
    return f"{task.name} {task.phase}{progress}{attempt}" + (f" ({task.message})" if task.message else "")


def _absent(name: str, why: str) -> Plan:
    if why == "deleted":
        return Plan(failed=(f"run {name} was deleted while it was followed",))
    if why == "never":
        fault = (
            f"run {name} did not appear within {APPEARS_WITHIN:g} s: no event binding took the event, or Argo Server "
            "dispatches events later. Next: kubectl describe workfloweventbindings"
        )
        return Plan(failed=(fault,))
    return Plan(waiting=(why or f"run {name} does not exist yet",))


def _unanswered(observed: RunObservation) -> list[str]:
    return [f"{observed.unanswered}; polling again"] if observed.unanswered else []
