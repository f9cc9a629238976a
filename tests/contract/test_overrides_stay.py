"""What one run was told to change, later runs of every door keep, until the document changes or a run resets it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from steps.document.overrides import InForce, Resolved, Wanted, of_text
from steps.document.schema import Document, ModelService
from steps.errors import DocumentError
from steps.objects import record, services
from steps.promote_release import PromoteRelease
from steps.reconcile.converge import check
from steps.release import Release
from steps.resolve_model import ResolveModel
from tests.contract.test_overtaken_run import WHOLE
from tests.support.fakes import ListedSource, RecordingReport
from tests.support.live_cluster import LiveCluster, live_cluster
from tests.support.pd_group import eventually
from tests.support.samples import wanted

V24, V25 = (f"registry.example.com/llm/sglang-erdma:0.5.{number}" for number in (24, 25))
# What the schedule passes, an event without keys, the form as it opens, and `submit` without -p.
EMPTY = ("model-revision=", "image=", "prefill-replicas=", "strategy=", "skip-unchanged=")
GIVEN = {
    "image": f"image={V24}",
    "prefill-replicas": "prefill-replicas=1",
    "strategy": "strategy=Recreate",
    "model-revision": "model-revision=v2.1",
}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveCluster]:
    with live_cluster(tmp_path) as found:
        yield found


class Hub:
    """Remembers of which revisions it was asked."""

    def __init__(self) -> None:
        self.revisions: list[str] = []

    def __call__(self, service: ModelService) -> ListedSource:
        self.revisions.append(service.model.revision)
        return ListedSource(WHOLE)


def first_task(live: LiveCluster, wants: Wanted, hub: Hub | None = None) -> tuple[RecordingReport, str]:
    report, outcome = live.run(ResolveModel(wants, hub or Hub(), live.port))
    return report, str(outcome.outputs.overrides)


def go_on(live: LiveCluster, wants: Wanted, overrides: str) -> Resolved:
    """The other tasks of a run, with what its first one said."""
    resolved = wants.resolve(of_text(overrides))
    release = Release(resolved.service, WHOLE.digest)
    for step in (live.volume(release), live.rollout(release), promotion(live, wants, resolved)):
        live.run(step)
    return resolved


def promotion(live: LiveCluster, wants: Wanted, resolved: Resolved) -> PromoteRelease:
    release = Release(resolved.service, WHOLE.digest)
    return PromoteRelease(release, live.port, live.clock, release.id, wants.run, resolved.overrides, wants.fingerprint)


def run(live: LiveCluster, wants: Wanted) -> Resolved:
    return go_on(live, wants, first_task(live, wants)[1])


def scheduled(run: str = "nightly-8", document: Document | None = None) -> Wanted:
    found = wanted(*EMPTY, run=run)
    return replace(found, document=document or found.document)


def changed(old: str, new: str) -> Document:
    document = wanted().document
    assert old in document.text
    return replace(document, text=document.text.replace(old, new))


def found(live: LiveCluster) -> record.Record:
    return record.read(live.port.get(record.record_ref(wanted().resolve().service)))


@pytest.mark.parametrize("parameter", GIVEN)
def test_the_schedule_and_an_event_without_it_keep_what_ci_deployed(live: LiveCluster, parameter: str) -> None:
    run(live, scheduled("nightly-6"))
    deployed = run(live, wanted(GIVEN[parameter], run="demo-c1"))
    before = live.objects()
    hub = Hub()
    report, overrides = first_task(live, scheduled(), hub)
    (one,) = of_text(overrides)
    assert f"{one.parameter}={one.value}" == GIVEN[parameter]
    assert one.run == "demo-c1"
    assert hub.revisions == [deployed.service.model.revision]
    reset = f"inherited from run demo-c1; reset it with -p {parameter}=document or change the document"
    assert f"{one.field}={one.value} {reset}" in report.of("ok")
    assert go_on(live, scheduled(), overrides).service == deployed.service
    assert live.objects() == before  # so that the night is quiet
    assert (found(live).counter, found(live).run) == (2, "demo-c1")


def test_a_changed_document_wins_as_a_whole_and_its_old_text_does_not_bring_an_override_back(
    live: LiveCluster,
) -> None:
    run(live, wanted(GIVEN["image"], GIVEN["prefill-replicas"], run="demo-c1"))
    other = scheduled("nightly-8", changed("0 3 * * *", "0 4 * * *"))
    report, overrides = first_task(live, other)
    assert overrides == "document"
    ended = "(run demo-c1) is no longer in force: the document changed and wins as a whole"
    assert {f"serving.image={V24} {ended}", f"serving.prefill.replicas=1 {ended}"} <= set(report.of("ok"))
    assert go_on(live, other, overrides).service == other.resolve().service
    assert first_task(live, scheduled("nightly-9"))[1] == "document"


def test_a_comment_the_order_of_keys_and_an_explicit_empty_value_are_no_change_of_the_document() -> None:
    text = wanted().document.text
    head, _, tail = text.partition("metadata:")
    assert scheduled(document=Document(f"# a comment\n{text}", "a")).fingerprint == wanted().fingerprint
    assert scheduled(document=Document(f"metadata:{tail}\n{head}", "a")).fingerprint == wanted().fingerprint
    assert wanted("image=", sets=("serving.image=",)).fingerprint == wanted().fingerprint


@pytest.mark.parametrize("parameter", GIVEN)
def test_a_run_resets_an_override_and_later_runs_do_not_inherit_it(live: LiveCluster, parameter: str) -> None:
    run(live, wanted(GIVEN[parameter], run="demo-c1"))
    resets = wanted(f"{parameter}=document", run="demo-c2")
    report, overrides = first_task(live, resets)
    assert overrides == "document"
    assert any(line.endswith("(run demo-c1) is no longer in force: this run resets it") for line in report.of("ok"))
    # The record is a change, also where the release stays what it is: check-release may not call that current.
    go = resets.resolve(of_text(overrides))
    for step in (live.volume(Release(go.service, WHOLE.digest)), live.rollout(Release(go.service, WHOLE.digest))):
        live.run(step)

    def record_changes() -> bool:
        would = RecordingReport()
        check(promotion(live, resets, go), would)
        return any("ConfigMap" in line for line in would.of("changed"))

    # On a busy machine a probe of a worker may fail once, and then the promotion waits.
    eventually(record_changes, "the plan of the promotion writes the record")
    go_on(live, resets, overrides)
    assert (found(live).overrides, found(live).run) == ((), "demo-c2")
    assert run(live, scheduled()).service == scheduled().resolve().service


def test_a_reset_of_one_leaves_the_others_and_a_later_value_wins(live: LiveCluster) -> None:
    run(live, wanted(GIVEN["image"], GIVEN["strategy"], GIVEN["prefill-replicas"], run="demo-c1"))
    run(live, wanted(f"image={V25}", "prefill-replicas=document", GIVEN["strategy"], run="demo-c2"))
    assert found(live).overrides == (
        InForce("image", V25, "demo-c2"),
        InForce("strategy", "Recreate", "demo-c1"),  # demo-c2 only said it again
    )


def test_a_run_that_failed_before_its_promotion_leaves_nothing_to_inherit(live: LiveCluster) -> None:
    run(live, scheduled("nightly-6"))
    wants = wanted(GIVEN["image"], run="demo-c1")
    release = Release(wants.resolve(of_text(first_task(live, wants)[1])).service, WHOLE.digest)
    for step in (live.volume(release), live.rollout(release)):
        live.run(step)
    assert first_task(live, scheduled())[1] == "document"


def test_a_retry_goes_by_what_its_first_task_found_however_the_record_is_by_then(live: LiveCluster) -> None:
    run(live, wanted(GIVEN["image"], run="demo-c1"))
    _, overrides = first_task(live, scheduled())
    run(live, wanted("image=document", run="demo-c2"))
    assert scheduled().resolve(of_text(overrides)).service.serving.image == V24


def test_edits_of_a_local_run_are_not_inherited(live: LiveCluster) -> None:
    edited = wanted(sets=("serving.prefill.replicas=1",), run="local-1")
    assert run(live, edited).service.serving.prefill.replicas == 1
    assert run(live, scheduled("local-2")).service.serving.prefill.replicas == 2


SPOILT = {
    "no JSON": ("{", "data.overrides: Expecting"),
    "no mapping": ("[7]", "data.overrides: "),
    "a value that may not come in": ('{"image": {"value": "a b", "run": "r"}}', "image: image is 'a b', expected"),
    "a parameter of another Slipway": ('{"canary": {"value": "1", "run": "r"}}', "'canary' is no sticky parameter"),
    "no run": ('{"image": {"value": "a:0.5.24"}}', "image: 'run'"),
    "text": ('{"image": "a:0.5.24"}', "image: "),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_cannot_be_read_of_the_overrides_is_named_and_stops_nothing(live: LiveCluster, case: str) -> None:
    run(live, wanted(GIVEN["strategy"], run="demo-c1"))
    text, words = SPOILT[case]
    live.patch(record.record_ref(wanted().resolve().service), {"data": {"overrides": text}})
    report, overrides = first_task(live, scheduled())
    assert overrides == "document"
    assert any("has overrides that are ignored: " in line and words in line for line in report.of("ok"))
    assert (found(live).broken, found(live).counter) == ("", 1)


def test_an_override_that_contradicts_the_document_is_a_fault_of_the_first_task_that_names_both(
    live: LiveCluster,
) -> None:
    """The tag of an image, and a version that the document states."""
    stated = replace(wanted(), sets=(f"serving.version={wanted().resolve().service.serving.version}",))
    with pytest.raises(DocumentError) as refused:
        first_task(live, replace(stated, parameters={"image": V24}, run="demo-c1"))
    words = str(refused.value)
    assert f"with serving.image={V24} (run demo-c1) has 1 validation error" in words
    assert "serving.version (override of serving.version): found '0.5.23'" in words
    assert words.endswith("Next: change the document, or start a run with -p image=document")


def test_traffic_follows_what_is_inherited(live: LiveCluster) -> None:
    deployed = run(live, wanted(GIVEN["image"], run="demo-c1"))
    run(live, scheduled())
    traffic = live.port.get(services.traffic_service_ref(deployed.service))
    assert services.serving_release(traffic) == Release(deployed.service, WHOLE.digest).id
