"""Outputs of a step: one file a field, whole or not there."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from steps.reconcile.outputs import LIMIT, Word, file_name, write, write_json, write_text


@dataclass(frozen=True)
class Outputs:
    model_digest: str = "sha256:ab"
    file_count: int = 29


def test_each_field_is_a_file_that_argo_reads_as_a_parameter(tmp_path: Path) -> None:
    write(Outputs(), tmp_path / "outputs")
    found = {path.name: path.read_text() for path in (tmp_path / "outputs").iterdir()}
    assert found == {"model-digest": "sha256:ab", "file-count": "29"}


def test_a_reader_never_sees_half_a_value(tmp_path: Path) -> None:
    write(Outputs("sha256:old"), tmp_path)
    with (tmp_path / "model-digest").open() as before:
        write(Outputs("sha256:new"), tmp_path)
        assert before.read() == "sha256:old"  # another file took its place; the old one was not touched
    assert (tmp_path / "model-digest").read_text() == "sha256:new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file-count", "model-digest"]


def test_a_draft_of_a_killed_step_does_not_disturb(tmp_path: Path) -> None:
    (tmp_path / "model-digest.draft").write_text("half")
    write(Outputs(), tmp_path)
    assert (tmp_path / "model-digest").read_text() == "sha256:ab"
    assert not (tmp_path / "model-digest.draft").exists()


def test_a_recap_is_json_and_as_whole(tmp_path: Path) -> None:
    write_json({"ok": 1, "reason": "é"}, tmp_path / "a" / "recap.json")
    assert json.loads((tmp_path / "a" / "recap.json").read_text()) == {"ok": 1, "reason": "é"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["recap.json"]


@dataclass(frozen=True)
class Consumed:
    answer: str = "any words"
    state: Word = "current"


@pytest.mark.parametrize("state", ["", "a b", "current || true", "{{=1}}", "a'", "a\n", "é"])
def test_an_output_that_a_task_consumes_is_one_word_or_none_is_written(tmp_path: Path, state: str) -> None:
    write(Consumed(), tmp_path / "right")
    assert (tmp_path / "right" / "state").read_text() == "current"
    with pytest.raises(ValueError, match="output state: found"):
        write(Consumed(state=state), tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_an_output_is_no_template_of_argo_and_fits_into_a_workflow(tmp_path: Path) -> None:
    write(Consumed(answer="{{=1+1}}" + "é" * LIMIT), tmp_path)
    assert (tmp_path / "answer").read_text().startswith("{ {=1+1} }é")
    assert len((tmp_path / "answer").read_bytes()) <= LIMIT
    write_text("2 changed: create {{x}}", tmp_path / "recap")
    assert (tmp_path / "recap").read_text() == "2 changed: create { {x} }"


def test_a_half_of_a_surrogate_pair_is_shown_as_what_it_is(tmp_path: Path) -> None:
    write(Consumed(answer="a\ud800b"), tmp_path)
    assert (tmp_path / "answer").read_text() == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(("field", "name"), [("uri", "uri"), ("model_digest", "model-digest")])
def test_a_field_has_the_same_name_as_file_as_parameter_and_as_option(field: str, name: str) -> None:
    assert file_name(field) == name
