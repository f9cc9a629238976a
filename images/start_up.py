# ruff: noqa: INP001  # a program by path, not a package
"""How much CPU a step takes before it looks at the world: here, or inside the image.

    python images/start_up.py [RUNS]

    podman run --rm --network none --read-only --tmpfs /tmp --entrypoint python \
      --volume "$PWD/images:/images:ro" --volume "$PWD/manifests:/manifests:ro" slipway:0.1.0 /images/start_up.py

Two columns in seconds of CPU, user and system, each the least of all runs, because neighbours only ever add: the help,
and a whole start, up to the moment in which the step has its adapters and would send its first request.
"""

import os
import resource
import subprocess  # noqa: TID251  # a start is a process
import sys
import tempfile
from pathlib import Path

from steps.catalogue import CATALOGUE
from steps.wiring import STEPS

RUNS = 9
DOCUMENT = Path(__file__).parents[1] / "manifests" / "services" / "demo.yaml"
UP_TO_THE_FIRST_LOOK = """
import sys
from steps import __main__ as program
program.converge = lambda *_: sys.exit(0)
sys.exit(program.main(sys.argv[1:]))
"""
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: none, user: {}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
current-context: none
"""


def main(runs: int) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as kubeconfig:
        kubeconfig.write(KUBECONFIG)
        kubeconfig.flush()
        keys = {"OSS_ACCESS_KEY_ID": "dummy", "OSS_ACCESS_KEY_SECRET": "dummy"}
        environment = os.environ | keys | {"KUBECONFIG": kubeconfig.name}  # noqa: TID251  # passed on to the step
        for step in STEPS:
            pinned = (f"--model-digest=sha256:{'0' * 64}",) if "model-digest" in CATALOGUE[step].options else ()
            options = (f"--document={DOCUMENT}", *pinned)
            shown = least(runs, environment, "-m", "steps", step, "--help")
            started = least(runs, environment, "-c", UP_TO_THE_FIRST_LOOK, step, *options)
            sys.stdout.write(f"{step:<18} {shown:.3f} {started:.3f}\n")
            sys.stdout.flush()


def least(runs: int, environment: dict[str, str], *arguments: str) -> float:
    return min(cpu_seconds(environment, *arguments) for _ in range(runs))


def cpu_seconds(environment: dict[str, str], *arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=True)  # noqa: S603  # our own
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
