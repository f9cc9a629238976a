"""The image gets what `requirements.lock` pins, only what steps need, and nothing else decides a version."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.samples import ROOT

IMAGES = ROOT / "images"
ONLY_WORKFLOWS = {"hera", "shtab", "werkzeug"}
NEVER_IN_THE_IMAGE = ONLY_WORKFLOWS | {"pytest", "uv", "mypy", "ruff"}


def pins(lock: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Name -> (version with marker, hashes)."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, rest = line.split("==", 1)
            version, *hashes = rest.split("--hash=")
            found[name] = (version.strip(), frozenset(word.strip() for word in hashes))
    return found


def asked(name: str) -> set[str]:
    return set((IMAGES / name).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("name", ["requirements.lock", "build-requirements.lock"])
def test_the_image_takes_versions_and_hashes_from_the_one_lock(name: str) -> None:
    everything, ours = pins(ROOT / "requirements.lock"), pins(IMAGES / name)

    assert ours
    assert {pin: ours[pin] for pin in ours if everything.get(pin) != ours[pin]} == {}
    assert all(hashes for _, hashes in ours.values())


def test_the_image_is_asked_for_the_dependencies_of_the_steps() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    depends = {re.split(r"[<>=~ ]", words, maxsplit=1)[0] for words in project["project"]["dependencies"]}

    assert asked("requirements.in") == depends - ONLY_WORKFLOWS
    assert asked("build-requirements.in") == {
        re.split(r"[<>=~ ]", words, maxsplit=1)[0] for words in project["dependency-groups"]["image"]
    }


def test_every_package_that_steps_import_is_in_the_image() -> None:
    distributions = packages_distributions()
    imported = {module for path in (ROOT / "steps").rglob("*.py") for module in modules(path)}
    third_party = imported - set(sys.stdlib_module_names) - {"steps"}
    names = {distributions[module][0].lower().replace("_", "-") for module in third_party}

    assert names
    assert names <= pins(IMAGES / "requirements.lock").keys()


def test_nothing_that_only_people_and_ci_need_is_in_the_image() -> None:
    assert not NEVER_IN_THE_IMAGE & pins(IMAGES / "requirements.lock").keys()


def modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found
