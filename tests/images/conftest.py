"""The built image, where there is one; without it, these tests say why they are skipped."""

import os
import shlex
import shutil
import subprocess  # noqa: TID251  # a container engine is a program
from pathlib import Path

import pytest

import steps
from images.contents import Image, read

SECONDS = 300


@pytest.fixture(scope="session")
def engine() -> list[str]:
    """The container engine: SLIPWAY_TEST_ENGINE, such as `sudo podman`, or the first one on PATH."""
    words = shlex.split(os.environ.get("SLIPWAY_TEST_ENGINE", ""))  # noqa: TID251  # where to find what is tested
    words = words or [name for name in ("podman", "docker") if shutil.which(name)][:1]
    if not words:
        pytest.skip("neither podman nor docker is on PATH; SLIPWAY_TEST_ENGINE may name one")
    return words


@pytest.fixture(scope="session")
def image(engine: list[str]) -> str:
    """Name of the built image: SLIPWAY_TEST_IMAGE, or what `make images` builds."""
    name = os.environ.get("SLIPWAY_TEST_IMAGE", f"slipway:{steps.__version__}")  # noqa: TID251  # as above
    found = subprocess.run([*engine, "image", "inspect", name], capture_output=True, timeout=SECONDS, check=False)
    if found.returncode:
        pytest.skip(f"{shlex.join(engine)} has no image {name}; `make images` builds it")
    return name


@pytest.fixture(scope="session")
def archive(engine: list[str], image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.tar"
    subprocess.run([*engine, "save", "--output", str(path), image], capture_output=True, timeout=SECONDS, check=True)
    return path


@pytest.fixture(scope="session")
def built(archive: Path) -> Image:
    return read(archive, keep=(".py", ".pyc", ".conf", ".list", ".sources"))
