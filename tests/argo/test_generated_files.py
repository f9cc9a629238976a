"""What is committed is what the sources say, and rendering is a function of the document alone."""

import tomllib
from pathlib import Path

import pytest
import yaml

from steps.catalogue import CATALOGUE
from steps.document.schema import parse
from steps.errors import DocumentError
from tests.support.samples import ROOT, SERVICES
from workflows.argo.bundle import ARGO, PYPROJECT, REFERENCE, SCHEMA, drift, render, service_folder, write, write_all
from workflows.argo.install import KUSTOMIZATION
from workflows.argo.versions import VERSIONS

CRON = Path("cron-workflow.yaml")
FILES = {Path("workflow-template.yaml"), CRON, Path("event-binding.yaml")}
REFERENCE_FILE = SERVICES / "qwen3-32b.yaml"


@pytest.fixture
def copy_of_root(tmp_path: Path) -> Path:
    (tmp_path / REFERENCE).parent.mkdir(parents=True)
    (tmp_path / REFERENCE).write_bytes(REFERENCE_FILE.read_bytes())
    (tmp_path / PYPROJECT).write_bytes((ROOT / PYPROJECT).read_bytes())
    write_all(tmp_path)
    return tmp_path


def test_the_committed_files_are_what_their_sources_say() -> None:
    assert drift(ROOT) == []


def test_writing_again_changes_nothing(copy_of_root: Path) -> None:
    assert drift(copy_of_root) == []
    assert write_all(copy_of_root) == []


def test_an_edited_an_absent_and_a_stray_file_are_drift_and_are_repaired(copy_of_root: Path) -> None:
    edited, absent = ARGO / "3.5" / "cron-workflow.yaml", SCHEMA
    stray = ARGO / "3.4" / "cron-workflow.yaml"
    (copy_of_root / edited).write_text("kind: CronWorkflow\n", encoding="utf-8")
    (copy_of_root / absent).unlink()
    (copy_of_root / stray).parent.mkdir()
    (copy_of_root / stray).write_text("kind: CronWorkflow\n", encoding="utf-8")
    sentences = drift(copy_of_root)
    assert [[str(path) in sentence for sentence in sentences].count(True) for path in (edited, absent, stray)] == [
        1,
        1,
        1,
    ]
    assert all("make render" in sentence for sentence in sentences)
    assert set(write_all(copy_of_root)) == {edited, absent}
    assert drift(copy_of_root) == []


def test_a_changed_document_is_drift(copy_of_root: Path) -> None:
    document = copy_of_root / REFERENCE
    document.write_text(document.read_text(encoding="utf-8").replace("0 3 * * *", "0 4 * * *"), encoding="utf-8")
    assert any("cron-workflow.yaml" in sentence for sentence in drift(copy_of_root))


def test_every_line_of_argo_finds_its_folder() -> None:
    assert {path.name for path in (ROOT / ARGO).iterdir() if path.is_dir()} == {
        line.folder for line in VERSIONS.values()
    }


def test_the_import_contract_forbids_each_step_of_the_catalogue_to_import_another() -> None:
    contract = tomllib.loads((ROOT / PYPROJECT).read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]
    (layer,) = (layer for layer in contract["layers"] if "resolve_model" in layer)
    assert layer.split(" | ") == [spec.module for spec in CATALOGUE.values()]


@pytest.mark.parametrize("version", VERSIONS)
def test_two_renders_are_the_same_bytes(version: str) -> None:
    first = render(REFERENCE_FILE, version)
    assert set(first) == FILES
    assert first == render(REFERENCE_FILE, version)


def test_lines_that_share_a_folder_get_the_same_bytes() -> None:
    by_folder: dict[str, list[dict[Path, str]]] = {}
    for version, line in VERSIONS.items():
        by_folder.setdefault(line.folder, []).append(render(REFERENCE_FILE, version))
    assert all(rendered == same[0] for same in by_folder.values() for rendered in same)
    assert len({str(same[0]) for same in by_folder.values()}) == len(by_folder)


def test_every_committed_document_renders(tmp_path: Path) -> None:
    for document in SERVICES.glob("*.yaml"):
        assert set(write(render(document, "3.5"), tmp_path / document.stem)) >= FILES - {CRON}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_document_without_a_schedule_renders_none(version: str) -> None:
    files = service_folder(SERVICES / "demo.yaml", version)
    assert CRON not in files
    assert CRON.name not in files[KUSTOMIZATION]
    assert not any("kind: CronWorkflow" in text for text in files.values())


def test_the_document_arrives_in_the_pod_as_it_is_in_its_file() -> None:
    text = render(REFERENCE_FILE, "3.5")[Path("workflow-template.yaml")]
    parameters = yaml.safe_load(text)["spec"]["arguments"]["parameters"]
    (document,) = (parameter["value"] for parameter in parameters if parameter["name"] == "service")
    assert parse(document, "parameter") == parse(REFERENCE_FILE.read_text(encoding="utf-8"), "file")
    assert "yaml-language-server" not in document  # its path leads nowhere in a cluster


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("'say {{workflow.name}}'", "which Argo would replace"),
        (r'"say \x7b\x7bworkflow.name}}"', "which Argo would replace"),
        ("'the flag of \U0001f3f4\U000e0067\U000e007f'", "which Argo cannot pass on"),
    ],
)
def test_a_document_that_argo_would_rewrite_is_refused(tmp_path: Path, prompt: str, words: str) -> None:
    document = tmp_path / "service.yaml"
    text = REFERENCE_FILE.read_text(encoding="utf-8")
    document.write_text(text + f"proof: {{prompt: {prompt}}}\n", encoding="utf-8")
    with pytest.raises(DocumentError, match=words):
        render(document, "4.1")


def test_a_wrong_document_is_not_rendered(tmp_path: Path) -> None:
    document = tmp_path / "service.yaml"
    document.write_text("kind: ModelService\n", encoding="utf-8")
    with pytest.raises(DocumentError, match=r"metadata \(line 1, column 1\): missing"):
        render(document, "4.1")
