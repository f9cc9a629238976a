"""finish-run: after a run, whatever became of it. Puts a failed release back to the recorded one and tells people.

It never hides a failure: the run stays failed, and this step only says what it did about it. What it does:

- a run that succeeded, or whose status is unknown: nothing;
- a run whose service another run changes by now: nothing;
- a release that neither is recorded nor takes the traffic: its group and Service are removed, since the group holds
  GPUs. That is the failed BlueGreen candidate, and also the very first release if it failed: it served nobody. Volumes
  stay: they hold no bytes and no GPU, a retried roll-out needs them, and the next promotion collects them;
- the recorded release, if it is gone (Recreate) or was changed in place by this run (scaling): its recorded manifests
  are applied again and waited for;
- a release that takes the traffic already but is not recorded yet: nothing. It was proved, and the next run finishes
  its promotion. So is a run that failed before it touched the group: a healthy release is not put anywhere.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from steps.engine.errors import StepError
from steps.engine.plan import Change, Plan
from steps.engine.report import Report
from steps.objects import group_operator, record, services
from steps.objects.converging import Apply, Look, apply_changes, look, plan_objects
from steps.objects.group_look import GroupLook, look_at_group
from steps.objects.kinds import ROLE_BASED_GROUP, being_deleted, labels_of
from steps.objects.readiness import Signature, settled, signature
from steps.objects.record import Entry, Record
from steps.objects.retirement import deletions, groups_and_services, superseded
from steps.objects.workflow_run import WORKFLOW, Run, TaskResult
from steps.ports import Cluster, Manifest, Notifier, Ref
from steps.release import RELEASE_LABEL
from steps.service import ModelService

FAILED = ("Failed", "Error")  # what Argo calls a run that did not succeed
# Tasks from which on a failed run may have changed what serves.
TOUCHING = frozenset({"roll-out-service", "smoke-test", "promote-release"})


@dataclass(frozen=True)
class Failure:
    task: str
    message: str

    def __str__(self) -> str:
        return f"{self.task} failed: {self.message}" if self.message else f"{self.task} failed"


@dataclass(frozen=True)
class RunResult:
    """How a run ended, as Argo tells its exit handler.

    https://argo-workflows.readthedocs.io/en/latest/variables/#exit-handler
    """

    name: str
    status: str  # Succeeded, Failed or Error; empty if nobody said
    failures: tuple[Failure, ...] = ()

    @classmethod
    def of(cls, name: str, status: str, failures_json: str) -> "RunResult":
        """Read Argo's words; what cannot be read counts as not said, since the run itself is over already."""
        return cls(_said(name), _said(status), tuple(_failures(failures_json, _said(name))))

    @property
    def failed(self) -> bool:
        return self.status in FAILED

    @property
    def may_have_touched(self) -> bool:
        """Whether this run may have changed what serves."""
        return self.failed and any(failure.task in TOUCHING for failure in self.failures)


@dataclass(frozen=True)
class Facts:
    record: Record = field(default_factory=Record)
    traffic: Manifest | None = None
    found: tuple[Manifest, ...] = ()  # groups and Services of all releases of this service
    looks: tuple[Look, ...] = ()  # recorded objects: group, its Service, traffic Service
    group: GroupLook = field(default_factory=lambda: GroupLook(None))  # the recorded group
    before: Signature | None = None  # of the look before this one
    other_writer: str = ""  # which other run changes the service now
    whole: Run | None = None  # the run with all of its tasks, if it is a Workflow that may be read
    unread: str = ""  # why it could not be read
    done: tuple[str, ...] = ()  # what this step did already: "removed", "put back", "told"


@dataclass(frozen=True)
class Told:
    """Payload of the change that tells people."""

    message: Mapping[str, Any]


@dataclass(frozen=True)
class Outputs:
    verdict: str
    message: str


@dataclass(frozen=True)
class FinishRun:
    service: ModelService
    cluster: Cluster
    notifier: Notifier | None
    run: RunResult
    other_writer: Callable[[], str] = lambda: ""
    _done: list[str] = field(default_factory=list, init=False, compare=False, repr=False)
    _seen: list[Signature] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def deadline(self) -> float:
        return self.service.rollout.deadline_minutes * 60.0

    def observe(self) -> Facts:
        found = record.read(self.cluster.get(record.record_ref(self.service)))
        whole, unread = self._whole_run()
        facts = Facts(found, whole=whole, unread=unread, done=tuple(self._done))
        if not self.run.failed:
            return facts
        operator = group_operator.ask(self.cluster)
        facts = replace(
            facts,
            traffic=self.cluster.get(services.traffic_service_ref(self.service)),
            found=groups_and_services(self.cluster, self.service, operator.kind if operator else None),
            other_writer=self.other_writer(),
        )
        if found.current is None or operator is None or promotion_pending(facts):
            return facts
        return self._look_at_recorded(facts, found.current)

    def plan(self, facts: Facts) -> Plan:
        return plan(self.service, self.run, facts, tells=self.notifier is not None)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        for change in changes:
            if isinstance(change.payload, Told):
                self._tell(change, report)
            else:
                apply_changes(self.cluster, (change,), report)
                self._done.append("put back" if isinstance(change.payload, Apply) else "removed")

    def outputs(self, facts: Facts) -> Outputs:
        return Outputs(verdict=verdict(facts), message=summary(self.service, self.run, facts))

    def _whole_run(self) -> tuple[Run | None, str]:
        """Argo tells its exit handler of failures alone; what the other tasks did is in the Workflow. Without it the
        recap is shorter, and nothing else is worse.
        """
        if not (self.run.name and self.run.status):
            return None, ""
        try:
            if not self.cluster.serves(WORKFLOW):
                return None, ""
            found = self.cluster.get(Ref(WORKFLOW, self.run.name, self.service.workflow.namespace))
        except StepError as error:
            return None, error.reason
        return (Run.of(found), "") if found else (None, "")

    def _look_at_recorded(self, facts: Facts, current: Entry) -> Facts:
        group = look_at_group(self.cluster, current.objects[0])
        before = self._seen[-1] if self._seen else None
        self._seen[:] = [signature(group)]
        return replace(
            facts, looks=tuple(look(self.cluster, wanted) for wanted in current.objects), group=group, before=before
        )

    def _tell(self, change: Change, report: Report) -> None:
        """Tell people once. Whoever cannot be reached must not fail a run that is over."""
        self._done.append("told")
        if self.notifier is None:
            return
        try:
            self.notifier.send(change.payload.message)
        except StepError as error:
            report.note(f"warning: nobody was told how the run ended: {error}")
            return
        report.changed(change)
        if self.run.name and not self.other_writer():
            found = record.read(self.cluster.get(record.record_ref(self.service)))
            self.cluster.apply(record.record(self.service, replace(found, notified_run=self.run.name)))


def plan(service: ModelService, run: RunResult, facts: Facts, *, tells: bool) -> Plan:
    recap = Plan(kept=(*_recap(run), *_recap_of_tasks(facts)))
    way_back = _way_back(service, run, facts)
    if way_back.changes or (way_back.waits and not way_back.faults):
        return recap + way_back
    told = "told" in facts.done or (run.name and facts.record.notified_run == run.name)
    if tells and run.status and not told:
        return recap + Plan((_telling(service, run, facts, way_back.faults),))
    return recap + way_back


def verdict(facts: Facts) -> str:
    """What was done: `kept` (nothing), `removed` (a release that serves nobody) or `put back` (the recorded one)."""
    return "put back" if "put back" in facts.done else "removed" if "removed" in facts.done else "kept"


def summary(service: ModelService, run: RunResult, facts: Facts) -> str:
    """One sentence for people."""
    current = facts.record.current
    serves = f"{service.name} serves release {current.release}" if current else f"{service.name} serves no release yet"
    what = {
        "kept": "nothing had to be put back",
        "removed": "a release that is neither recorded nor serving was removed",
        "put back": "the recorded release was put back",
    }[verdict(facts)]
    if facts.other_writer:
        what = "nothing was put back, because another run changes the service"
    name = f"run {run.name}" if run.name else "the run"
    ended = f"{name}: {run.status or 'no status'}{_in_brackets(run)}"
    if facts.whole and facts.whole.result:
        ended += f"; {facts.whole.result}"
    return f"{ended}; {what if run.failed else 'nothing to put back'}; {serves}"


def promotion_pending(facts: Facts) -> bool:
    """The traffic goes to a release that exists but is not recorded: it was proved, only its promotion was cut off."""
    serving = services.serving_release(facts.traffic)
    recorded = facts.record.current.release if facts.record.current else ""
    return serving != recorded and any(_is_group_of(manifest, serving) for manifest in facts.found)


def _way_back(service: ModelService, run: RunResult, facts: Facts) -> Plan:
    if not run.failed:
        return Plan()
    if facts.other_writer:
        # This run lost the service or never had it, and what is half made there is being made by the other one.
        return Plan(kept=(f"nothing is put back: {facts.other_writer}",))
    keep = {services.serving_release(facts.traffic)} if promotion_pending(facts) else set()
    if facts.record.current:
        keep.add(facts.record.current.release)
    removals = deletions(
        superseded(facts.found, service, keep), "neither recorded nor serving, so it would hold GPUs for nobody"
    )
    return Plan(removals) + _restoration(run, facts)


def _restoration(run: RunResult, facts: Facts) -> Plan:
    """Apply the recorded objects where the run took them away or changed them, and wait until they serve."""
    if not facts.looks:
        return Plan()
    gone = facts.group.group is None
    if not (gone or run.may_have_touched or "put back" in facts.done):
        return Plan()  # whatever differs, it was not this run
    objects = plan_objects(facts.looks)
    if objects.changes or objects.waits:
        return objects
    if "put back" not in facts.done:
        return objects
    return objects + settled(facts.looks[0].wanted, facts.group, facts.before)


def _telling(service: ModelService, run: RunResult, facts: Facts, faults: tuple[str, ...]) -> Change:
    current = facts.record.current
    message = {
        "service": service.name,
        "namespace": service.namespace,
        "run": run.name,
        "status": run.status,
        "verdict": "not put back" if faults else verdict(facts),
        "release": current.release if current else "",
        "failures": [{"task": failure.task, "message": failure.message} for failure in run.failures],
        "result": facts.whole.result if facts.whole else "",
        "tasks": [
            {"task": task.name, "phase": task.phase, "seconds": task.seconds, "recap": task.recap}
            for task in _tasks(facts)
        ],
        "text": "; ".join([summary(service, run, facts), *(f"could not be put back: {fault}" for fault in faults)]),
    }
    return Change("create", f"message/{run.name or service.name}", f"tell people: {run.status}", Told(message))


def _recap(run: RunResult) -> list[str]:
    if not run.status:
        return ["no status of a run was given, so nothing is touched"]
    again = "" if run.failed else ", and was tried again"
    failures = (f"{failure}{again}" for failure in run.failures)
    return [f"run {run.name}: {run.status}" if run.name else f"run: {run.status}", *failures]


def _tasks(facts: Facts) -> tuple[TaskResult, ...]:
    """Those that have ended: this one has not, and what a failure or check-release left out never began."""
    found = facts.whole.tasks if facts.whole else ()
    return tuple(task for task in found if task.ended and not task.left_out and task.phase != "Omitted")


def _recap_of_tasks(facts: Facts) -> list[str]:
    if facts.unread:
        return [f"what the tasks did is not known: {facts.unread}"]
    return [str(task) for task in _tasks(facts)]


def _in_brackets(run: RunResult) -> str:
    """A run that succeeded names attempts that failed on the way, so it must not read like a failure."""
    if not run.failures:
        return ""
    failures = "; ".join(map(str, run.failures))
    return f" ({failures})" if run.failed else f" (tried again on the way: {failures})"


def _is_group_of(manifest: Manifest, release_id: str) -> bool:
    return (
        manifest["kind"] == ROLE_BASED_GROUP
        and labels_of(manifest).get(RELEASE_LABEL) == release_id
        and not being_deleted(manifest)
    )


def _said(text: str) -> str:
    """A variable of Argo that was never resolved says nothing."""
    return "" if "{{" in text else text.strip()


def _failures(text: str, run: str) -> list[Failure]:
    """`workflow.failures` is a list in JSON, often as JSON inside a JSON string; null or empty if there are none.

    It holds every failed node in no order: the attempts of a task, the node around them, which says only that nobody
    tries again, the group around the shards of a task, and the node of the whole run. The last attempt has the reason.
    https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/operator.go
    """
    found: Any = text
    try:
        while isinstance(found, str) and found.strip():
            found = json.loads(found)
    except ValueError:
        return []
    entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    ours = [entry for entry in entries if not run or _node(entry).removesuffix(".onExit") != run]
    last: dict[str, Mapping[str, Any]] = {}
    for entry in ours:
        if _attempt(entry) >= _attempt(last.get(_node(entry), {})):
            last[_node(entry)] = entry
    told = ((node, entry) for node, entry in last.items() if not any(other.startswith(f"{node}(") for other in last))
    in_time = sorted(told, key=lambda item: str(item[1].get("finishedAt") or ""))
    return [Failure(node, " ".join(str(entry.get("message") or "").split())) for node, entry in in_time]


_ATTEMPT = re.compile(r"\((\d+)\)$")


def _node(entry: Mapping[str, Any]) -> str:
    """Task of a failed node; the node of an attempt is called `task(0)`, that of a shard's attempt `task(2:2)(0)`."""
    return _ATTEMPT.sub("", str(entry.get("displayName") or entry.get("templateName") or "a task"))


def _attempt(entry: Mapping[str, Any]) -> int:
    """Which attempt of its task a node is; -1 for the node around the attempts."""
    found = _ATTEMPT.search(str(entry.get("displayName") or ""))
    return int(found[1]) if found else -1
