"""A step loads no library but its own: what it imports is most of the CPU that its start takes."""

import json
import os
import subprocess  # noqa: TID251  # what a process has loaded is asked of a process
import sys
from pathlib import Path

import pytest

from steps.catalogue import CATALOGUE
from steps.wiring import STEPS
from tests.support.samples import DIGEST, ROOT, SERVICES

HEAVY = {"kubernetes", "oss2", "requests", "urllib3", "rich", "hera"}
LOADED = """
import json, sys
from steps import __main__ as program
program.converge = lambda *_, **__: sys.exit(0)
try:
    program.main(sys.argv[1:])
finally:
    sys.stderr.write("\\n" + json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
TO_THE_HUB = {"urllib3"}
TO_THE_BUCKET = {"oss2", "requests", "urllib3"}
TO_THE_CLUSTER = {"kubernetes", "requests", "urllib3"}
EXPECTED = {
    "resolve-model": TO_THE_HUB | TO_THE_CLUSTER,
    "check-platform": TO_THE_HUB | TO_THE_BUCKET | TO_THE_CLUSTER,
    "check-release": TO_THE_CLUSTER,  # the clients of its parts come when those are asked
    "download-model": TO_THE_HUB | TO_THE_BUCKET,
    "upload-model": TO_THE_BUCKET,
    "mirror-model": TO_THE_HUB | TO_THE_BUCKET,
    "verify-model": TO_THE_BUCKET,
    "create-scratch": TO_THE_CLUSTER,
    "create-volume": TO_THE_BUCKET | TO_THE_CLUSTER,  # reads the manifest
    "roll-out-service": TO_THE_CLUSTER,
    "smoke-test": TO_THE_CLUSTER,
    "promote-release": TO_THE_CLUSTER,
    "roll-back": TO_THE_CLUSTER,
    "report-run": TO_THE_CLUSTER,
}


def loaded(*arguments: str, kubeconfig: Path | None = None) -> set[str]:
    """The heavy libraries that `python -m steps` has loaded when it would send its first request."""
    keys = {"OSS_ACCESS_KEY_ID": "dummy", "OSS_ACCESS_KEY_SECRET": "dummy"}
    environment = os.environ | keys | {"KUBECONFIG": str(kubeconfig)}  # noqa: TID251  # passed on to the step
    words = [sys.executable, "-c", LOADED, *arguments]
    ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return HEAVY & set(json.loads(ended.stderr.splitlines()[-1]))


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    name = {"cluster": "none", "user": "none"}
    path.write_text(
        json.dumps(
            {
                "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "none", "user": {}}],
                "contexts": [{"name": "none", "context": name}],
                "current-context": "none",
            }
        )
    )
    return path


def test_the_help_loads_no_client() -> None:
    assert loaded("resolve-model", "--help") == set()


@pytest.mark.parametrize("step", sorted(STEPS))
def test_a_step_loads_only_the_clients_that_it_talks_through(step: str, kubeconfig: Path) -> None:
    pinned = {"model-digest": DIGEST, "overrides": "document"}
    given = (f"--{name}={value}" for name, value in pinned.items() if name in CATALOGUE[step].options)
    options = (f"--document={SERVICES / 'demo.yaml'}", *given)
    assert loaded(step, *options, kubeconfig=kubeconfig) == EXPECTED[step]
