"""`python -m steps`: the exit code, the recap, the termination message, and never a traceback for a person."""

import json
import os
import signal
import socket
import subprocess  # noqa: TID251  # what a signal does to a step can only be seen from outside of its process
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from steps import wiring
from steps.__main__ import main
from steps.errors import Blocked, DeadlineExceeded, NotConverging, TransientError
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from tests.support.samples import DIGEST, ROOT, SERVICES

DOCUMENT = str(SERVICES / "qwen3-32b.yaml")


@dataclass(frozen=True)
class Outputs:
    model_digest: str = "sha256:ab"
    file_count: int = 29


@dataclass(frozen=True)
class Verdict:
    verdict: str = "stale: the traffic goes elsewhere"


class OneChange:
    """A step that creates one thing; `trouble` is what the world answers when it tries."""

    deadline = 0.0

    def __init__(self, trouble: BaseException | None = None, faults: tuple[str, ...] = ()) -> None:
        self.trouble, self.faults, self.done = trouble, faults, False

    def observe(self, _past: Past[bool]) -> bool:
        return self.done

    def plan(self, done: bool) -> Plan:
        if done:
            return Plan(ok=("thing is there",))
        return Plan(changes=(Change("create", "thing", after={"size": 1}),), failed=self.faults)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        if self.trouble:
            raise self.trouble
        self.done = True
        report.changed(changes[0])

    def outputs(self, _facts: bool) -> Any:
        return Outputs()


class Judge(OneChange):
    """A step that finds something out and changes nothing."""

    def observe(self, _past: Past[bool]) -> bool:
        return True

    def outputs(self, _facts: bool) -> Any:
        return Verdict()


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setenv("SLIPWAY_TERMINATION_LOG", str(path))
    return path


def run(monkeypatch: pytest.MonkeyPatch, step: Any, *arguments: str) -> int:
    monkeypatch.setattr("steps.__main__.set_up", lambda **_: None)  # it would take the log of the test runner away
    monkeypatch.setitem(wiring.STEPS, "create-volume", lambda _invocation: step)
    return main(["create-volume", "--document", DOCUMENT, *arguments])


def test_a_step_that_is_done_says_so_and_leaves_its_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], termination_log: Path
) -> None:
    assert run(monkeypatch, OneChange(), "--outputs", str(tmp_path / "out")) == 0
    assert capsys.readouterr().out.splitlines() == [
        "changed  create thing",
        "ok       thing is there",
        "RECAP create-volume: ok=1 changed=1 failed=0",
    ]
    assert (tmp_path / "out" / "model-digest").read_text() == "sha256:ab"
    assert (tmp_path / "out" / "recap").read_text() == "1 changed: create thing"
    recap = json.loads((tmp_path / "out" / "recap.json").read_text())
    assert recap.pop("seconds") >= 0
    assert recap == {"ok": 1, "changed": 1, "failed": 0, "exit": 0, "reason": ""}
    assert termination_log.read_text() == ""


def test_a_step_that_only_judges_ends_its_recap_with_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, termination_log: Path
) -> None:
    assert run(monkeypatch, Judge(), "--outputs", str(tmp_path)) == 0
    assert (tmp_path / "recap").read_text() == "nothing changed, 1 ok; stale: the traffic goes elsewhere"


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Blocked("403 on secrets", "give the account the verb get"), 11),
        (NotConverging("undone", "find who"), 12),
        (DeadlineExceeded("late", "look at the pods"), 13),
        (TransientError("no answer", "look at the network"), 75),
    ],
)
def test_a_failure_is_told_on_stdout_on_the_node_and_by_the_exit_code(
    trouble: Any, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, termination_log: Path
) -> None:
    assert run(monkeypatch, OneChange(trouble), "--outputs", str(tmp_path / "out")) == code
    sentence = f"{trouble.reason}. Next: {trouble.hint}"
    assert capsys.readouterr().out.splitlines() == [
        f"failed   {sentence}",
        "RECAP create-volume: ok=0 changed=0 failed=1",
    ]
    assert termination_log.read_text() == sentence
    assert json.loads((tmp_path / "out" / "recap.json").read_text())["reason"] == sentence
    assert not (tmp_path / "out" / "model-digest").exists()  # nothing that a next task would trust


def test_faults_are_told_once_each(monkeypatch: pytest.MonkeyPatch, capsys: Any, termination_log: Path) -> None:
    assert run(monkeypatch, OneChange(faults=("no GPU", "no CRD"))) == 11
    assert capsys.readouterr().out.splitlines() == [
        "failed   no GPU",
        "failed   no CRD",
        "RECAP create-volume: ok=0 changed=0 failed=2",
    ]
    assert termination_log.read_text() == "2 failed: no GPU; no CRD"


def test_a_bug_is_a_sentence_for_people_and_a_traceback_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, termination_log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(monkeypatch, OneChange(KeyError("lost"))) == 1
    output = capsys.readouterr().out
    assert "a bug in Slipway" in output
    assert "Traceback" not in output
    assert "a bug in Slipway" in termination_log.read_text()
    assert "KeyError: 'lost'" in caplog.text


def test_a_long_reason_fits_the_termination_message(monkeypatch: pytest.MonkeyPatch, termination_log: Path) -> None:
    assert run(monkeypatch, OneChange(Blocked("403 " + "é" * 5_000, "give the account the verb get"))) == 11
    assert 4_090 < len(termination_log.read_bytes()) <= 4_096
    assert termination_log.read_text().startswith("403 é")
    assert termination_log.read_text().endswith("é. Next: give the account the verb get")


def test_a_reason_that_is_no_unicode_is_told(monkeypatch: pytest.MonkeyPatch, termination_log: Path) -> None:
    assert run(monkeypatch, OneChange(Blocked("the hub lists a\ud800b"))) == 11
    assert termination_log.read_text() == "the hub lists a\N{REPLACEMENT CHARACTER}b"


def test_a_machine_without_a_termination_log_is_fine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLIPWAY_TERMINATION_LOG", str(tmp_path / "absent"))
    assert run(monkeypatch, OneChange(Blocked("no"))) == 11
    assert not (tmp_path / "absent").exists()


def test_check_and_diff_show_what_would_be_done_and_do_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    step = OneChange()
    assert run(monkeypatch, step, "--check", "--diff", "--outputs", str(tmp_path / "out")) == 0
    assert not step.done
    assert "+size: 1" in capsys.readouterr().out.splitlines()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["recap", "recap.json"]


@pytest.mark.parametrize(
    "arguments",
    [[], ["create-volume"], ["dance", "--document", DOCUMENT], ["create-volume", "--document", DOCUMENT, "--fast"]],
)
def test_a_wrong_command_line_is_usage(arguments: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: python -m steps" in capsys.readouterr().err


@pytest.mark.parametrize("digest", ["abc", "", "-", "sha256:" + "A" * 64, "sha256:" + "0" * 65, f"{DIGEST}\n", "{{a}}"])
def test_a_digest_that_is_none_is_usage_before_even_the_document_is_read(digest: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as left:
        main(["create-volume", "--document", "absent.yaml", f"--model-digest={digest}"])
    assert left.value.code == 2
    sentence = f"{digest!r} is no model digest, expected sha256: and 64 lower-case hex digits. Next: pass the digest"
    assert f"argument --model-digest: {sentence}" in capsys.readouterr().err


def _steps(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "steps", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},  # noqa: TID251  # passed on, with additions
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_wrong_document_is_ten_with_every_mistake_and_no_traceback(tmp_path: Path) -> None:
    document, log = tmp_path / "service.yaml", tmp_path / "log"
    document.write_text("apiVersion: slipway/v1alpha1\nkind: ModelService\nmetadata: {name: A}\n")
    log.touch()
    with _steps("resolve-model", "--document", str(document), SLIPWAY_TERMINATION_LOG=str(log)) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 10
    for mistake in ("metadata.name (line 3, column 18): found 'A'", "model (line 1, column 1): missing", "store (line"):
        assert mistake in out
        assert mistake in log.read_text()
    assert "Traceback" not in out + err


def test_a_document_that_is_not_there_is_ten(tmp_path: Path) -> None:
    with _steps("resolve-model", "--document", str(tmp_path / "absent.yaml")) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 10
    assert "cannot read the document" in out
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["resolve-model", "--document", "{{=1+}}"], 10),
        (["resolve-model", "--document", DOCUMENT, "--set", "{{=1+}}"], 10),
        (["mirror-model", "--document", DOCUMENT, "--shard", "{{=1+}}"], 2),
    ],
)
def test_nothing_that_a_step_prints_is_a_template_of_argo(arguments: list[str], code: int) -> None:
    """The kubelet takes the end of the log for the message of a container that left none."""
    with _steps(*arguments) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "{ {=1+} }" in out + err
    assert "{{" not in out + err


def test_a_traceback_is_no_template_of_argo() -> None:
    script = (
        "from steps.reconcile.plain_text import make_streams_plain as make\nmake()\nraise ValueError('{{=1+}} \\ud800')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "ValueError: { {=1+} } \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)])
def test_a_step_that_is_asked_to_stop_ends_with_seventy_five_and_its_recap(
    signals: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    log, kubeconfig = tmp_path / "log", tmp_path / "kubeconfig"
    log.touch()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        server = f"http://127.0.0.1:{silent.getsockname()[1]}"
        kubeconfig.write_text(
            f"{{clusters: [{{name: a, cluster: {{server: '{server}'}}}}], users: [{{name: a, user: {{}}}}], "
            "contexts: [{name: a, context: {cluster: a, user: a}}], current-context: a}"
        )
        outputs = ("--outputs", str(tmp_path / "out"))
        environment = {"KUBECONFIG": str(kubeconfig), "SLIPWAY_TERMINATION_LOG": str(log)}
        with _steps("resolve-model", "--document", DOCUMENT, *outputs, **environment) as process:
            connection, _ = silent.accept()  # the step has asked, and no answer comes
            for number in signals:
                process.send_signal(number)
            out, err = process.communicate(timeout=60)
            connection.close()
    assert process.returncode == 75
    assert out.splitlines()[-1] == "RECAP resolve-model: ok=0 changed=0 failed=1"
    assert f"stopped by {signals[0].name}" in log.read_text()
    assert json.loads((tmp_path / "out" / "recap.json").read_text())["exit"] == 75
    assert "Traceback" not in out + err


@pytest.mark.parametrize("words", [["--help"], ["roll-back", "--document", DOCUMENT, "--check"]])
def test_a_reader_that_goes_away_ends_a_step_without_a_traceback(words: list[str], tmp_path: Path) -> None:
    shut, end = os.pipe()
    os.close(shut)
    command = [sys.executable, "-m", "steps", *words]
    environment = {"KUBECONFIG": str(tmp_path / "absent"), "PATH": "/usr/bin:/bin"}
    with os.fdopen(end, "w") as gone:
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=gone, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert (ended.returncode, ended.stderr) == (141, b"")
