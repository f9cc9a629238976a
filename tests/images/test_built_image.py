"""What the built image holds: nobody's rights, no way to install, and compiled files that fit their sources."""

import _imp  # holds the keyed hash of PEP 552, which has no public name
import hashlib
import io
import re
import subprocess  # noqa: TID251  # git tells what a commit holds
import tarfile
from pathlib import PurePosixPath

import pytest

import steps
from images.contents import Entry, Image
from tests.support.samples import ROOT

HOME = "/opt/slipway"
LABEL = "org.opencontainers.image."
UNCHECKED_HASH = 0b01  # flags of a compiled file: valid by a hash, and never looked at. PEP 552
MEGABYTE = 10**6
LIMIT = 150 * MEGABYTE  # above the base


def ours(built: Image) -> dict[str, Entry]:
    return {path: entry for path, entry in built.files.items() if path == HOME or path.startswith(HOME + "/")}


def compiled(built: Image) -> dict[str, bytes]:
    """Path of the source -> compiled file."""
    prefix = HOME + "/compiled"
    found = {path: data for path, data in built.kept.items() if path.startswith(prefix) and path.endswith(".pyc")}
    return {re.sub(r"\.cpython-\d+\.pyc$", ".py", path.removeprefix(prefix)): data for path, data in found.items()}


def source_hash(data: bytes, source: bytes) -> bytes:
    """As the Python of the image computes it: its magic number is the key, and `importlib.util` takes only our own."""
    return _imp.source_hash(int.from_bytes(data[:4], "little"), source)


def committed(revision: str) -> dict[str, str]:
    """Path in the image -> SHA-256 of the file in that commit."""
    words = ["git", "-C", str(ROOT), "archive", "--format=tar", revision, "steps"]
    found = subprocess.run(words, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"this checkout does not know the commit {revision} of the image")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as files:
        members = [(member.name, files.extractfile(member)) for member in files if member.isreg()]
        return {f"{HOME}/{name}": hashlib.sha256(data.read()).hexdigest() for name, data in members if data}


def test_the_image_runs_as_nobody(built: Image) -> None:
    assert built.config["config"]["User"] == "65532:65532"


def test_the_image_starts_the_steps(built: Image) -> None:
    assert built.config["config"]["Entrypoint"] == ["python", "-m", "steps"]


def test_no_program_lends_rights(built: Image) -> None:
    assert [path for path, entry in built.files.items() if entry.kind == "file" and entry.mode & 0o6000] == []


def test_nobody_may_change_what_runs(built: Image) -> None:
    loose = {path for path, entry in ours(built).items() if entry.owner != (0, 0) or entry.mode & 0o022}

    assert ours(built)
    assert loose == set()


@pytest.mark.parametrize("name", ["pip", "pip3", "gcc", "cc", "g++", "make", "uv"])
def test_nothing_installs_or_compiles(built: Image, name: str) -> None:
    programs = [path for path in built.files if re.fullmatch(rf"(/usr)?(/local)?/s?bin/{re.escape(name)}", path)]

    assert programs == []


def test_pip_is_not_there_as_a_module_either(built: Image) -> None:
    assert [path for path in built.files if re.search(r"/(site|dist)-packages/pip/|/ensurepip/_bundled/", path)] == []


def test_no_setting_names_an_index(built: Image) -> None:
    settings = re.compile(r"/(pip|\.pip|uv|\.netrc|\.pypirc)(\.conf|\.toml|\.ini)?$|/sources\.list$|\.sources$")
    suspects = {path for path in built.files if settings.search(path) and "/share/doc/" not in path}

    assert suspects == set()
    told = [*built.config["config"]["Env"], *(step.get("created_by", "") for step in built.config["history"])]
    assert [words for words in told if re.search(r"index.url|PIP_|UV_|_proxy=", words, re.IGNORECASE)] == []


def test_no_cache_is_left(built: Image) -> None:
    assert [path for path in built.files if "/.cache/" in path] == []


def test_the_steps_are_those_of_the_commit_that_the_label_names(built: Image) -> None:
    revision = built.config["config"]["Labels"][f"{LABEL}revision"]
    if revision.endswith("-dirty"):
        pytest.skip("the image was built from files that no commit has")
    inside = {path: entry.sha256 for path, entry in ours(built).items() if path.startswith(f"{HOME}/steps/")}

    assert inside
    assert {path: hashed for path, hashed in inside.items() if path.endswith(".py")} == committed(revision)


def test_compiled_files_fit_their_sources_and_are_never_compared_with_them(built: Image) -> None:
    """Of our files: what the base has, another machine may have in another version."""
    found = {path: data for path, data in compiled(built).items() if path.startswith(HOME)}

    assert len(found) > 1000
    drifted = [path for path, data in found.items() if data[8:16] != source_hash(data, built.kept[path])]
    assert drifted == []
    assert {int.from_bytes(data[4:8], "little") for data in found.values()} == {UNCHECKED_HASH}


def test_every_step_and_the_standard_library_are_compiled(built: Image) -> None:
    sources = {path for path in ours(built) if path.startswith(f"{HOME}/steps/") and path.endswith(".py")}

    assert sources
    assert sources <= compiled(built).keys()
    assert {"argparse.py", "ssl.py", "threading.py"} <= {PurePosixPath(path).name for path in compiled(built)}
    assert not [path for path in ours(built) if "__pycache__" in path]


def test_compiled_files_name_the_path_that_they_run_from(built: Image) -> None:
    """So that a traceback shows lines, and nothing of the machine that built the image."""
    found = {path: data for path, data in compiled(built).items() if path.startswith(f"{HOME}/steps/")}

    assert [path for path, data in found.items() if path.encode() not in data or b"/build/" in data] == []


def test_all_our_files_have_one_time(built: Image) -> None:
    assert len({entry.mtime for entry in ours(built).values()}) == 1


def test_the_labels_say_version_revision_source_and_licence(built: Image) -> None:
    labels = built.config["config"]["Labels"]

    assert labels[f"{LABEL}version"] == steps.__version__
    assert labels[f"{LABEL}licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels[f"{LABEL}revision"])
    assert not re.search(r"://[^/]*@", labels[f"{LABEL}source"])


def test_the_image_adds_at_most_150_megabytes_to_its_base(built: Image) -> None:
    assert sum(entry.size for entry in ours(built).values()) < LIMIT
