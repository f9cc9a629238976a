"""A run is started once, with every parameter, and followed to its end; the exit code tells how it ended."""

import os
import signal
import subprocess  # noqa: TID251  # what Ctrl-C does can only be seen from outside of the process
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steps.adapters.kubernetes import cluster as kubernetes_cluster
from steps.errors import Blocked, DeadlineExceeded, DocumentError, TransientError
from steps.reconcile.retry_policy import RetryPolicy
from tests.support.argo_cluster import NAMESPACE, SERVICE, TOKEN, ArgoCluster, Attempt, nodes
from tests.support.fakes import FakeClock
from tests.support.samples import ROOT, SERVICES
from workflows.__main__ import main
from workflows.commands import run as run_commands
from workflows.commands.run import Place, Start
from workflows.runs import follow
from workflows.simulator.faults import request_faults

CLIENTS = ("kubernetes", "argo-server", "event")
QUIET = Start(SERVICE, run_id="1")


def place(world: ArgoCluster, client: str) -> Place:
    return Place(argo_server=world.argo_server if client != "kubernetes" else "", event=client == "event")


def scripted(*moves: Callable[[], Any]) -> FakeClock:
    """A clock that lets the controller make one move in each pause; after the last one it rests."""
    left = list(moves)
    return FakeClock(lambda _: left.pop(0)() if left else None)


def done(world: ArgoCluster, recap: str = "nothing changed, 2 as wanted", **outputs: str) -> None:
    name = world.only_run()["metadata"]["name"]
    line = {"resolve-model": (Attempt(),), "promote-release": (Attempt(recap=recap, outputs=outputs),)}
    finish = {"roll-back": (), "report-run": (Attempt(recap="1 changed: create message/x"),)}
    world.tell(
        phase="Succeeded",
        progress="3/3",
        startedAt="2026-01-02T03:00:00Z",
        finishedAt="2026-01-02T03:02:42Z",
        nodes=nodes(name, {**line, **finish}, root="Succeeded"),
    )


@pytest.mark.parametrize("client", CLIENTS)
def test_a_run_that_succeeds_is_zero_and_its_tasks_are_told(world: ArgoCluster, client: str, capsys: Any) -> None:
    world.apply_template()
    clock = scripted(lambda: done(world, recap="1 changed: update Service/default/sglang-pd", release="ab12cd34"))
    assert run_commands.submit(QUIET, place(world, client), clock) == 0
    server = "" if client == "kubernetes" else f" --argo-server {world.argo_server}"
    assert capsys.readouterr().out.splitlines() == [
        "run qwen3-32b-1 started in namespace slipway from qwen3-32b",
        "waiting  Pending, no controller of Argo has reconciled it yet",
        "ok       run qwen3-32b-1 Succeeded: changed by promote-release",
        "",
        "run qwen3-32b-1 Succeeded: changed by promote-release, 2m42s",
        "  resolve-model    Succeeded  42s  nothing changed, 2 as wanted",
        "  promote-release  Succeeded  42s  1 changed: update Service/default/sglang-pd",
        "  roll-back        Skipped    0s   the run did not fail",
        "  report-run       Succeeded  42s  1 changed: create message/x",
        f"Next: slipway runs qwen3-32b -n slipway{server}",
    ]


@pytest.mark.parametrize("client", CLIENTS)
def test_every_parameter_is_passed_so_that_a_retry_forgets_none(world: ArgoCluster, client: str) -> None:
    template = world.apply_template()
    start = replace(
        QUIET, parameters=("image=a/b:0.5.24", "prefill-replicas=3"), wait=False, reason="image 1", trigger="ci"
    )
    assert run_commands.submit(start, place(world, client)) == 0
    run = world.only_run()
    passed = {parameter["name"]: parameter["value"] for parameter in run["spec"]["arguments"]["parameters"]}
    declared = {parameter["name"]: parameter["value"] for parameter in template["spec"]["arguments"]["parameters"]}
    wanted = {**declared, "image": "a/b:0.5.24", "prefill-replicas": "3", "reason": "image 1"}
    if client == "event":
        wanted.pop("service")  # the document itself cannot come in by that door
    assert passed == wanted
    lock = {"synchronization"} if client == "kubernetes" else set()  # the one way that can carry it
    assert set(run["spec"]) == {"workflowTemplateRef", "arguments"} | lock
    assert run["metadata"]["labels"]["slipway/trigger"] == "ci"
    assert run["metadata"]["name"] == "qwen3-32b-1"


@pytest.mark.parametrize("says_try_again", [False, True])
@pytest.mark.parametrize("client", CLIENTS)
def test_asking_twice_with_one_id_starts_one_run(
    world: ArgoCluster, client: str, says_try_again: bool, capsys: Any
) -> None:
    world.apply_template()
    world.says_try_again = says_try_again
    for _ in range(2):
        assert run_commands.submit(replace(QUIET, wait=False), place(world, client)) == 0
    assert len(world.runs()) == 1
    assert "run qwen3-32b-1 exists already; no run was started" in capsys.readouterr().out


def test_a_run_whose_start_was_not_heard_is_started_once(world: ArgoCluster) -> None:
    world.apply_template()
    world.faults.plan("POST /apis/argoproj.io", request_faults.LOST_ANSWER)
    assert run_commands.submit(replace(QUIET, run_id="", wait=False), Place()) == 0
    assert len(world.faults.injected) == 1
    assert len(world.runs()) == 1


WRONG = [
    ("image={{workflow.name}}", "image: found '{{workflow.name}}', allowed is: Engine image"),
    ("prefill-replicas=many", "prefill-replicas: found 'many', allowed is: Number of prefill workers, 1 to 64"),
    ("prefill-replicas=65", "(override of serving.prefill.replicas): found 65, allowed is: at most 64"),
    ("strategy=Fast", "strategy: found 'Fast', allowed is: BlueGreen or Recreate"),
    ("service=x", "service: no parameter of a run; allowed are: model-revision (model.revision), "),
    ("transfer.mode=streamed", "transfer.mode: no parameter of a run"),
    ("serving.image=a/b:0.5.24", "serving.image: no parameter of a run; allowed are: model-revision"),
    ("image", "'image': expected name=value"),
    ("model-revision=a\n", "model-revision: found 'a\\n'"),
]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("override", "says"), WRONG)
def test_a_wrong_override_is_refused_before_anything_is_created(
    world: ArgoCluster, client: str, override: str, says: str
) -> None:
    world.apply_template()
    with pytest.raises(DocumentError) as refused:
        run_commands.submit(replace(QUIET, parameters=(override,)), place(world, client))
    assert says in str(refused.value)
    assert world.runs() == []


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (replace(QUIET, run_id="A b"), "--run-id: found 'A b'"),
        (replace(QUIET, target=str(SERVICES / "qwen3-32b.yaml"), parameters=("image=",)), ""),
    ],
)
def test_words_that_become_names_and_titles_are_checked(world: ArgoCluster, start: Start, says: str) -> None:
    world.apply_template()
    if not says:
        assert run_commands.submit(replace(start, wait=False), Place()) == 0
        return
    with pytest.raises(DocumentError, match=r"allowed are") as refused:
        run_commands.submit(start, Place())
    assert says in str(refused.value)
    assert world.runs() == []


def test_a_file_that_is_not_what_the_cluster_runs_is_refused_with_what_differs(
    world: ArgoCluster, tmp_path: Path
) -> None:
    world.apply_template()
    text = (SERVICES / "qwen3-32b.yaml").read_text(encoding="utf-8")
    path = tmp_path / "qwen3-32b.yaml"
    path.write_text(
        text.replace("replicas: 2", "replicas: 4").replace("region: cn-hangzhou", "region: cn-beijing"),
        encoding="utf-8",
    )
    with pytest.raises(DocumentError, match=r"they differ in serving\.prefill\.replicas, store\.region\. Next: render"):
        run_commands.submit(replace(QUIET, target=str(path)), Place())
    assert world.runs() == []


def test_a_template_that_slipway_did_not_render_is_refused(world: ArgoCluster) -> None:
    world.apply_template(arguments={})
    with pytest.raises(DocumentError, match="no parameter 'service' with a document"):
        run_commands.submit(QUIET, Place())


@pytest.mark.parametrize("client", CLIENTS)
def test_an_absent_template_is_named(world: ArgoCluster, client: str) -> None:
    with pytest.raises(Blocked, match="there is no WorkflowTemplate qwen3-32b in namespace slipway"):
        run_commands.submit(QUIET, place(world, client))


def test_a_queued_run_says_what_it_waits_for(world: ArgoCluster, capsys: Any) -> None:
    world.apply_template()
    # The words and the status of Argo 3.5. workflow/sync/semaphore.go, workflow_types.go (MutexHolding)
    queued: dict[str, Any] = {
        "phase": "Pending",
        "message": "Waiting for slipway/Mutex/slipway-default-qwen3-32b lock. Lock status: 0/1 ",
        "synchronization": {
            "mutex": {
                "waiting": [{"mutex": "slipway/Mutex/slipway-default-qwen3-32b", "holder": "slipway/qwen3-32b-nightly"}]
            }
        },
    }
    clock = scripted(lambda: world.tell(**queued), lambda: None, lambda: done(world))
    assert run_commands.submit(QUIET, Place(), clock) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("waiting")]
    said = "waiting  Pending, queued for mutex slipway-default-qwen3-32b held by run qwen3-32b-nightly"
    gone = ", which is gone: a running controller passes the mutex on within seconds"
    assert lines[1:] == [said + gone]  # Argo wrote the name down before that run was deleted


def test_progress_is_told_task_by_task_with_why_a_pod_does_not_start(world: ArgoCluster, capsys: Any) -> None:
    world.apply_template()
    ok, name = (Attempt(),), "qwen3-32b-1"

    def at(progress: str, *attempts: Attempt) -> Callable[[], None]:
        tasks = {"resolve-model": ok, "preflight": ok, "download-model": attempts}
        return lambda: world.tell(phase="Running", progress=progress, nodes=nodes(name, tasks))

    clock = scripted(
        at("2/3", Attempt("Pending", "Unschedulable: 0/3 nodes are available")),
        at("1002/65002", Attempt("Running", progress="1000/65000")),
        at("1002/65002", Attempt("Failed", "no answer"), Attempt("Running", progress="2000/65000")),
        lambda: done(world),
    )
    assert run_commands.submit(QUIET, Place(), clock) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("waiting")]
    assert lines[1:] == [
        "waiting  2 tasks done (2/3); download-model Pending (Unschedulable: 0/3 nodes are available)",
        "waiting  2 tasks done (1002/65002); download-model Running 1000/65000",
        "waiting  2 tasks done (1002/65002); download-model Running 2000/65000, attempt 2",
    ]


def failed(world: ArgoCluster, phase: str = "Failed") -> None:
    name = world.only_run()["metadata"]["name"]
    tasks = {
        "resolve-model": (Attempt(),),
        "preflight": (Attempt("Failed", "no answer", ""), Attempt("Failed", "1 fault: GPU01 Free | GPUs: found 0", "")),
        "download-model": (),
        "roll-back": (Attempt(),),
        "report-run": (Attempt(),),
    }
    world.tell(phase=phase, nodes=nodes(name, tasks, root=phase), startedAt="2026-01-02T03:00:00Z")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("phase", ["Failed", "Error"])
def test_a_run_that_fails_is_eleven_with_what_its_last_attempt_said(
    world: ArgoCluster, client: str, phase: str, capsys: Any, tmp_path: Path
) -> None:
    world.apply_template()
    recap = tmp_path / "out" / "recap.md"
    with pytest.raises(Blocked) as ended:
        run_commands.submit(replace(QUIET, recap=recap), place(world, client), scripted(lambda: failed(world, phase)))
    assert int(ended.value.exit) == 11
    assert f"run qwen3-32b-1 {phase}: preflight: 1 fault: GPU01 Free | GPUs: found 0" in str(ended.value)
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in lines[-5:]] == [
        "resolve-model Succeeded 42s nothing changed, 2 as wanted",
        "preflight Failed 42s 2 attempts; 1 fault: GPU01 Free | GPUs: found 0",
        "download-model Omitted -",
        "roll-back Succeeded 42s nothing changed, 2 as wanted",
        "report-run Succeeded 42s nothing changed, 2 as wanted",
    ]
    assert "| preflight | Failed | 42s | 2 attempts; 1 fault: GPU01 Free \\| GPUs: found 0 |" in recap.read_text()


def test_a_run_without_any_failed_task_says_what_argo_says(world: ArgoCluster) -> None:
    world.apply_template()
    clock = scripted(lambda: world.tell(phase="Error", message="invalid spec: templates.line …"))
    with pytest.raises(Blocked, match=r"run qwen3-32b-1 Error: invalid spec: templates\.line"):
        run_commands.submit(QUIET, Place(), clock)


def test_giving_up_is_thirteen_and_leaves_the_run_alone(world: ArgoCluster) -> None:
    world.apply_template()
    with pytest.raises(DeadlineExceeded) as late:
        run_commands.submit(replace(QUIET, minutes=1.0), Place(), FakeClock())
    assert int(late.value.exit) == 13
    assert "gave up following after 1 minutes; the run goes on." in str(late.value)
    assert "Next: follow it: slipway runs qwen3-32b-1 -n slipway --follow" in str(late.value)
    assert len(world.runs()) == 1


def test_a_run_is_followed_twice_as_long_as_its_template_lets_it_take(world: ArgoCluster) -> None:
    world.apply_template(activeDeadlineSeconds=600)
    clock = FakeClock()
    start = clock.now()
    with pytest.raises(DeadlineExceeded, match="after 20 minutes"):
        run_commands.submit(QUIET, Place(), clock)
    assert 1200 <= clock.now() - start < 1210


@pytest.mark.parametrize("client", ["kubernetes", "argo-server"])
def test_a_server_that_restarts_while_a_run_is_followed_is_waited_for(
    world: ArgoCluster, client: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(kubernetes_cluster, "RETRIES", RetryPolicy(attempts=1))
    world.apply_template()
    clock = scripted(
        lambda: world.faults.plan("/workflows/qwen3-32b-1", request_faults.UNAVAILABLE, 2),
        lambda: None,
        lambda: done(world),
    )
    assert run_commands.submit(QUIET, place(world, client), clock) == 0
    told = (
        "no answer from the API server when asked to get workflows.argoproj.io qwen3-32b-1" in capsys.readouterr().out
    )
    assert told == (client == "kubernetes")


def test_minutes_of_silence_are_seventy_five(world: ArgoCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_cluster, "RETRIES", RetryPolicy(attempts=1))
    world.apply_template()
    clock = scripted(lambda: world.faults.plan("/workflows/qwen3-32b-1", request_faults.UNAVAILABLE, 1000))
    start = clock.now()
    with pytest.raises(TransientError) as silent:
        run_commands.submit(QUIET, Place(), clock)
    assert int(silent.value.exit) == 75
    assert follow.NO_ANSWER_SECONDS <= clock.now() - start < follow.NO_ANSWER_SECONDS + 20


def test_a_run_that_is_deleted_is_no_longer_waited_for(world: ArgoCluster) -> None:
    world.apply_template()
    with pytest.raises(Blocked, match="run qwen3-32b-1 was deleted while it was followed"):
        run_commands.submit(QUIET, Place(), scripted(world.delete_run))


def test_a_payload_that_the_binding_refuses_is_told_at_once_with_key_and_value(
    world: ArgoCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.apply_template()
    monkeypatch.setattr("workflows.runs.clients._payload", lambda _submission: {"model-revision": 1.10})
    with pytest.raises(
        Blocked, match=r"refuses the payload: model-revision: found !1\.1, expected a text that matches"
    ):
        run_commands.submit(QUIET, place(world, "event"), FakeClock())
    assert world.runs() == []


def test_an_event_that_no_binding_takes_is_told_after_a_minute(world: ArgoCluster) -> None:
    world.apply_template()
    world.has_binding = False
    clock = FakeClock()
    start = clock.now()
    with pytest.raises(Blocked, match=r"did not appear within 60 s: no event binding took the event"):
        run_commands.submit(QUIET, place(world, "event"), clock)
    assert 60 <= clock.now() - start < 70


def test_a_reason_is_cleaned_and_never_keeps_a_run_from_starting(world: ArgoCluster) -> None:
    world.apply_template()
    assert run_commands.submit(replace(QUIET, wait=False, reason="{{=x}} caf\u00e9"), Place()) == 0
    (run,) = world.runs()
    parameters = {found["name"]: found["value"] for found in run["spec"]["arguments"]["parameters"]}
    assert parameters["reason"] == "   x   caf "


@pytest.mark.parametrize(
    ("token", "works"), [("dummy-token", True), ("Bearer dummy-token", True), ("other", False), ("", False)]
)
def test_the_token_is_taken_with_and_without_its_scheme(
    world: ArgoCluster, monkeypatch: pytest.MonkeyPatch, token: str, works: bool
) -> None:
    world.apply_template()
    monkeypatch.setitem(run_commands.ENVIRONMENT, "ARGO_TOKEN", token)
    if works:
        assert run_commands.submit(replace(QUIET, wait=False), place(world, "argo-server")) == 0
        return
    with pytest.raises(Blocked, match=r"HTTP 401: token not valid.*Next: put a valid token into ARGO_TOKEN"):
        run_commands.submit(QUIET, place(world, "argo-server"))


@pytest.mark.parametrize(
    ("address", "error"), [("http://127.0.0.1:9", TransientError), ("ftp://argo:2746", Blocked), ("https://", Blocked)]
)
def test_an_argo_server_that_is_not_there_is_told(world: ArgoCluster, address: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="Argo Server"):
        run_commands.submit(QUIET, Place(argo_server=address))


def test_an_event_needs_an_argo_server(world: ArgoCluster) -> None:
    with pytest.raises(Blocked, match="events need an Argo Server"):
        run_commands.submit(QUIET, Place(event=True))


@pytest.mark.parametrize(
    ("written", "more", "url"),
    [
        ("argo.example:2746", {}, "https://argo.example:2746"),
        ("argo.example:2746", {"ARGO_SECURE": "true"}, "https://argo.example:2746"),
        ("localhost:2746", {"ARGO_SECURE": "false", "ARGO_BASE_HREF": "/argo"}, "http://localhost:2746/argo"),
        ("http://localhost:2746/argo", {"ARGO_BASE_HREF": "/other"}, "http://localhost:2746/argo"),
    ],
)
@pytest.mark.parametrize("how", ["option", "environment"])
def test_argo_server_is_named_as_for_argos_own_command_line(
    written: str, more: dict[str, str], url: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        run_commands, "ENVIRONMENT", {**more, **({"ARGO_SERVER": written} if how == "environment" else {})}
    )
    place = Place(argo_server=written if how == "option" else None)
    assert run_commands._resolved(place).argo_server == url


@pytest.mark.parametrize("token", [TOKEN, f"Bearer {TOKEN}"])
def test_the_environment_of_argos_command_line_leads_to_argo_server(
    world: ArgoCluster, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"ARGO_SERVER": world.argo_server.removeprefix("http://"), "ARGO_SECURE": "false", "ARGO_TOKEN": token}
    monkeypatch.setattr(run_commands, "ENVIRONMENT", {**run_commands.ENVIRONMENT, **found})
    world.apply_template()
    assert main(["submit", SERVICE, "--no-wait"]) == 0
    assert any(asked.endswith("/submit") for asked in world.requests)
    world.requests.clear()
    assert main(["runs", "--argo-server", ""]) == 0
    assert world.requests == []


def test_the_command_line_says_it_on_stderr_with_the_code(world: ArgoCluster, capsys: Any) -> None:
    assert main(["submit", SERVICE]) == 11
    assert "there is no WorkflowTemplate qwen3-32b" in capsys.readouterr().err
    world.apply_template()
    assert main(["submit", SERVICE, "-p", "strategy=Fast"]) == 10
    assert main(["submit", SERVICE, "--parameter", "image=a/b:0.5.24", "--no-wait", "--run-id", "7"]) == 0
    assert "Next: slipway runs qwen3-32b-7 -n slipway --follow" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_following_and_not_the_run(world: ArgoCluster, number: int) -> None:
    world.apply_template()
    words = [sys.executable, "-m", "workflows", "submit", SERVICE, "--run-id=1"]
    environment = {"KUBECONFIG": str(world.kubeconfig), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("waiting"):
                process.send_signal(number)
                break
        said = process.stdout.read()
    assert process.returncode == 75
    assert "Stopped following; run qwen3-32b-1 goes on." in said
    assert "--follow" in said
    assert f"argo stop -n {NAMESPACE} qwen3-32b-1" in said
    assert "Traceback" not in said
    assert "spec" in world.only_run()


@pytest.mark.parametrize("command", [["submit", SERVICE, "--run-id=1"], ["runs"], ["--help"], ["schema"]])
def test_a_reader_that_goes_away_ends_the_command_without_a_word_and_not_the_run(
    world: ArgoCluster, command: list[str]
) -> None:
    """`submit … | head -1`, with the code of every program that SIGPIPE ends."""
    world.apply_template()
    if command != ["submit", SERVICE, "--run-id=1"]:
        run_commands.submit(replace(QUIET, wait=False), Place())
    shut, end = os.pipe()
    os.close(shut)
    words = [sys.executable, "-m", "workflows", *command]
    environment = {"KUBECONFIG": str(world.kubeconfig), "PATH": "/usr/bin:/bin"}
    with os.fdopen(end, "w") as gone:
        ended = subprocess.run(
            words, cwd=ROOT, env=environment, stdout=gone, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert (ended.returncode, ended.stderr) == (141, "")
    assert "spec" in world.only_run()


def test_who_starts_runs_needs_no_hera() -> None:
    look = "import sys, workflows.__main__, workflows.commands.run; sys.exit('hera' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], cwd=ROOT, check=False).returncode == 0
