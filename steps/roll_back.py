"""roll-back: after a run that failed. Restores the recorded release, and removes a release without traffic.

The run stays failed. This step does:

- after a run that wrote nothing, by the Lease of the writer: nothing, in any state of the cluster;
- while another run changes the service: nothing;
- for a release that neither is recorded nor has the traffic: it deletes its group and Service, since the group holds
  GPUs. That is the failed BlueGreen candidate, and also the very first release. Volumes stay: they hold no bytes and no
  GPU, a retried roll-out needs them, and the next promotion collects them;
- for the recorded release, if it is gone (Recreate) or was changed in place by this run (scaling): it applies the
  recorded group and Service again and waits until they are ready. Traffic that leads elsewhere moves only after the
  release has answered;
- for a release that has the traffic but is not recorded yet: nothing. It was proved, and the next run finishes its
  promotion.

By hand, without the status of a run, it is the decision of a person, and does the same for any state that it finds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from steps.document.schema import ModelService
from steps.kinds import RELEASE_LABEL, ROLE_BASED_GROUP, Manifest, Ref
from steps.objects import group_operator, record, services
from steps.objects.converging import Apply, ObjectObservation, apply_changes, observe_object, plan_objects
from steps.objects.metadata import being_deleted, labels_of
from steps.objects.ownership import foreign_owner, owner
from steps.objects.record import Entry, Record
from steps.ports.kubernetes import Cluster
from steps.ports.sglang import ChatRequest, ChatResponse, EngineError, Inference, NotServing, Server
from steps.proof.answers import flaws, shown
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.report.run import TOUCHING
from steps.report.run_end import ObservedRun, ReadWorkflow, RunEnd, observe_run
from steps.rollout.garbage import deletions, groups_and_services, superseded
from steps.rollout.intent import Intent
from steps.rollout.observation import GroupObservation, observe_group
from steps.rollout.readiness import Fingerprint, fingerprint, stable

KEPT, REMOVED, ROLLED_BACK = "kept", "removed", "rolled back"  # verdicts
OBJECTS = 3  # of a release in the record: the group, its own Service, and the Service of the clients


@dataclass(frozen=True)
class Facts:
    observed: ObservedRun = field(default_factory=ObservedRun)
    wrote: bool = True  # whether the run changed anything, by the Lease
    other_writer: str = ""  # which other run changes the service now
    overtaken: str = ""  # which newer run promoted since this one began
    operator: bool = True  # whether the cluster serves groups
    record: Record = field(default_factory=Record)
    broken: str = ""  # why the record cannot be read
    foreign: str = ""  # the owner of the record, if it is not Slipway
    traffic: Manifest | None = None
    found: tuple[Manifest, ...] = ()  # groups and Services of all releases of this service
    looks: tuple[ObjectObservation, ...] = ()  # recorded group and its own Service
    moving: ObjectObservation | None = None  # recorded traffic Service
    group: GroupObservation = field(default_factory=lambda: GroupObservation(None))  # the recorded group
    before: Fingerprint | None = None  # of the observation before this one
    proof: Plan = field(default_factory=Plan)  # of a chat with the recorded release, where traffic is to move
    done: tuple[str, ...] = ()  # by this step: REMOVED, ROLLED_BACK


@dataclass(frozen=True)
class Outputs:
    verdict: str
    message: str


@dataclass(frozen=True)
class RollBack:
    service: ModelService
    cluster: Cluster
    inference: Inference
    run: RunEnd
    workflow: ReadWorkflow = lambda: None
    wrote: Callable[[], bool] = lambda: True
    other_writer: Callable[[], str] = lambda: ""

    @property
    def deadline(self) -> float:
        return self.service.rollout.deadline_minutes * 60.0

    def observe(self, past: Past[Facts]) -> Facts:
        facts = self._about_the_run(past)
        if stays_out(self.run, facts):
            return facts
        facts = self._about_the_service(facts)
        current = facts.record.current
        if current is None or not facts.operator or facts.foreign or facts.overtaken or promotion_pending(facts):
            return facts
        return self._about_the_recorded(facts, current, past.facts)

    def plan(self, facts: Facts) -> Plan:
        return plan(self.service, self.run, facts)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        apply_changes(self.cluster, changes, report)

    def outputs(self, facts: Facts) -> Outputs:
        return Outputs(verdict=verdict(facts), message=summary(self.run, facts))

    def _about_the_run(self, past: Past[Facts]) -> Facts:
        """The end of a run does not change, and once this step has returned the Lease, it proves nothing."""
        before = past.facts
        return Facts(
            observed=before.observed if before else observe_run(self.workflow),
            wrote=before.wrote if before else self.wrote(),
            other_writer=self.other_writer(),
            done=tuple(ROLLED_BACK if isinstance(change.payload, Apply) else REMOVED for change in past.done),
        )

    def _about_the_service(self, facts: Facts) -> Facts:
        live_record = self.cluster.get(record.record_ref(self.service))
        foreign = foreign_owner(owner(self.service), live_record)
        found = Record() if foreign else record.read(live_record)
        broken = _broken(found)
        operator = group_operator.ask(self.cluster)
        return replace(
            facts,
            record=Record() if broken else found,
            broken=broken,
            overtaken=Intent(self.run.name, facts.observed.record_counter).overtaken(found),
            foreign=foreign,
            operator=operator is not None,
            traffic=self.cluster.get(services.traffic_service_ref(self.service)),
            found=groups_and_services(self.cluster, self.service, operator.kind if operator else None),
        )

    def _about_the_recorded(self, facts: Facts, current: Entry, past: Facts | None) -> Facts:
        group, own, traffic = current.objects
        found = observe_group(self.cluster, group)
        before = fingerprint(past.group) if past else None
        facts = replace(
            facts,
            looks=(observe_object(self.cluster, group), observe_object(self.cluster, own)),
            moving=observe_object(self.cluster, traffic),
            group=found,
            before=before,
        )
        ready = astray(facts) and plan_objects(facts.looks).converged and stable(group, found, before).converged
        return replace(facts, proof=self._proof(own, past)) if ready else facts

    def _proof(self, own: Manifest, past: Facts | None) -> Plan:
        """One chat through the router of the recorded release, with or without traffic; sent once while it is ready."""
        if past and past.proof.ok:
            return past.proof
        try:
            return self._chat(_server(own))
        except NotServing as error:
            return Plan(waiting=(error.reason,))

    def _chat(self, router: Server) -> Plan:
        # As the router knows the model: the document of a run that failed may call it by another name.
        models = {worker.served_model_name for worker in self.inference.routed_workers(router) if worker.healthy}
        if not models:
            raise NotServing(f"{router} knows no worker that is healthy")
        proof, model = self.service.proof, min(models)
        reply = self.inference.chat(router, ChatRequest(model, proof.prompt, proof.max_tokens))
        wrong = [str(reply)] if isinstance(reply, EngineError) else flaws(reply, model)
        if wrong:
            return Plan(failed=(_no_answer(router, wrong),))
        assert isinstance(reply, ChatResponse)
        return Plan(ok=(f"{router} answered: {shown(reply.text or reply.reasoning)}",))


def plan(service: ModelService, run: RunEnd, facts: Facts) -> Plan:
    recap = Plan(ok=_recap(run, facts))
    reason = stays_out(run, facts)
    if reason:
        return recap + (Plan(failed=(reason,)) if run.by_hand else Plan(ok=(reason,)))
    if facts.foreign or not facts.operator:
        return recap + Plan(failed=(facts.foreign or group_operator.ABSENT,))
    removals = Plan(
        deletions(
            superseded(facts.found, service, kept_releases(facts)),
            "neither recorded nor serving: it would hold GPUs without traffic",
        )
    )
    back = restoration(run, facts)
    if removals.changes and back.failed:
        return recap + removals  # the failure stays, and ends the step at its next observation
    return recap + removals + back


def stays_out(run: RunEnd, facts: Facts) -> str:
    """The reason to leave the service alone, for people; empty if there is none."""
    if run.by_hand:
        found = facts.observed.run
        at_work = f"{run} is {found.phase}: stop it first" if found and not found.ended else ""
        return at_work or facts.other_writer
    if not run.failed:
        return "no rollback" if run.status else "no status of a run was given, so no rollback"
    if not facts.wrote:
        return f"{run} wrote nothing, so no rollback"
    return f"no rollback: {facts.other_writer}" if facts.other_writer else ""


def kept_releases(facts: Facts) -> set[str]:
    """Ids of the releases that stay. Where the record is broken, the traffic decides, and else a person."""
    serving = services.serving_release(facts.traffic)
    recorded = facts.record.current.release if facts.record.current else ""
    if facts.broken and not _exists(facts, serving):
        return {labels_of(manifest).get(RELEASE_LABEL, "") for manifest in facts.found}
    return {recorded, serving} if facts.broken or promotion_pending(facts) else {recorded}


def promotion_pending(facts: Facts) -> bool:
    """The traffic goes to a release that exists but is not recorded: it was proved, only its promotion was cut off."""
    serving = services.serving_release(facts.traffic)
    recorded = facts.record.current.release if facts.record.current else ""
    return serving != recorded and _exists(facts, serving)


def astray(facts: Facts) -> bool:
    """Whether the traffic does not go to the recorded release."""
    current = facts.record.current
    return bool(current and facts.moving and services.serving_release(facts.moving.live) != current.release)


def restoration(run: RunEnd, facts: Facts) -> Plan:
    """Recorded group and Service where the run deleted or changed them; traffic once they have answered."""
    if not facts.looks or facts.moving is None:
        return Plan()
    restored, moves = ROLLED_BACK in facts.done, astray(facts)
    touched = run.by_hand or facts.observed.ran(TOUCHING)
    if not (touched or restored or facts.group.group is None):
        return Plan()  # a difference is not the work of this run
    foreign = plan_objects((*facts.looks, *([facts.moving] if moves else []))).failed
    if foreign:
        return Plan(failed=tuple(f"the recorded release is not restored: {fault}" for fault in foreign))
    objects = plan_objects(facts.looks)
    if objects.changes or objects.waiting or not (restored or moves):
        return objects
    ready = objects + stable(facts.looks[0].wanted, facts.group, facts.before)
    return ready + _moved_traffic(facts) if moves and ready.converged else ready


def _moved_traffic(facts: Facts) -> Plan:
    """The recorded release is ready; the traffic follows once it is also proved."""
    if facts.moving is None or not facts.proof.converged:
        return facts.proof
    return facts.proof + plan_objects((facts.moving,)) if facts.proof.ok else Plan(waiting=("the first answer",))


def verdict(facts: Facts) -> str:
    """`kept` (nothing was done), `removed` (a release without traffic) or `rolled back` (to the recorded one)."""
    return next((verdict for verdict in (ROLLED_BACK, REMOVED) if verdict in facts.done), KEPT)


def summary(run: RunEnd, facts: Facts) -> str:
    """Part of a sentence for people."""
    did = {
        ROLLED_BACK: "the recorded release was restored",
        REMOVED: "a release that is neither recorded nor serving was removed",
    }.get(verdict(facts))
    if not did and facts.other_writer:
        did = "no rollback, because another run changes the service"
    did = did or stays_out(run, facts) or "no rollback was needed"
    return "; ".join(filter(None, (did, *_without_rollback(facts))))


def _recap(run: RunEnd, facts: Facts) -> tuple[str, ...]:
    status = (f"{run}: {run.status}",) if run.status else ()
    return (*status, *facts.observed.recap(run), *_without_rollback(facts))


def _without_rollback(facts: Facts) -> tuple[str, ...]:
    if facts.overtaken:
        return (f"the recorded release is left as it is: {facts.overtaken}",)
    return (f"no release can be restored: {facts.broken}",) if facts.broken else ()


def _broken(found: Record) -> str:
    """Why no release can be restored from the record; empty if one can, or if none was promoted yet."""
    if found.current is None:
        return found.broken
    held = len(found.current.objects)
    return "" if held == OBJECTS else f"the record holds {held} objects, expected {OBJECTS}"


def _exists(facts: Facts, release_id: str) -> bool:
    return any(
        manifest["kind"] == ROLE_BASED_GROUP
        and labels_of(manifest).get(RELEASE_LABEL) == release_id
        and not being_deleted(manifest)
        for manifest in facts.found
    )


def _server(own: Manifest) -> Server:
    ref = Ref.of(own)
    return Server(
        "services", ref.namespace, ref.name, own["spec"]["ports"][0]["port"], f"{ref.name}.{ref.namespace}.svc"
    )


def _no_answer(router: Server, wrong: list[str]) -> str:
    return (
        f"the recorded release is ready, and {router} gave no good answer: {'; '.join(wrong)}. The traffic stays where "
        f"it is. Next: kubectl logs of its router and workers, then python -m steps roll-back by hand"
    )
