"""create-scratch: the claim of the scratch volume, right before a transfer needs it.

Argo makes the claims of `volumeClaimTemplates` before the first task. A run that waits for one under a quota can be
neither stopped nor terminated, and a run without a transfer makes one all the same. So the claim is made by a task.
"""

from dataclasses import dataclass
from typing import ClassVar

from steps.document.schema import ModelService
from steps.errors import Blocked
from steps.kinds import Manifest, Ref
from steps.objects.metadata import being_deleted
from steps.objects.scratch_claim import claim, claim_ref, owned_by
from steps.ports.kubernetes import Cluster
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report


@dataclass(frozen=True)
class Outputs:
    claim: str


@dataclass(frozen=True)
class CreateScratch:
    service: ModelService
    cluster: Cluster
    run: str  # name of the Workflow
    uid: str  # of the Workflow

    deadline: ClassVar[float] = 300.0  # seconds

    def observe(self, _past: Past[Manifest | None]) -> Manifest | None:
        if not self.run or not self.uid:
            raise Blocked(
                "there is no run that the scratch volume could belong to: --run-name or --run-uid is empty",
                "start a run; by hand, download-model takes any folder as --scratch",
            )
        return self.cluster.get(claim_ref(self.service, self.run))

    def plan(self, live: Manifest | None) -> Plan:
        return plan(self.service, self.run, self.uid, live)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        for change in changes:
            self.cluster.apply(claim(self.service, self.run, self.uid))
            report.changed(change)

    def outputs(self, _live: Manifest | None) -> Outputs:
        ref = claim_ref(self.service, self.run)
        return Outputs(f"{ref.namespace}/{ref.name}")


def plan(service: ModelService, run: str, uid: str, live: Manifest | None) -> Plan:
    if live is None:
        return Plan((Change("create", str(claim_ref(service, run)), f"{service.transfer.scratch.size} of scratch"),))
    ref = Ref.of(live)
    if not owned_by(live, uid):
        delete = f"kubectl delete persistentvolumeclaim {ref.name} -n {ref.namespace}"
        fault = f"{ref} exists, and no owner of it has the uid of this run, {uid}"
        return Plan(failed=(f"{fault}. Next: submit a new run, or {delete} if no run needs it",))
    if being_deleted(live):
        return Plan(waiting=(f"{ref} to be gone: it is being deleted",))
    return Plan(ok=(f"{ref} is there, with what an earlier attempt moved",))
