"""One version, wherever it is told."""

import tomllib

from steps import __version__
from steps.document.schema import EXAMPLE
from tests.support.samples import ROOT


def test_the_version_that_manifests_carry_is_the_one_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert __version__ == project["version"]
    assert EXAMPLE["workflow"]["image"].endswith(f":{__version__}")
