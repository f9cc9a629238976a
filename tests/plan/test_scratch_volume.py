"""A scratch volume is there while a transfer of its run needs it, and no longer."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from steps.create_scratch import CreateScratch
from steps.errors import Blocked
from steps.kinds import Manifest, Ref
from steps.objects import scratch_claim
from steps.reconcile.converge import converge
from steps.report.run import Run, TaskResult
from steps.report.run_end import ObservedRun, RunEnd
from steps.report_run import ReportRun, no_retry_needs_scratch
from tests.support.argo_cluster import Attempt, nodes
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.samples import service

SERVICE = service("transfer.scratch={size: 1Ti, storageClassName: alicloud-disk-essd}")
RUN, UID = "nightly-7", "0b1c"
CLAIM = scratch_claim.claim_ref(SERVICE, RUN)


@dataclass
class Objects:
    """A namespace as a dictionary: what was applied is there, what was deleted is gone."""

    there: dict[Ref, Manifest] = field(default_factory=dict)
    deleted: list[tuple[str, str]] = field(default_factory=list)

    def get(self, ref: Ref) -> Manifest | None:
        return self.there.get(ref)

    def select(self, kind: Any, _namespace: str, labels: dict[str, str]) -> list[Manifest]:
        return [
            found
            for ref, found in self.there.items()
            if ref.kind == kind and labels.items() <= found["metadata"].get("labels", {}).items()
        ]

    def apply(self, wanted: Manifest) -> None:
        self.there[Ref.of(wanted)] = {**wanted, "metadata": {**wanted["metadata"], "uid": f"uid-{len(self.there)}"}}

    def delete(self, ref: Ref, uid: str) -> None:
        assert self.there.pop(ref)["metadata"]["uid"] == uid
        self.deleted.append((ref.kind.kind, ref.name))


def create(objects: Objects, uid: str = UID) -> RecordingReport:
    report = RecordingReport()
    port: Any = objects
    converge(CreateScratch(SERVICE, port, RUN, uid), report, FakeClock())
    return report


def test_the_claim_is_owned_by_the_workflow_so_it_goes_with_it() -> None:
    objects = Objects()
    assert create(objects).of("changed") == [f"create {CLAIM} (1Ti of scratch)"]
    made = objects.there[CLAIM]
    assert (CLAIM.name, CLAIM.namespace) == ("nightly-7-scratch", "slipway")
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": RUN, "uid": UID}
    ]
    assert made["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "alicloud-disk-essd",
        "resources": {"requests": {"storage": "1Ti"}},
    }
    assert "slipway/service" not in made["metadata"]["labels"]  # what promote-release would take for one over a model


def test_a_second_attempt_finds_its_claim_and_another_run_of_that_name_does_not_take_it() -> None:
    objects = Objects()
    create(objects)
    assert create(objects).of("changed") == []
    with pytest.raises(Blocked, match="no owner of it has the uid of this run, ffff"):
        create(objects, "ffff")


def test_without_a_run_there_is_no_claim() -> None:
    with pytest.raises(Blocked, match="--run-name or --run-uid is empty"):
        create(Objects(), "")


def observed(**phases: str) -> ObservedRun:
    tasks = tuple(TaskResult(name.replace("_", "-"), phase) for name, phase in phases.items())
    return ObservedRun(Run(RUN, "Running", tasks=tasks))


@pytest.mark.parametrize(
    ("status", "phases", "spare"),
    [
        ("Failed", {"preflight": "Failed"}, False),  # none was made
        ("Succeeded", {"preflight": "Skipped", "create_scratch": "Skipped"}, False),  # a night without a change
        ("Failed", {"create_scratch": "Failed"}, True),  # perhaps made; a Retry makes it anew
        ("Failed", {"create_scratch": "Succeeded"}, False),  # Retry begins with download-model
        ("Failed", {"create_scratch": "Succeeded", "download_model": "Failed"}, False),
        ("Error", {"create_scratch": "Succeeded", "download_model": "Succeeded", "upload_model": "Error"}, False),
        ("Failed", {"create_scratch": "Succeeded", "upload_model": "Succeeded", "smoke_test": "Failed"}, True),
        ("Succeeded", {"create_scratch": "Succeeded", "upload_model": "Succeeded"}, True),
        ("", {"create_scratch": "Succeeded", "upload_model": "Succeeded"}, False),  # by hand
    ],
)
def test_a_claim_is_kept_only_while_a_retry_could_go_on_from_it(
    status: str, phases: dict[str, str], spare: bool
) -> None:
    assert no_retry_needs_scratch(RunEnd.of(RUN, status), observed(**phases)) == spare
    assert not no_retry_needs_scratch(RunEnd.of(RUN, status), ObservedRun(unread="it is offloaded"))


def pod(name: str, phase: str, claim: str = CLAIM.name) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "slipway", "labels": {scratch_claim.RUN_LABEL: RUN}},
        "spec": {"volumes": [{"name": "scratch", "persistentVolumeClaim": {"claimName": claim}}]},
        "status": {"phase": phase},
    }


def report(objects: Objects, **phases: str) -> None:
    port: Any = objects
    tasks = {name.replace("_", "-"): (Attempt(phase, "", ""),) for name, phase in phases.items()}
    workflow = {"metadata": {"name": RUN}, "status": {"phase": "Failed", "nodes": nodes(RUN, tasks, root="Failed")}}
    step = ReportRun(SERVICE, port, None, RunEnd.of(RUN, "Failed"), lambda: workflow)
    converge(step, RecordingReport(), FakeClock())


def test_the_report_of_a_run_gives_the_claim_back_with_the_ended_pods_that_would_keep_it() -> None:
    objects = Objects()
    create(objects)
    for made in (pod("a", "Succeeded"), pod("b", "Running"), pod("c", "Failed", "another")):
        objects.apply(made)
    report(objects, create_scratch="Succeeded", upload_model="Succeeded", create_volume="Failed")
    assert objects.deleted == [("Pod", "a"), ("PersistentVolumeClaim", CLAIM.name)]


def test_a_claim_of_that_name_that_belongs_to_no_run_stays() -> None:
    objects = Objects()
    objects.apply(
        {"apiVersion": "v1", "kind": CLAIM.kind.kind, "metadata": {"name": CLAIM.name, "namespace": "slipway"}}
    )
    report(objects, create_scratch="Failed")
    assert objects.deleted == []
