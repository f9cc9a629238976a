"""Every step does its work in the built image, as its pod would run it: as nobody, on a root that nobody writes."""

import subprocess  # noqa: TID251  # a container engine is a program
from pathlib import Path

import pytest

from tests.support.image_line import USER, Work, changed, embedded, run_every_step

pytestmark = pytest.mark.timeout(900)
SECONDS = 300
CHANGING = ("download-model", "upload-model", "mirror-model", "create-volume", "roll-out-service", "promote-release")


def test_every_step_does_its_task_in_the_image_as_nobody_on_a_read_only_root(
    engine: list[str], image: str, tmp_path: Path
) -> None:
    def start(work: Work) -> tuple[int, str]:
        mounts = [f"--volume={folder}:{path}" for path, folder in work.folders.items()]
        variables = [f"--env={name}={value}" for name, value in work.environment.items()]
        confined = (f"--user={USER}:{USER}", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--network=host")
        words = [*engine, "run", "--rm", *confined, *mounts, *variables, image, *work.command[3:]]
        ended = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
        return ended.returncode, ended.stdout + ended.stderr

    with embedded(tmp_path) as addresses:
        said = run_every_step(start, addresses, tmp_path)

    assert [name for name in CHANGING if not changed(said[name])] == []
