"""check-release: is this exact release deployed and verified? Then the other tasks are skipped.

It plans the steps of the pipeline, each with a view of the cluster that cannot write. The release is `current` only if
all plans are empty, it has just answered and moved KV cache, and no other run promoted a release since this run began.
Each other result is `stale`, and no failure of this step: the pipeline goes on, and the task of that object reports it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steps.errors import Blocked, StepError
from steps.reconcile.converge import Past, Step
from steps.reconcile.outputs import Word
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.release import Release

CURRENT = "current"
STALE = "stale"
DEADLINE = 600.0  # seconds; only an answer is waited for, and that not for long


@dataclass(frozen=True)
class Part:
    """One step of the pipeline, to be planned without its changes."""

    step: str
    build: Callable[[], Step[Any]]  # may raise StepError: a missing credential is a finding, as a change is
    # Observations with a plan that only waits. Counters of an engine follow its answer a moment later; each other wait
    # of a step is a reason for a full run.
    looks: int = 1


@dataclass(frozen=True)
class Observed:
    """One step as this run has observed it."""

    step: Step[Any]
    facts: Any
    plan: Plan
    outputs: Any  # None unless the plan is empty
    times: int  # observations of this step so far


@dataclass(frozen=True)
class Facts:
    stale: str = ""  # why a full run is needed; empty if it is not
    waits: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    seen: Mapping[str, Observed] = field(default_factory=dict)  # by the name of the step


@dataclass(frozen=True)
class Outputs:
    state: Word  # current or stale
    reason: str
    release: str  # that serves and was proved just now; these three are empty if the state is stale
    endpoint: str
    answer: str

    @property
    def verdict(self) -> str:
        return f"{self.state}: {self.reason}"


@dataclass(frozen=True)
class CheckRelease:
    release: Release
    parts: tuple[Part, ...]
    overtaken: Callable[[], str] = lambda: ""  # by which other run this one was overtaken, as a sentence

    @property
    def deadline(self) -> float:
        return DEADLINE

    def observe(self, past: Past[Facts]) -> Facts:
        """Plan each step in order, up to the first with a plan that is not empty."""
        if not self.release.service.workflow.skip_unchanged:
            return Facts("a full run was requested: workflow.skipUnchanged is false")
        kept: tuple[str, ...] = ()
        seen: dict[str, Observed] = {}
        before = past.facts.seen if past.facts else {}
        for part in self.parts:
            try:
                seen[part.step] = found = _observed(part, before.get(part.step))
            except StepError as error:
                return Facts(f"{part.step}: {error}", kept=kept)
            kept += found.plan.ok
            if found.plan.converged:
                continue
            if _only_waits(found.plan) and found.times < part.looks:
                return Facts(waits=found.plan.waiting, kept=kept, seen=seen)
            return Facts(f"{part.step} {first_reason(found.plan)}", kept=kept)
        try:
            return Facts(self.overtaken(), kept=kept, seen=seen)
        except StepError as error:
            return Facts(str(error), kept=kept)

    def plan(self, facts: Facts) -> Plan:
        return plan(self.release, facts)

    def apply(self, changes: tuple[Change, ...], _report: Report) -> None:
        raise Blocked(f"check-release changes nothing, and was asked for {len(changes)} changes")

    def outputs(self, facts: Facts) -> Outputs:
        if facts.stale:
            return Outputs(STALE, facts.stale, "", "", "")
        return Outputs(
            state=CURRENT,
            reason=whole_and_proved(self.release),
            release=self.release.id,
            endpoint=facts.seen["promote-release"].outputs.endpoint,
            answer=facts.seen["smoke-test"].outputs.answer,
        )


def _observed(part: Part, before: Observed | None) -> Observed:
    """Raises StepError. A step is built once in a run, and gets its own facts as the past."""
    step = before.step if before else part.build()
    facts = step.observe(Past(before.facts if before else None))
    plan = step.plan(facts)
    return Observed(
        step, facts, plan, step.outputs(facts) if plan.converged else None, before.times + 1 if before else 1
    )


def _only_waits(plan: Plan) -> bool:
    return not (plan.changes or plan.failed)


def plan(release: Release, facts: Facts) -> Plan:
    if facts.waits:
        return Plan(ok=facts.kept, waiting=facts.waits)
    verdict = f"{STALE}: {facts.stale}" if facts.stale else f"{CURRENT}: {whole_and_proved(release)}"
    return Plan(ok=tuple(dict.fromkeys((*facts.kept, verdict))))  # two of the steps observe the group


def first_reason(plan: Plan) -> str:
    """Why a step is not at rest, in a few words behind its name; faults weigh most."""
    if plan.failed:
        return f"finds: {plan.failed[0]}"
    if plan.changes:
        more = f", and {len(plan.changes) - 1} more" if len(plan.changes) > 1 else ""
        return f"would {plan.changes[0]}{more}"
    return f"waits for: {plan.waiting[0]}"


def whole_and_proved(release: Release) -> str:
    service = release.service
    return f"{service.name} serves release {release.id} of {service.model.id}, whole and proved just now"
