"""The main use of the doors: another engine image, by the example of docs/how-to/runs.md and the rendered template."""

import re
from pathlib import Path

import pytest

from steps.document.overrides import Wanted, given
from steps.document.schema import ModelService, read
from steps.errors import DocumentError
from steps.report.run import EXIT_TASKS
from tests.support.rendered import VERSIONS, objects, templates
from tests.support.samples import ROOT
from workflows.runs.submission import Submission, Why, prepare

PAGE = (ROOT / "docs" / "how-to" / "runs.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"submit qwen3-32b -p (image=\S+)", PAGE)


def submitted(argo: str, *overrides: str) -> Submission:
    return prepare(objects(argo)["WorkflowTemplate"], overrides, Why("ci-7", "ci"))


def as_the_pods_load_it(argo: str, run: Submission, folder: Path) -> list[ModelService]:
    """The document of every pod of the run, with the arguments that Argo fills in."""
    document = folder / "service.yaml"
    document.write_text(run.parameters["service"], encoding="utf-8")
    found = []
    for template in templates(dict(objects(argo)["WorkflowTemplate"]["spec"])).values():
        if template["name"] in EXIT_TASKS:
            continue
        args = template["container"]["args"]
        words = [word.removeprefix("--parameter=") for word in args if word.startswith("--parameter=")]
        for name, value in run.parameters.items():
            words = [word.replace(f"{{{{workflow.parameters.{name}}}}}", value) for word in words]
        found.append(Wanted(read(document), given(words)).resolve().service)
    return found


@pytest.mark.parametrize("argo", VERSIONS)
def test_the_example_runs_the_engine_that_its_image_holds(argo: str, tmp_path: Path) -> None:
    loaded = as_the_pods_load_it(argo, submitted(argo, EXAMPLE), tmp_path)
    assert len(loaded) > 5
    assert {(found.serving.image, found.serving.version) for found in loaded} == {
        (EXAMPLE.removeprefix("image="), "0.5.24")
    }


def test_an_image_by_digest_keeps_its_tag_and_so_its_version(tmp_path: Path) -> None:
    run = submitted("3.5", f"{EXAMPLE}@sha256:{'1' * 64}")
    assert {found.serving.version for found in as_the_pods_load_it("3.5", run, tmp_path)} == {"0.5.24"}


def test_an_image_of_unknown_version_is_refused_before_a_run_is_created() -> None:
    with pytest.raises(DocumentError, match=r"serving\.version .*: found nothing.*names none"):
        submitted("3.5", "image=registry.example.com/llm/sglang-erdma:latest")
