"""The command `slipway`: its help, its verbs that need no cluster, and the version that it shows."""

import json
import os
import subprocess  # noqa: TID251  # exit codes and the current folder are those of a process
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from steps import __version__
from steps.checks.table import CHECKS
from steps.errors import MEANINGS, Blocked, Exit
from steps.reconcile.closed_pipe import CODE
from tests.support.samples import ROOT, SERVICES
from workflows import packages, rehearsal
from workflows.__main__ import main
from workflows.argo import bundle
from workflows.commands import document
from workflows.commit import UNKNOWN, of_checkout
from workflows.overview import VERBS

DEMO = SERVICES / "demo.yaml"
COMMIT, OTHER = "1" * 40, "2" * 40
HIDDEN = ("step", "schema", "completion")


def slipway(folder: Path, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """The command in a folder that holds packages of the same names."""
    for name in ("steps", "workflows"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__main__.py").write_text("raise SystemExit('the wrong package')")
    environment = {**packages.environment(), "PATH": "/usr/bin:/bin", **more}
    command = packages.python("-m", "workflows", *words)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_without_a_verb_the_groups_and_the_next_command_are_shown(capsys: Any) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == [
        "document",
        "run",
        "Next: slipway rehearse",
    ]
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(VERBS)


def test_the_help_shows_every_verb_and_every_exit_code_and_no_hidden_verb(capsys: Any) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in VERBS)
    assert all(f"  {code:>2}  {MEANINGS[code]}\n" in shown for code in Exit)
    assert not any(f"\n  {name} " in shown for name in HIDDEN)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_of_its_own(verb: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert f"usage: slipway {verb} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["submit", "a", "--set", "serving.image=a"],
        ["rehearse", "a.yaml", "-p", "image=a"],
        ["render", "a.yaml"],
        ["check", "a.yaml", "--only", "moon"],
        ["runs", "-o", "json", "--follow"],
    ],
)
def test_a_wrong_command_line_is_usage(words: list[str], capsys: Any) -> None:
    """Also one spelling for the other: --set changes the document, -p a parameter of the run."""
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == Exit.USAGE
    assert "usage: slipway" in capsys.readouterr().err


def test_a_step_has_the_command_line_of_its_pod(tmp_path: Path) -> None:
    done = slipway(tmp_path, "step", "roll-back", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: slipway step roll-back ")
    assert "--run-status" in done.stdout
    assert "--shard" not in done.stdout
    refused = slipway(tmp_path, "step", "resolve-model", "--document", "absent.yaml")
    assert refused.returncode == Exit.DOCUMENT
    assert "cannot read the document" in refused.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_the_completion_of_a_shell_knows_the_verbs_that_people_type(shell: str, capsys: Any) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in VERBS)
    assert "schema" not in script


def test_a_valid_document_is_zero_and_a_wrong_one_ten(tmp_path: Path, capsys: Any) -> None:
    assert main(["check", "--offline", str(DEMO)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: slipway check {DEMO}"
    assert main(["check", "--offline", str(DEMO), "--set", "serving.prefill.replicas=many"]) == Exit.DOCUMENT
    assert "found 'many', allowed is: a whole number" in capsys.readouterr().err
    assert main(["check", "--offline", str(DEMO), "--set", "serving.prefill.replicas=many", "-o", "json"]) == 10
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["state"] == "failed"


def test_a_check_that_gets_no_answer_ends_as_its_step_does(tmp_path: Path) -> None:
    """Without a key the step ends before it reads anything; the finding has no code."""
    hidden = {"OSS_ACCESS_KEY_ID": "", "KUBECONFIG": str(tmp_path / "absent")}
    done = slipway(tmp_path, "check", str(DEMO), "-o", "json", **hidden)
    found = json.loads(done.stdout)
    assert done.returncode == found["exit"] == Exit.BLOCKED
    assert [finding["state"] for finding in found["findings"]] == ["failed"]
    text = slipway(tmp_path, "check", str(DEMO), "--only", "nodes", **hidden)
    assert text.returncode == Exit.BLOCKED
    assert text.stdout.splitlines()[-2:] == [
        "check: ok=0 waiting=0 failed=1",
        f"Next: correct the findings, then slipway check {DEMO}",
    ]


LINES = (
    "ok       API02 namespace default exists\n",
    "waiting  RBG02 RoleBasedGroup operator: 0 of 1 ready\n",
    "failed   GPU01 Free GPUs: found 0; needed 8. Next: free GPUs\n",
    "failed   no answer from the hub\n",
    "RECAP check-platform: ok=1 changed=0 failed=2\n",
)


def test_findings_are_read_by_state_code_and_area() -> None:
    every = list(document.findings(LINES))
    assert [(one.state, one.code) for one in every] == [
        ("ok", "API02"),
        ("waiting", "RBG02"),
        ("failed", "GPU01"),
        ("failed", ""),
    ]
    assert [str(one) + "\n" for one in every] == list(LINES[:-1])
    assert [one.code for one in document.findings(LINES, ("nodes",))] == ["GPU01", ""]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("print('failed   GPU01 Free GPUs: found 0'); raise SystemExit(11)", None),
        ("print('ok       FAB01 ready'); print('failed   GPU01 found 0'); raise SystemExit(11)", 0),
        ("print('ok       FAB01 ready')", 0),
    ],
    ids=["no finding of the area", "a failure in another area", "all is well"],
)
def test_an_area_without_a_finding_beside_a_failure_is_not_called_healthy(
    said: str, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "python", lambda *_: [sys.executable, "-c", said])
    asked = document.Check(DEMO, areas=("fabric",))
    if code is None:
        with pytest.raises(Blocked, match="no finding about fabric"):
            document.check(asked)
    else:
        assert document.check(asked) == code


def test_every_check_is_in_one_area() -> None:
    for check in CHECKS:
        areas = [area for area, codes in document.AREAS.items() if check.code.startswith(codes)]
        assert len(areas) == 1, check.code


def test_rendering_writes_the_manifests_and_ends_with_the_next_command(tmp_path: Path, capsys: Any) -> None:
    assert main(["render", str(SERVICES / "qwen3-32b.yaml"), "-o", str(tmp_path)]) == 0
    assert (tmp_path / "service" / "qwen3-32b" / "workflow-template.yaml").exists()
    assert capsys.readouterr().out.splitlines()[-1].strip() == "slipway submit qwen3-32b -n slipway"


def test_the_committed_files_are_checked_by_an_entry_of_their_own(capsys: Any) -> None:
    assert bundle.main(["--check"]) == 0
    assert bundle.main(["check"]) == Exit.USAGE


def test_a_reader_that_goes_away_ends_the_overview_without_a_word(tmp_path: Path) -> None:
    shut, end = os.pipe()
    os.close(shut)
    with os.fdopen(end, "w") as gone:
        done = subprocess.run(
            packages.python("-m", "workflows"),
            env=packages.environment(),
            stdout=gone,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (CODE, b"")


def test_the_distribution_has_another_name_than_its_command_and_is_never_uploaded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] != "slipway"
    assert project["scripts"] == {"slipway": "workflows.__main__:console"}
    assert "Private :: Do Not Upload" in project["classifiers"]


def test_the_demo_document_of_a_checkout_is_the_committed_one() -> None:
    assert rehearsal.demo_document() == DEMO
    assert rehearsal.Options().path == DEMO


def test_the_version_names_the_commit(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"slipway {__version__} (commit {of_checkout(ROOT)})\n"


def git(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


BRANCH = "ref: refs/heads/main"
CHECKOUTS = {
    "detached": {".git/HEAD": COMMIT},
    "branch": {".git/HEAD": BRANCH, ".git/refs/heads/main": COMMIT, ".git/packed-refs": f"{OTHER} refs/heads/main"},
    "packed": {
        ".git/HEAD": BRANCH,
        ".git/packed-refs": f"# pack-refs\n{OTHER} refs/heads/maintenance\n{COMMIT} refs/heads/main\n^{OTHER}",
    },
    "worktree": {
        ".git": "gitdir: elsewhere/worktrees/one",
        "elsewhere/worktrees/one/HEAD": BRANCH,
        "elsewhere/worktrees/one/commondir": "../..",
        "elsewhere/refs/heads/main": COMMIT,
    },
}


@pytest.mark.parametrize("kind", CHECKOUTS)
def test_the_commit_is_read_from_a_checkout_without_git(kind: str, tmp_path: Path) -> None:
    assert of_checkout(git(tmp_path, CHECKOUTS[kind])) == COMMIT


@pytest.mark.parametrize("files", [{}, {".git/HEAD": BRANCH}, {".git": "gitdir: absent"}])
def test_a_commit_that_cannot_be_read_is_unknown(files: dict[str, str], tmp_path: Path) -> None:
    assert of_checkout(git(tmp_path, files)) == UNKNOWN


def test_a_terminal_without_colours_gets_none(tmp_path: Path) -> None:
    pytest.importorskip("pty")
    program = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    command = [
        sys.executable,
        "-c",
        program,
        *packages.python("-m", "steps", "roll-back", f"--document={tmp_path}/absent"),
    ]
    environment = {**packages.environment(), "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    coloured = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    plain = subprocess.run(
        command, env={**environment, "NO_COLOR": "1"}, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert b"31m" in coloured.stdout
    assert b"31m" not in plain.stdout
    assert plain.returncode == Exit.DOCUMENT
