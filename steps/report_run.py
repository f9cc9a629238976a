"""report-run: the last task of each run. It notifies people of the result and of the rollback.

It changes nothing of the service, and its failure changes nothing either: it is shown on its own task. It deletes the
scratch volume of a run that no Retry needs. Argo starts the exit handler once when a run ends, and once more when a
Retry of it ends: each end has its own message, so no message is remembered.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from steps.document.overrides import InForce
from steps.document.schema import ModelService
from steps.errors import Blocked, StepError
from steps.kinds import PERSISTENT_VOLUME_CLAIM, Manifest, Ref
from steps.objects import record, scratch_claim
from steps.objects.metadata import being_deleted
from steps.ports.kubernetes import Cluster
from steps.ports.notify import Notifier
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.report.recap import task_line
from steps.report.run import ROLL_BACK, SUCCEEDED, TaskResult
from steps.report.run_end import ObservedRun, ReadWorkflow, RunEnd, observe_run

DEADLINE = 300.0  # seconds
# Argo starts the pod of this step just before it writes how roll-back ended; with the pauses of the loop, some 20 s.
OBSERVATIONS_OF_ROLL_BACK = 8
# Tasks of the pipeline that create and use up the scratch volume.
CREATE_SCRATCH = "create-scratch"
UPLOAD_MODEL = "upload-model"
ENDED = ("Succeeded", "Failed")  # phases of a pod


@dataclass(frozen=True)
class Facts:
    observed: ObservedRun = field(default_factory=ObservedRun)
    release: str | None = ""  # id of the release that serves; empty: there is none; None: it is not known
    overrides: tuple[InForce, ...] = ()  # under which it was promoted
    observations: int = 0  # of this step so far
    notified: bool = False
    spare: tuple[Manifest, ...] = ()  # the scratch claim that no Retry needs, and the ended pods that would keep it


@dataclass(frozen=True)
class Notification:
    """Payload of the change that notifies people."""

    message: Mapping[str, Any]


@dataclass(frozen=True)
class Deletion:
    """Payload of the change that deletes that very object."""

    ref: Ref
    uid: str


@dataclass(frozen=True)
class Outputs:
    verdict: str
    message: str


@dataclass(frozen=True)
class ReportRun:
    service: ModelService
    cluster: Cluster
    notifier: Callable[[], Notifier] | None  # None: the document has no target for notifications
    run: RunEnd
    workflow: ReadWorkflow = lambda: None

    @property
    def deadline(self) -> float:
        return DEADLINE

    def observe(self, past: Past[Facts]) -> Facts:
        found = observe_run(self.workflow)
        notified = any(isinstance(change.payload, Notification) for change in past.done)
        return Facts(
            found,
            *self._serving(),
            observations=past.facts.observations + 1 if past.facts else 1,
            notified=notified,
            spare=self._spare(notified=notified) if no_retry_needs_scratch(self.run, found) else (),
        )

    def plan(self, facts: Facts) -> Plan:
        return plan(self.service, self.run, facts, notifies=self.notifier is not None)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        """Raises Blocked for a target that refuses the message, once the other changes are done."""
        refused: Blocked | None = None
        for change in changes:
            try:
                self._apply(change)
            except Blocked as error:
                if not isinstance(change.payload, Notification):
                    raise
                refused = error
            else:
                report.changed(change)
        if refused:
            raise Blocked(f"the result of the run did not reach every target: {refused.reason}", refused.hint)

    def outputs(self, facts: Facts) -> Outputs:
        return Outputs(verdict(self.run, facts), summary(self.service, self.run, facts))

    def _apply(self, change: Change) -> None:
        if isinstance(change.payload, Deletion):
            self.cluster.delete(change.payload.ref, change.payload.uid)
        elif self.notifier:
            self.notifier().send(change.payload.message)

    def _spare(self, *, notified: bool) -> tuple[Manifest, ...]:
        """Before people are notified, a cluster that does not answer is no reason to wait."""
        try:
            return self._read_spare()
        except StepError:
            if notified or self.notifier is None:
                raise
            return ()

    def _read_spare(self) -> tuple[Manifest, ...]:
        live = self.cluster.get(scratch_claim.claim_ref(self.service, self.run.name))
        if live is None or not scratch_claim.of_run(live, self.run.name):
            return ()
        pods = scratch_claim.pods_of(self.cluster, self.service, self.run.name)
        ended = (pod for pod in pods if (pod.get("status") or {}).get("phase") in ENDED)
        return tuple(found for found in (*ended, live) if not being_deleted(found))

    def _serving(self) -> tuple[str | None, tuple[InForce, ...]]:
        try:
            found = record.read(self.cluster.get(record.record_ref(self.service)))
        except StepError:
            return None, ()
        return (found.current.release, found.overrides) if found.current else ("", ())


def plan(service: ModelService, run: RunEnd, facts: Facts, *, notifies: bool) -> Plan:
    if not run.status:
        return Plan(ok=("no status of a run was given, so no message is sent",))
    back = _roll_back(facts)
    if run.failed and back and not back.ended and facts.observations < OBSERVATIONS_OF_ROLL_BACK:
        return Plan(waiting=(f"Argo to write how {ROLL_BACK} ended",))
    notification = (_notification(service, run, facts),) if notifies and not facts.notified else ()
    ok = (f"{run}: {run.status}", *facts.observed.recap(run), *map(task_line, _tasks(facts)))
    return Plan((*notification, *map(_deletion, facts.spare)), ok=ok)


def no_retry_needs_scratch(run: RunEnd, found: ObservedRun) -> bool:
    """Whether the files on the scratch volume of this run, if it has one, are of no further use.

    A Retry of a run that failed runs neither create-scratch nor upload-model again once they succeeded.
    """
    if not run.status or found.run is None or found.unread:
        return False
    phases = {task.name: task.phase for task in found.run.tasks if task.ran}
    if CREATE_SCRATCH not in phases:
        return False
    return not run.failed or phases[CREATE_SCRATCH] != SUCCEEDED or phases.get(UPLOAD_MODEL) == SUCCEEDED


def _deletion(found: Manifest) -> Change:
    ref = Ref.of(found)
    why = (
        "no Retry of this run needs it" if ref.kind == PERSISTENT_VOLUME_CLAIM else "it has ended, and holds the claim"
    )
    return Change("delete", str(ref), why, Deletion(ref, found["metadata"]["uid"]))


def verdict(run: RunEnd, facts: Facts) -> str:
    """The verdict of roll-back, `not rolled back` if it failed, `kept` after a run that did not fail."""
    back = _roll_back(facts)
    if not run.failed:
        return "kept"
    if back is None or not back.ended:
        return "not known"
    return "not rolled back" if back.failed else back.outputs.get("verdict", "") or "kept"


def summary(service: ModelService, run: RunEnd, facts: Facts) -> str:
    """One sentence for people."""
    ended = f"{run}: {run.status or 'no status'}{_in_brackets(run, facts.observed)}"
    if facts.observed.run and facts.observed.run.result:
        ended += f"; {facts.observed.run.result}"
    return f"{ended}; {_rollback(run, facts)}; {_serves(service, facts)}"


def _rollback(run: RunEnd, facts: Facts) -> str:
    back = _roll_back(facts)
    if not run.failed:
        return "no rollback"
    if back is None or not back.ended:
        return "the result of the rollback is not known"
    if back.failed:
        return f"the rollback failed: {back.message or back.phase}"
    return back.outputs.get("message", "") or "no rollback was needed"


def _serves(service: ModelService, facts: Facts) -> str:
    if facts.release is None:
        return f"the release of {service.name} is not known"
    if not facts.release:
        return f"{service.name} serves no release yet"
    beside = f" with {', '.join(map(str, facts.overrides))}" if facts.overrides else ""
    return f"{service.name} serves release {facts.release}{beside}"


def _notification(service: ModelService, run: RunEnd, facts: Facts) -> Change:
    message = {
        "service": service.name,
        "namespace": service.namespace,
        "run": run.name,
        "status": run.status,
        "verdict": verdict(run, facts),
        "release": facts.release or "",
        "overrides": [asdict(one) for one in facts.overrides],
        "failures": [{"task": failure.task, "message": failure.message} for failure in facts.observed.failures],
        "result": facts.observed.run.result if facts.observed.run else "",
        "tasks": [
            {"task": task.name, "phase": task.phase, "seconds": task.seconds, "recap": task.recap}
            for task in _tasks(facts)
        ],
        "text": summary(service, run, facts),
    }
    return Change(
        "create", f"message/{run.name or service.name}", f"notify people: {run.status}", Notification(message)
    )


def _roll_back(facts: Facts) -> TaskResult | None:
    tasks = facts.observed.run.tasks if facts.observed.run else ()
    return next((task for task in tasks if task.at_exit and task.name == ROLL_BACK), None)


def _tasks(facts: Facts) -> tuple[TaskResult, ...]:
    """The tasks that ran and have ended: this one has not."""
    found = facts.observed.run.tasks if facts.observed.run else ()
    return tuple(task for task in found if task.ended and task.ran)


def _in_brackets(run: RunEnd, observed: ObservedRun) -> str:
    """A run that succeeded names attempts that failed on the way, so it must not read like a failure."""
    if not observed.failures:
        return ""
    failures = "; ".join(map(str, observed.failures))
    return f" ({failures})" if run.failed else f" (tried again on the way: {failures})"
