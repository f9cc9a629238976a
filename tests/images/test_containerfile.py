"""What the recipe of the image promises, whether or not somebody can build it here."""

import re
from functools import cache
from pathlib import Path

import pytest

import steps
from tests.support.samples import ROOT
from workflows.argo.templates import USER
from workflows.pipeline import RESOLVE, command

IMAGES = ROOT / "images"
BASE = re.compile(r"^docker\.io/library/python:3\.\d+-slim$")


@cache
def instructions() -> tuple[tuple[str, str], ...]:
    """(instruction, its arguments) in order, comments away and continued lines joined."""
    text = "".join(line for line in lines("Containerfile") if not line.startswith("#")).replace("\\\n", "")
    found = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return tuple((words[0], words[1]) for words in found)


def lines(name: str) -> list[str]:
    return (IMAGES / name).read_text(encoding="utf-8").splitlines(keepends=True)


def arguments(instruction: str, *, final: bool = False) -> list[str]:
    """Of every such instruction; `final`: in the stage that becomes the image."""
    stages = [place for place, (name, _) in enumerate(instructions()) if name == "FROM"]
    start = stages[-1] if final else 0
    return [words for name, words in instructions()[start:] if name == instruction]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for words in arguments("ENV", final=True) for pair in words.split())


def test_the_base_is_a_slim_python_by_version_that_a_build_may_replace() -> None:
    default = next(words.removeprefix("BASE=") for words in arguments("ARG") if words.startswith("BASE="))

    assert BASE.match(default)
    assert [words.split()[0] for words in arguments("FROM")] == ["${BASE}", "${BASE}"]


def test_the_image_runs_as_the_user_that_the_workflow_names() -> None:
    assert arguments("USER", final=True) == [f"{USER}:{USER}"]


def test_the_image_starts_what_the_workflow_and_a_local_run_start() -> None:
    entry = re.findall(r'"([^"]+)"', arguments("ENTRYPOINT", final=True)[0])

    assert entry == list(command(RESOLVE)[: len(entry)]) == ["python", "-m", "steps"]


def test_python_finds_steps_packages_and_compiled_files_and_writes_none() -> None:
    assert environment()["PYTHONPATH"] == "/opt/slipway:/opt/slipway/site"
    assert environment()["PYTHONPYCACHEPREFIX"] == "/opt/slipway/compiled"
    assert environment()["PYTHONDONTWRITEBYTECODE"] == "1"


def test_the_version_of_the_label_is_the_version_of_the_code() -> None:
    assert {words for words in arguments("ARG") if words.startswith("VERSION")} == {f"VERSION={steps.__version__}"}


@pytest.mark.parametrize("label", ["version", "revision", "source", "licenses", "title", "description"])
def test_the_image_is_labelled(label: str) -> None:
    assert f"org.opencontainers.image.{label}=" in arguments("LABEL", final=True)[0]


def test_only_what_the_lock_names_by_hash_is_installed() -> None:
    installs = [part for words in arguments("RUN") for part in words.split("&&") if "pip install" in part]

    assert len(installs) == 2
    for install in installs:
        assert {"--require-hashes", "--no-deps", "--no-cache-dir", "--no-compile"} <= set(install.split())
        assert install.split()[-1].endswith("requirements.lock")


def test_nothing_is_installed_in_the_stage_that_becomes_the_image() -> None:
    assert not [
        words for words in arguments("RUN", final=True) if re.search(r"pip install|apt-get|apk |curl|wget", words)
    ]
    assert arguments("COPY", final=True) == ["--from=build /opt/slipway /opt/slipway"]


def test_index_and_certificates_are_mounted_and_never_arguments() -> None:
    told = [words for name in ("ARG", "ENV") for words in arguments(name)]

    assert not [words for words in told if re.search(r"index|proxy|token|password|secret|cert", words, re.IGNORECASE)]
    assert "--mount=type=secret,id=pip.conf" in " ".join(arguments("RUN"))


@pytest.mark.parametrize("path", sorted(path.name for path in IMAGES.iterdir() if path.is_file()))
def test_no_file_names_a_package_index(path: str) -> None:
    assert not re.search(r"index-url|extra-index|find-links|pypi\.org|/simple\b", "".join(lines(path)))


def test_only_what_is_copied_goes_to_the_builder() -> None:
    kept = {line[1:].strip() for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [word for words in arguments("COPY") if not words.startswith("--from") for word in words.split()[:-1]]

    assert {Path(word).parts[0] for word in copied} == kept


def test_steps_are_python_alone_because_nothing_else_is_copied() -> None:
    assert not [path for path in (ROOT / "steps").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
