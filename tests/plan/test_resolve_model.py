from pathlib import Path
from typing import Any

import pytest

from steps import resolve_model
from steps.errors import Blocked
from steps.kinds import Manifest
from steps.model import Listing, ModelFile
from steps.objects import record
from steps.objects.record import Record
from steps.reconcile.converge import check, converge
from steps.resolve_model import Facts, Outputs, ResolveModel
from tests.support.fakes import FakeClock, HoldingOne, ListedSource, RecordingReport
from tests.support.group_objects import live
from tests.support.hubs import MODEL, serving, source_of
from tests.support.samples import service, wanted

SHA = "a" * 64


def listing(*paths: str, size: int = 4_000_000_000) -> Listing:
    return Listing.of(ModelFile(path, size if path.endswith(".safetensors") else 1000, SHA) for path in paths)


WHOLE = listing("config.json", *(f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)))


def faults_of(found: Listing, *overrides: str) -> tuple[str, ...]:
    return resolve_model.plan(service(*overrides), Facts(found)).failed


def test_a_whole_model_is_told_in_one_line_and_pinned_in_another() -> None:
    plan = resolve_model.plan(service(), Facts(WHOLE))
    assert plan.converged
    assert plan.ok == ("Qwen/Qwen3-32B@master: 4 files, 12.0 GB", f"model digest {WHOLE.digest}")


def test_the_expected_digest_is_accepted() -> None:
    assert faults_of(WHOLE, f"model.digest={WHOLE.digest}") == ()


def test_another_digest_than_expected_says_both_and_what_to_do() -> None:
    expected = "sha256:" + "0" * 64
    (fault,) = faults_of(WHOLE, f"model.digest={expected}")
    assert WHOLE.digest in fault
    assert expected in fault
    assert "model.digest" in fault.partition("Next: ")[2]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (listing(), "has no files"),
        (listing("config.json", "README.md"), "has no weights"),
        (listing("model.safetensors"), "has no config.json"),
        (listing("config.json", "model-00002-of-00002.safetensors"), "the first is model-00001-of-00002.safetensors"),
        (listing("config.json", "a/x-1-of-3.safetensors"), "lacks 2 of its numbered weight files"),
    ],
)
def test_what_cannot_be_served_is_a_fault_that_says_what_to_do(found: Listing, said: str) -> None:
    faults = faults_of(found)
    assert len(faults) == 1
    assert said in faults[0]
    assert "Next: " in faults[0]


def test_all_faults_are_told_at_once() -> None:
    faults = faults_of(listing("README.md"), f"model.digest={'sha256:' + '0' * 64}")
    assert len(faults) == 3


def test_a_series_in_another_folder_or_of_another_length_is_a_series_of_its_own() -> None:
    found = listing("config.json", "a-1-of-1.safetensors", "b/a-1-of-1.safetensors", "a-00001-of-00001.safetensors")
    assert faults_of(found) == ()


def holding(live: Manifest | None) -> Any:
    return HoldingOne(live, record.record_ref(service()))


NO_RECORD: Any = HoldingOne(None)
PROMOTED = holding(live(record.record(service(), Record(counter=7, run="nightly-6"))))


@pytest.mark.parametrize(("cluster", "counter"), [(holding(None), 0), (PROMOTED, 7)])
def test_the_outputs_are_what_the_next_tasks_need(cluster: Any, counter: int) -> None:
    outcome = converge(ResolveModel(wanted(), lambda _: ListedSource(WHOLE), cluster), RecordingReport(), FakeClock())
    assert outcome.changes == ()
    assert outcome.outputs == Outputs(WHOLE.digest, 12_000_001_000, 12_000_000_000, 4, counter, "document", "")


def test_a_record_that_cannot_be_read_is_named_and_stops_no_run() -> None:
    spoilt = live(record.record(service(), Record(counter=7)))
    spoilt["data"]["current"] = "{"
    report = RecordingReport()
    outcome = converge(ResolveModel(wanted(), lambda _: ListedSource(WHOLE), holding(spoilt)), report, FakeClock())
    assert outcome.outputs.record_counter == 7
    assert "ConfigMap/default/qwen3-32b-release cannot be read: data.current: " in report.of("ok")[-1]


def test_a_fault_blocks_the_line_before_any_byte_moves() -> None:
    report = RecordingReport()
    with pytest.raises(Blocked, match="has no weights"):
        check(ResolveModel(wanted(), lambda _: ListedSource(listing("config.json")), NO_RECORD), report)
    assert len(report.of("failed")) == 1


def test_an_edited_file_at_the_hub_is_another_model(tmp_path: Path) -> None:
    with serving(tmp_path) as hub:
        step = ResolveModel(wanted(sets=(f"model.id={MODEL}",)), lambda _: source_of(hub), NO_RECORD)
        first, again = (converge(step, RecordingReport(), FakeClock()).outputs for _ in range(2))
        (tmp_path / MODEL / "README.md").write_text("edited", encoding="utf-8")
        edited = converge(step, RecordingReport(), FakeClock()).outputs
        assert first == again
        assert first.model_digest != edited.model_digest
        assert first.weight_bytes == edited.weight_bytes
        assert hub.received("FilePath=") == []
