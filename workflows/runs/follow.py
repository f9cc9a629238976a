"""Following a run is a step that only looks: the engine waits, and the plan says for what."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from steps.errors import TransientError
from steps.kinds import Manifest
from steps.reconcile.clock import Clock
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.report.argo_nodes import read_run
from steps.report.run import SUSPENDED, Run, TaskResult

PATIENCE = 300.0  # seconds without an answer after which following ends; the run goes on without us
APPEARS_WITHIN = 60.0  # seconds; a run that was asked for by an event may come late, or never


RunExists = Callable[[str], bool]  # by the name of a run


def with_gone_holders(run: Run, exists: RunExists) -> Run:
    """Argo writes down who held a lock when the run was last refused, and that run may be deleted since."""
    if run.ended or not run.queued_behind:
        return run
    return replace(run, queued_behind=tuple(replace(one, gone=not exists(one.holder)) for one in run.queued_behind))


@dataclass(frozen=True)
class Seen:
    """The last look at a run."""

    run: Run | None
    silent: str = ""  # why there was no answer this time; the run is the one of the look before


@dataclass(frozen=True)
class FollowRun:
    """Wait until a run has ended. Done means Succeeded; a run that ended otherwise is a fault."""

    name: str
    look: Callable[[], Manifest | None]
    deadline: float  # seconds
    clock: Clock
    exists: RunExists = lambda _: True
    _answers: list[tuple[float, Run | None]] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def last(self) -> Run | None:
        """The run as it was last seen."""
        return self._answers[-1][1] if self._answers else None

    def observe(self, _past: Past[Seen]) -> Seen:
        """Raises TransientError only after some minutes of silence: an API server may restart during a long run."""
        if not self._answers:
            self._answers.append((self.clock.now(), None))
        since, before = self._answers[-1]
        try:
            found = self.look()
        except TransientError as error:
            if self.clock.now() - since >= PATIENCE:
                raise
            return Seen(before, error.reason)
        if found is None:
            return self._without_run(since, before)
        run = with_gone_holders(read_run(found), self.exists)
        self._answers[:] = [(self.clock.now(), run)]
        return Seen(run)

    def plan(self, seen: Seen) -> Plan:
        return plan(self.name, seen)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        """There is nothing that this step changes."""

    def outputs(self, seen: Seen) -> Run | None:
        return seen.run

    def _without_run(self, since: float, before: Run | None) -> Seen:
        late = self.clock.now() - since >= APPEARS_WITHIN
        return Seen(None, "deleted" if before else "never" if late else "")


def plan(name: str, seen: Seen) -> Plan:
    run = seen.run
    if run is None:
        return _nowhere(name, seen.silent)
    if run.failed:
        return Plan(failed=(failure(run),))
    if run.ended:
        return Plan(ok=(f"run {name} {run.phase}" + (f": {run.result}" if run.result else ""),))
    return Plan(waiting=tuple(_silence(seen)) or (where(run),))


def where(run: Run) -> str:
    """What the run is doing now, in one line."""
    asked = f", {run.shutdown} was asked for" if run.shutdown else ""
    if run.phase == SUSPENDED:
        return f"Suspended{asked}, it goes on with: argo resume -n {run.namespace} {run.name}; {_done(run)}"
    if run.queued_behind:
        return f"{run.phase}{asked}, queued for {' and '.join(map(str, run.queued_behind))}"
    if run.phase == "Pending":
        return f"Pending{f': {run.message}' if run.message else ', no controller of Argo has come to it yet'}"
    return f"{run.shutdown} was asked for; {_done(run)}" if run.shutdown else _done(run)


def _done(run: Run) -> str:
    at_work = [_at_work(task) for task in run.tasks if not task.ended]
    done = sum(task.ended for task in run.tasks)
    total = f" ({run.progress})" if run.progress else ""
    return f"{done} {'task' if done == 1 else 'tasks'} done{total}" + (f"; {', '.join(at_work)}" if at_work else "")


def failure(run: Run) -> str:
    """Why a run failed: what its failed tasks said, else what Argo says."""
    causes = "; ".join(f"{task.name}: {task.message or task.phase}" for task in run.failures)
    why = "; ".join(filter(None, (run.left_behind, causes or run.message)))
    return f"run {run.name} {run.phase}: {why or 'Argo gives no reason'}"


def _at_work(task: TaskResult) -> str:
    attempt = f", attempt {len(task.recaps)}" if len(task.recaps) > 1 else ""
    progress = f" {task.progress}" if task.progress not in ("", "0/1", "1/1") else ""
    return f"{task.name} {task.phase}{progress}{attempt}" + (f" ({task.message})" if task.message else "")


def _nowhere(name: str, why: str) -> Plan:
    if why == "deleted":
        return Plan(failed=(f"run {name} was deleted while it was followed",))
    if why == "never":
        fault = (
            f"run {name} did not appear within {APPEARS_WITHIN:g} s: no event binding took the event, or Argo Server "
            "dispatches events later. Next: kubectl describe workfloweventbindings"
        )
        return Plan(failed=(fault,))
    return Plan(waiting=(why or f"run {name} is not there yet",))


def _silence(seen: Seen) -> list[str]:
    return [f"{seen.silent}; looking again"] if seen.silent else []
