"""report-run: after every run, last of all. Tells people how it ended and what was put back.

It changes nothing of the service, and its failure changes nothing either: it is shown on its own task. It gives back
the scratch volume of a run that no Retry needs. A run has one
report for each of its ends: Argo starts the exit handler once when a run ends, and once more when a Retry of it ends,
which people must hear as well. So nothing is remembered of who was told.
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
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.report.recap import task_line
from steps.report.run import ROLL_BACK, SUCCEEDED, TaskResult
from steps.report.run_end import ObservedRun, ReadWorkflow, RunEnd, observe_run

DEADLINE = 300.0  # seconds
# Argo starts the pod of this step just before it writes how roll-back ended; with the pauses of the loop, some 20 s.
LOOKS_AT_ROLL_BACK = 8
# Tasks of the line that make and use up the scratch volume.
CREATE_SCRATCH = "create-scratch"
UPLOAD_MODEL = "upload-model"
ENDED = ("Succeeded", "Failed")  # phases of a pod


@dataclass(frozen=True)
class Facts:
    observed: ObservedRun = field(default_factory=ObservedRun)
    release: str | None = ""  # id of the release that serves; empty: there is none; None: it is not known
    overrides: tuple[InForce, ...] = ()  # under which it was promoted
    last_look: bool = False  # what Argo has not written by now is not waited for
    told: bool = False
    refused: str = ""  # why people could not be told
    spare: tuple[Manifest, ...] = ()  # the scratch claim that no Retry needs, and the ended pods that would keep it


@dataclass(frozen=True)
class Told:
    """Payload of the change that tells people."""

    message: Mapping[str, Any]


@dataclass(frozen=True)
class GivenBack:
    """Payload of the change that deletes that very object."""

    ref: Ref
    uid: str


@dataclass(frozen=True)
class Outputs:
    verdict: str
    message: str


@dataclass
class _Seen:
    looks: int = 0
    told: bool = False
    refused: str = ""


@dataclass(frozen=True)
class ReportRun:
    service: ModelService
    cluster: Cluster
    notifier: Callable[[], Notifier] | None  # None: the document names no one to tell
    run: RunEnd
    workflow: ReadWorkflow = lambda: None
    _seen: _Seen = field(default_factory=_Seen, init=False, compare=False, repr=False)

    @property
    def deadline(self) -> float:
        return DEADLINE

    def observe(self) -> Facts:
        self._seen.looks += 1
        found = observe_run(self.workflow)
        return Facts(
            found,
            *self._serving(),
            last_look=self._seen.looks >= LOOKS_AT_ROLL_BACK,
            told=self._seen.told,
            refused=self._seen.refused,
            spare=self._spare() if self._all_told and no_retry_needs_scratch(self.run, found) else (),
        )

    def plan(self, facts: Facts) -> Plan:
        return plan(self.service, self.run, facts, tells=self.notifier is not None)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        for change in changes:
            if isinstance(change.payload, GivenBack):
                self.cluster.delete(change.payload.ref, change.payload.uid)
                report.changed(change)
            else:
                self._tell(change, report)

    def outputs(self, facts: Facts) -> Outputs:
        return Outputs(verdict(self.run, facts), summary(self.service, self.run, facts))

    @property
    def _all_told(self) -> bool:
        """People first: the cluster may not answer about the scratch volume."""
        return self.notifier is None or self._seen.told or bool(self._seen.refused)

    def _spare(self) -> tuple[Manifest, ...]:
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

    def _tell(self, change: Change, report: Report) -> None:
        """Raises TransientError if no one answers. A refusal is kept until the recap is told, then it ends the step."""
        if self.notifier is None:
            return
        try:
            self.notifier().send(change.payload.message)
        except Blocked as error:
            self._seen.refused = f"no one was told how the run ended: {error}"
            return
        self._seen.told = True
        report.changed(change)


def plan(service: ModelService, run: RunEnd, facts: Facts, *, tells: bool) -> Plan:
    if not run.status:
        return Plan(ok=("no status of a run was given, so no one is told",))
    back = _roll_back(facts)
    if run.failed and back and not back.ended and not facts.last_look:
        return Plan(waiting=(f"Argo to write how {ROLL_BACK} ended",))
    recap = Plan(ok=(f"{run}: {run.status}", *facts.observed.recap(run), *map(task_line, _tasks(facts))))
    if facts.spare:
        return recap + Plan(tuple(map(_giving_back, facts.spare)))
    if facts.refused:
        return recap + Plan(failed=(facts.refused,))
    return recap if facts.told or not tells else recap + Plan((_telling(service, run, facts),))


def no_retry_needs_scratch(run: RunEnd, found: ObservedRun) -> bool:
    """Whether what was moved to the scratch volume of this run, if it has one, is of no use any more.

    A Retry of a run that failed runs neither create-scratch nor upload-model again once they succeeded.
    """
    if not run.status or found.run is None or found.unread:
        return False
    phases = {task.name: task.phase for task in found.run.tasks if task.ran}
    if CREATE_SCRATCH not in phases:
        return False
    return not run.failed or phases[CREATE_SCRATCH] != SUCCEEDED or phases.get(UPLOAD_MODEL) == SUCCEEDED


def _giving_back(found: Manifest) -> Change:
    ref = Ref.of(found)
    why = (
        "no Retry of this run needs it" if ref.kind == PERSISTENT_VOLUME_CLAIM else "it has ended, and holds the claim"
    )
    return Change("delete", str(ref), why, GivenBack(ref, found["metadata"]["uid"]))


def verdict(run: RunEnd, facts: Facts) -> str:
    """What roll-back did: its own word, `not put back` if it failed, `kept` after a run that did not fail."""
    back = _roll_back(facts)
    if not run.failed:
        return "kept"
    if back is None or not back.ended:
        return "not known"
    return "not put back" if back.failed else back.outputs.get("verdict", "") or "kept"


def summary(service: ModelService, run: RunEnd, facts: Facts) -> str:
    """One sentence for people."""
    ended = f"{run}: {run.status or 'no status'}{_in_brackets(run, facts.observed)}"
    if facts.observed.run and facts.observed.run.result:
        ended += f"; {facts.observed.run.result}"
    return f"{ended}; {_put_back(run, facts)}; {_serves(service, facts)}"


def _put_back(run: RunEnd, facts: Facts) -> str:
    back = _roll_back(facts)
    if not run.failed:
        return "nothing to put back"
    if back is None or not back.ended:
        return "what was put back is not known"
    if back.failed:
        return f"could not be put back: {back.message or back.phase}"
    return back.outputs.get("message", "") or "nothing had to be put back"


def _serves(service: ModelService, facts: Facts) -> str:
    if facts.release is None:
        return f"which release of {service.name} serves is not known"
    if not facts.release:
        return f"{service.name} serves no release yet"
    beside = f" with {', '.join(map(str, facts.overrides))}" if facts.overrides else ""
    return f"{service.name} serves release {facts.release}{beside}"


def _telling(service: ModelService, run: RunEnd, facts: Facts) -> Change:
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
    return Change("create", f"message/{run.name or service.name}", f"tell people: {run.status}", Told(message))


def _roll_back(facts: Facts) -> TaskResult | None:
    tasks = facts.observed.run.tasks if facts.observed.run else ()
    return next((task for task in tasks if task.at_exit and task.name == ROLL_BACK), None)


def _tasks(facts: Facts) -> tuple[TaskResult, ...]:
    """Those that were at work and have ended: this one has not."""
    found = facts.observed.run.tasks if facts.observed.run else ()
    return tuple(task for task in found if task.ended and task.ran)


def _in_brackets(run: RunEnd, observed: ObservedRun) -> str:
    """A run that succeeded names attempts that failed on the way, so it must not read like a failure."""
    if not observed.failures:
        return ""
    failures = "; ".join(map(str, observed.failures))
    return f" ({failures})" if run.failed else f" (tried again on the way: {failures})"
