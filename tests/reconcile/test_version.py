"""One version in the project, the code and the documents that people copy."""

import tomllib

import pytest

from steps import __version__
from tests.support.samples import ROOT, service


@pytest.mark.parametrize("name", ["demo", "qwen3-32b"])
def test_the_version_of_manifests_and_documents_is_the_one_of_the_project(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert __version__ == project["version"]
    assert service(name=name).workflow.image.endswith(f":{__version__}")
