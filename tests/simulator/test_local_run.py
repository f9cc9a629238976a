"""A local run takes the whole pipeline to a proven service, survives kill -9 anywhere, and repeats no work."""

import hashlib
import re
import signal
import socket
import subprocess  # noqa: TID251  # a run is a process, and is killed as one
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from steps.adapters.oss.credentials import StaticCredentials
from steps.adapters.oss.store import OssStore
from steps.model import ModelFile
from steps.ports.oss import AccessKey
from tests.support.samples import ROOT, service
from workflows.pipeline import tasks
from workflows.simulator.core.hub.sample_model import write_model
from workflows.simulator.http.bucket import Bucket

pytestmark = pytest.mark.timeout(240)

DEMO = service(name="demo")
SECONDS = 180
# Retry in Argo begins with the task that failed, whatever it left behind. Of the tasks that change something,
# create-volume is killed in tests/contract/test_retry_of_a_step.py, where it costs less.
KILLED_IN = ("download-model", "upload-model", "roll-out-service", "promote-release")
SKIPPED = re.compile(r"^RECAP (\S+): skipped +0\.0 s$", re.MULTILINE)
RECAP = re.compile(r"^RECAP (\S+): ok=(\d+) changed=(\d+) failed=(\d+) +[\d.]+ s$", re.MULTILINE)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with a model of one megabyte at its hub."""
    write_model(tmp_path / "demo" / "hub" / DEMO.model.id, 1_000_000, 3)
    return tmp_path


def start(state: Path, *more: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "workflows", "rehearse", "manifests/services/demo.yaml", f"--state={state}", *more]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(state: Path, *more: str) -> tuple[int, str]:
    process = start(state, *more)
    said, _ = process.communicate(timeout=SECONDS)
    return process.returncode, said


def kill_in(state: Path, task: str) -> None:
    """`kill -9` of the run right after the start of a task. From outside, it could come after the end of the run."""
    program = (
        "import os, signal, sys; from workflows import rehearsal; from workflows.__main__ import main\n"
        "start = rehearsal._started\n"
        "def started(run, task, *more):\n"
        "    process = start(run, task, *more)\n"
        f"    if task.name == {task!r}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return process\n"
        "rehearsal._started = started\n"
        f"sys.exit(main(['rehearse', 'manifests/services/demo.yaml', '--state={state}']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stdout


def recaps(said: str) -> dict[str, tuple[int, int]]:
    """changed= and failed= of each task in the summary."""
    return {task: (int(changed), int(failed)) for task, _, changed, failed in RECAP.findall(said)}


@contextmanager
def bucket(state: Path) -> Iterator[OssStore]:
    """The files of the run in the bucket, read through the adapter."""
    key = AccessKey("id", "dummy")
    server = Bucket(state / "demo" / "bucket", access_key_id=key.id, access_key_secret=key.secret)
    server.start()
    try:
        yield OssStore(server.url, DEMO.store.region, DEMO.store.bucket, StaticCredentials(key))
    finally:
        server.stop()


def at_the_hub(state: Path) -> set[ModelFile]:
    folder = state / "demo" / "hub" / DEMO.model.id
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {ModelFile(str(path.relative_to(folder)), path.stat().st_size, sha256(path.read_bytes())) for path in files}


def in_the_bucket(state: Path) -> set[ModelFile]:
    with bucket(state) as store:
        found = [item for item in store.scan("models/") if "/.slipway/" not in item.key]
        return {ModelFile(item.key.split("/", 4)[4], item.size, sha256(store.get(item.key) or b"")) for item in found}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.exhaustive
def test_a_run_that_is_killed_where_it_changes_something_ends_well_and_then_has_nothing_to_do(state: Path) -> None:
    for task in KILLED_IN:
        kill_in(state, task)

    code, said = run(state)
    assert code == 0, said
    assert recaps(said).keys() == {task.name for task in tasks(DEMO, in_pods=False)} | {"report-run"}
    assert "simulated answer: " in said
    assert in_the_bucket(state) == at_the_hub(state)
    with bucket(state) as store:
        assert store.uploads("") == []
        assert [
            item.key for item in store.scan("models/") if "/.slipway/" in item.key and "manifest" not in item.key
        ] == []
    assert not any((state / "demo" / "scratch").iterdir())

    code, said = run(state)
    assert code == 0, said
    assert recaps(said).keys() == {"resolve-model", "check-release", "report-run"}
    assert [task for task, (changed, _) in recaps(said).items() if changed] == []
    assert SKIPPED.findall(said) == [
        *(task.name for task in tasks(DEMO, in_pods=False) if task.spec.skippable),
        "roll-back",
    ]
    assert re.search(r"^demo: done in [\d.]+ s, nothing changed$", said, re.MULTILINE)
    assert re.search(
        r"^unchanged +demo serves release [0-9a-f]{8} of .*, whole and proved just now$", said, re.MULTILINE
    )
    assert "promote-release  skipped: check-release found nothing to do" in said
    assert re.search(r"^answer +simulated answer: ", said, re.MULTILINE)

    code, said = run(state, "--set=workflow.skipUnchanged=false")
    assert code == 0, said
    assert "stale: a full run was requested: workflow.skipUnchanged is false" in said
    assert recaps(said).keys() == {task.name for task in tasks(DEMO, in_pods=False)} | {"report-run"}
    assert [task for task, (changed, _) in recaps(said).items() if changed] == []
    assert ", nothing changed" in said

    code, said = run(state, "--set=serving.prefill.replicas=3")
    assert code == 0, said
    assert {task for task, (changed, _) in recaps(said).items() if changed} == {"roll-out-service", "promote-release"}
    assert "spec.roles[prefill].replicas: 2 -> 3" in said
    assert "prefill-2 -> decode-0 moved" in said


def test_ctrl_c_ends_a_run_with_a_sentence_and_the_next_run_goes_on(state: Path) -> None:
    with start(state) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("download-model  "):
                process.send_signal(signal.SIGINT)
                break
        said = process.stdout.read()
    assert process.returncode == 75, said
    assert "Stopped. Nothing is lost: the next run goes on" in said
    assert "Traceback" not in said


def test_ctrl_c_in_the_middle_of_a_fork_is_heard(state: Path) -> None:
    """CPython drops an exception of a signal handler in a hook of a fork."""
    program = (
        "import os, signal, sys; from workflows.__main__ import main; sent = []\n"
        "def once():\n"
        "    if not sent: sent.append(os.kill(os.getpid(), signal.SIGINT))\n"
        "os.register_at_fork(after_in_parent=once)\n"
        f"sys.exit(main(['rehearse', 'manifests/services/demo.yaml', '--state={state}']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 75, done.stdout
    assert "Stopped. Nothing is lost: the next run goes on" in done.stdout
    assert not done.stderr


def test_a_release_that_cannot_come_up_ends_the_run_and_leaves_nothing_behind(state: Path) -> None:
    code, said = run(state, "--set=serving.image=registry.example.com/does-not-exist:0.5.23")
    assert code == 11, said
    assert "does-not-exist:0.5.23" in said
    assert "Next: correct serving.image" in said
    assert recaps(said)["roll-out-service"][1] > 0  # one for each role, as far as its pods have said it by then
    assert recaps(said)["roll-back"] == (2, 0)  # the group and its Service
    assert recaps(said)["report-run"] == (0, 0)
    assert re.search(r"^ok +roll-out-service failed: .*does-not-exist:0.5.23", said, re.MULTILINE)
    assert "Traceback" not in said

    code, said = run(state)
    assert code == 0, said


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (
            ["--set=serving.prefill.replicas=many"],
            10,
            "(override of serving.prefill.replicas): found 'many', allowed is: ",
        ),
        (["--set=model.digest=sha256:" + "0" * 64], 11, "resolve-model"),
        (["--set=serving.tensorParallel=8", "--set=serving.prefill.replicas=9"], 11, "GPU01 Free GPUs: found "),
    ],
)
def test_what_cannot_end_well_is_refused_before_a_byte_moves(
    state: Path, more: list[str], code: int, says: str
) -> None:
    found, said = run(state, *more)
    assert found == code, said
    assert says in said
    assert "Traceback" not in said
    assert "download-model" not in said
    assert ("wrote nothing, so no rollback" in said) == (code == 11)


def test_a_port_in_use_is_refused_with_a_sentence(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = run(state, f"--port={taken.getsockname()[1]}")
    assert code == 11
    assert "cannot listen on 127.0.0.1:" in said
    assert "Next: stop the program that uses the port, or choose another port" in said
    assert "Traceback" not in said
