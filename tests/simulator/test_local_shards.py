"""A local run with a transfer in several processes."""

import hashlib
import re
import subprocess  # noqa: TID251  # a run is a process
import sys
from pathlib import Path

import pytest

from tests.support.samples import ROOT, service
from workflows.simulator.core.hub.sample_model import write_model

DEMO = service(name="demo")
RECAP = re.compile(r"^RECAP (\S+): ok=\d+ changed=(\d+) failed=(\d+) +[\d.]+ s$", re.MULTILINE)


@pytest.mark.timeout(240)
def test_two_processes_share_the_transfer_and_the_task_behind_them_writes_the_manifest(tmp_path: Path) -> None:
    hub = tmp_path / "demo" / "hub" / DEMO.model.id
    write_model(hub, 1_000_000, 3)
    sets = ("--set=transfer.mode=streamed", "--set=transfer.shards=2", "--set=transfer.partSize=1Mi")
    words = [
        sys.executable,
        "-m",
        "workflows",
        "rehearse",
        "manifests/services/demo.yaml",
        f"--state={tmp_path}",
        *sets,
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stdout
    recaps = {task: (int(changed), int(failed)) for task, changed, failed in RECAP.findall(done.stdout)}
    assert recaps["mirror-model-0"][0] > 0
    assert recaps["mirror-model-1"][0] > 0
    assert recaps["publish-model"] == (1, 0)
    (revision,) = (tmp_path / "demo" / "bucket" / "objects" / DEMO.store.bucket / "models" / DEMO.model.id).iterdir()
    stored = {path.relative_to(revision): path for path in revision.rglob("*") if path.is_file()}
    stored.pop(Path(".slipway/manifest.json"))
    wanted = {path.relative_to(hub): path for path in hub.rglob("*") if path.is_file()}
    assert {path: _sum(at) for path, at in stored.items()} == {path: _sum(at) for path, at in wanted.items()}


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
