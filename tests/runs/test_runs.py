"""What ran, what runs, and what each run did, at a glance."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from steps.adapters.kubernetes.cluster import connect
from steps.document.schema import parse
from steps.errors import Blocked
from steps.report.argo_nodes import read_run
from steps.report.run import Run
from steps.rollout.writer_lease import Writer, WriterLease
from tests.support.argo_cluster import NAMESPACE, SERVICE, ArgoCluster, Attempt, nodes
from tests.support.fakes import FakeClock
from workflows.__main__ import main
from workflows.commands import run as run_commands
from workflows.commands.run import Place, Query
from workflows.runs.submission import document_of
from workflows.runs.tables import headline, markdown

LABELS = {"slipway/service": SERVICE}
EXIT = {"report-run": (Attempt(recap="1 changed: create message/x"),), "roll-back": ()}  # of a run that succeeded


def add(
    world: ArgoCluster, name: str, labels: dict[str, str], more: Mapping[str, Any] | None = None, **status: Any
) -> None:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    spec = {"workflowTemplateRef": {"name": SERVICE}, **(more or {})}
    world.store.create(world.kind("Workflow"), {"metadata": metadata, "spec": spec})
    world.tell(name, **status)


@pytest.fixture
def busy(world: ArgoCluster) -> ArgoCluster:
    """A nightly run in which nothing changed, one of CI that failed, one by hand at work and one of another service."""
    quiet = {"resolve-model": (Attempt(),), "promote-release": (Attempt(outputs={"release": "ab12cd34"}),)}
    add(
        world,
        "a-nightly",
        {**LABELS, "workflows.argoproj.io/cron-workflow": SERVICE},
        phase="Succeeded",
        progress="3/3",
        startedAt="2026-01-02T03:00:00Z",
        finishedAt="2026-01-02T03:00:21Z",
        nodes=nodes("a-nightly", {**quiet, **EXIT}),
    )
    add(
        world,
        "b-ci",
        {**LABELS, "slipway/trigger": "ci"},
        phase="Failed",
        startedAt="2026-01-02T03:00:00Z",
        finishedAt="2026-01-02T05:01:00Z",
        nodes=nodes("b-ci", {"preflight": (Attempt("Failed", "no  GPU\nfree", ""),)}),
    )
    at_work = {"resolve-model": (Attempt(recap="1 changed: x"),), "download-model": (Attempt("Running"),)}
    add(world, "c-hand", {}, phase="Running", startedAt="2026-01-02T03:00:00Z", nodes=nodes("c-hand", at_work))
    add(world, "d-other", {"slipway/service": "other"}, phase="Running")
    return world


@pytest.mark.parametrize(
    ("root", "phase", "says"),
    [
        ("Succeeded", "Succeeded", "run a Succeeded"),
        ("Failed", "Failed", "run a Failed: Stopped with strategy 'Terminate'"),
        ("", "Failed", "run a Failed: Stopped with strategy 'Terminate'"),
    ],
)
def test_a_run_that_was_terminated_in_the_queue_did_not_succeed_whatever_argo_says(
    root: str, phase: str, says: str
) -> None:
    """As Argo 3.5.15 was seen to leave it: phase Succeeded, and tasks omitted if it has nodes at all."""
    found = nodes("a", {"resolve-model": ()}, root=root) if root else {}
    run = read_run(
        {
            "metadata": {"name": "a"},
            "spec": {"shutdown": "Terminate"},
            "status": {"phase": "Succeeded", "startedAt": None, "nodes": found},
        }
    )
    assert run.phase == phase
    assert headline(run, 0.0) == says


def runs(target: str, place: Place, clock: FakeClock | None = None) -> int:
    return run_commands.runs(Query(target), place, clock)


def table(capsys: Any) -> list[list[str]]:
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop().startswith("Next: slipway runs ")
    return [line.split("  ") for line in lines]


@pytest.mark.parametrize("client", ["kubernetes", "argo-server"])
def test_the_last_runs_of_a_service_are_listed_with_what_they_did(busy: ArgoCluster, client: str, capsys: Any) -> None:
    where = Place(argo_server=busy.argo_server if client == "argo-server" else "")
    clock = FakeClock()
    clock.time = lambda: datetime(2026, 1, 2, 3, 5, 9, tzinfo=UTC).timestamp()  # type: ignore[method-assign]
    assert runs(SERVICE, where, clock) == 0
    rows = [[cell.strip() for cell in row if cell.strip()] for row in table(capsys)]
    assert rows[0] == ["RUN", "TRIGGER", "PHASE", "STARTED", "DURATION", "PROGRESS", "RELEASE", "MESSAGE"]
    started = "2026-01-02 03:00Z"
    assert sorted(rows[1:]) == [
        ["a-nightly", "schedule", "Succeeded", started, "21s", "3/3", "ab12cd34", "nothing changed"],
        ["b-ci", "ci", "Failed", started, "2h01m", "-", "-", "preflight: no GPU free"],
        ["c-hand", "manual", "Running", started, "5m09s", "-", "-", "1 task done; download-model Running"],
    ]


def test_without_a_name_the_runs_of_all_services_are_listed(busy: ArgoCluster, capsys: Any) -> None:
    assert main(["runs", "--last", "3"]) == 0
    rows = table(capsys)
    assert len(rows) == 4
    assert main(["runs"]) == 0
    assert {row[0].strip() for row in table(capsys)[1:]} == {"a-nightly", "b-ci", "c-hand", "d-other"}


def test_a_document_names_its_service(busy: ArgoCluster, capsys: Any) -> None:
    assert main(["runs", "manifests/services/qwen3-32b.yaml"]) == 0
    assert len(table(capsys)) == 4


def test_one_run_is_shown_with_its_tasks(busy: ArgoCluster, capsys: Any) -> None:
    assert main(["runs", "a-nightly"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "run a-nightly Succeeded: nothing changed, 21s",
        "  resolve-model    Succeeded  42s  nothing changed, 2 as wanted",
        "  promote-release  Succeeded  42s  nothing changed, 2 as wanted",
        "  roll-back        Skipped    0s   the run did not fail",
        "  report-run       Succeeded  42s  1 changed: create message/x",
        "Next: slipway runs qwen3-32b -n slipway",
    ]


def test_a_run_can_be_followed_later_with_the_same_codes(busy: ArgoCluster, capsys: Any) -> None:
    assert main(["runs", "a-nightly", "--follow"]) == 0
    assert main(["runs", "b-ci", "--follow"]) == 11
    assert "run b-ci Failed: preflight: no GPU free" in capsys.readouterr().err


def test_what_is_neither_a_run_nor_a_service_is_told(busy: ArgoCluster) -> None:
    with pytest.raises(Blocked, match="there is no run of absent in namespace slipway, and no run of that name"):
        runs("absent", Place())
    with pytest.raises(Blocked, match="there is no run absent in namespace slipway"):
        run_commands.runs(Query("absent", follow=True), Place())


def test_an_empty_namespace_is_told(world: ArgoCluster) -> None:
    for server in ("", world.argo_server):
        with pytest.raises(Blocked, match="there is no run in namespace slipway"):
            runs("", Place(argo_server=server))


def test_a_task_that_changed_something_before_its_last_attempt_has_changed_something() -> None:
    tasks = {"upload-model": (Attempt("Failed", "no answer", "2 changed: a; b"), Attempt())}
    (task,) = run_of(tasks).tasks
    assert task.changed
    assert run_of(tasks).result == "changed by upload-model"


def test_a_run_with_an_attempt_that_was_killed_does_not_claim_that_nothing_changed() -> None:
    tasks = {"upload-model": (Attempt("Error", "pod deleted", ""), Attempt())}
    assert run_of(tasks).tasks[0].changed is None
    assert run_of(tasks).result == ""


def test_tasks_are_in_the_order_of_the_line_however_argo_keeps_them() -> None:
    tasks = {"promote-release": (), **EXIT, "smoke-test": (), "resolve-model": (Attempt(),)}
    line = ["resolve-model", "smoke-test", "promote-release"]
    assert [task.name for task in run_of(tasks, line).tasks] == [*line, "roll-back", "report-run"]


def test_each_of_several_pods_of_a_task_is_a_task_in_the_place_of_theirs() -> None:
    shards = {
        "mirror-model(1:2of2)": (Attempt("Failed", "no answer", ""), Attempt()),
        "mirror-model(0:1of2)": (Attempt(),),
    }
    tasks = {"smoke-test": (Attempt(),), **shards, "resolve-model": (Attempt(),)}
    found = run_of(tasks, ["resolve-model", "mirror-model", "smoke-test"]).tasks
    names = [task.name for task in found]
    assert (names[0], sorted(names[1:3]), names[3]) == ("resolve-model", sorted(shards), "smoke-test")
    assert {task.name: len(task.recaps) for task in found}["mirror-model(1:2of2)"] == 2


def run_of(tasks: Mapping[str, tuple[Attempt, ...]], line: list[str] | None = None) -> Run:
    graph = {"templates": [{"dag": {"tasks": [{"name": name} for name in line or ()]}}, {"container": {}}]}
    status = {"phase": "Succeeded", "nodes": nodes("r", tasks), "storedWorkflowTemplateSpec": graph}
    return read_run({"metadata": {"name": "r"}, "status": status})


def test_a_recap_in_markdown_lets_no_text_leave_its_cell() -> None:
    text = markdown(run_of({"preflight": (Attempt("Failed", "a | b\n<script>\\|", ""),)}), 0.0)
    assert "| preflight | Failed | 42s | a \\| b &lt;script>\\\\\\| |" in text.splitlines()


def test_overrides_are_named_with_their_run_by_the_newest_run_that_succeeded(world: ArgoCluster, capsys: Any) -> None:
    def ended(name: str, phase: str, overrides: str) -> None:
        said = {"resolve-model": (Attempt(outputs={"overrides": overrides}),)}
        add(world, name, LABELS, phase=phase, startedAt="2026-01-02T03:00:00Z", nodes=nodes(name, said))

    ended("demo-1", "Succeeded", "image=a:0.5.24~demo-1,strategy=Recreate~demo-0")
    ended("demo-2", "Failed", "image=b:0.5.25~demo-2")
    assert main(["runs", SERVICE]) == 0
    reset = "until -p image=document or a changed document"
    said = capsys.readouterr().out
    assert f"{SERVICE}:  serving.image=a:0.5.24 (run demo-1), {reset}" in said
    assert f"{SERVICE}:  rollout.strategy=Recreate (run demo-0), until -p strategy=document" in said
    assert "b:0.5.25" not in said
    assert main(["runs", "demo-2"]) == 0
    assert f"  serving.image=b:0.5.25 (run demo-2), {reset}" in capsys.readouterr().out


def test_overrides_that_cannot_be_read_are_none() -> None:
    """Of a run of another Slipway; whoever tells of a run tells the rest."""
    said = {"resolve-model": (Attempt(outputs={"overrides": "{}"}),)}
    assert read_run({"metadata": {"name": "a"}, "status": {"nodes": nodes("a", said)}}).overrides == ()


LOCK = f"slipway/Mutex/slipway-default-{SERVICE}"


def message(world: ArgoCluster, name: str, capsys: Any) -> tuple[str, str]:
    """Phase and message of a run in the table."""
    assert runs(SERVICE, Place(), FakeClock()) == 0
    (row,) = [row for row in table(capsys) if row[0] == name]
    cells = [cell.strip() for cell in row if cell.strip()]
    return cells[2], cells[-1]


def test_a_suspended_run_is_called_so_and_says_how_it_goes_on(world: ArgoCluster, capsys: Any) -> None:
    """Argo leaves its phase at Running, and its pods go on to their end."""
    at_work = nodes("a", {"resolve-model": (Attempt(),), "download-model": (Attempt("Running"),)})
    add(world, "a", LABELS, {"suspend": True}, phase="Running", nodes=at_work)
    says = "Suspended, it goes on with: argo resume -n slipway a; 1 task done; download-model Running"
    assert message(world, "a", capsys) == ("Suspended", says)
    assert main(["runs", "a"]) == 0
    assert capsys.readouterr().out.startswith(f"run a {says}\n")
    add(world, "b", LABELS, {"suspend": True}, phase="Succeeded")
    assert message(world, "b", capsys)[0] == "Succeeded"


@pytest.mark.parametrize("client", ["kubernetes", "argo-server"])
def test_who_holds_a_lock_is_named_and_also_if_that_run_is_gone(world: ArgoCluster, client: str, capsys: Any) -> None:
    where = Place(argo_server=world.argo_server if client == "argo-server" else "")
    waiting = {"mutex": {"waiting": [{"mutex": LOCK, "holder": "slipway/a"}]}}
    add(world, "a", LABELS, phase="Running")
    add(world, "b", LABELS, phase="Pending", synchronization=waiting)
    says = f"Pending, queued for mutex slipway-default-{SERVICE} held by run a"
    runs(SERVICE, where)
    assert any(line.endswith(says) for line in capsys.readouterr().out.splitlines())
    world.store.delete(world.kind("Workflow"), "a", NAMESPACE)
    for target in (SERVICE, "b"):
        runs(target, where)
        assert f"{says}, which is gone" in capsys.readouterr().out


def test_a_run_that_got_its_lock_is_not_queued_although_argo_keeps_it_among_those_that_wait(
    world: ArgoCluster, capsys: Any
) -> None:
    """LockAcquired of Argo 3.5.15 adds to `holding` and leaves `waiting` as it is."""
    both = {"waiting": [{"mutex": LOCK, "holder": "slipway/gone"}], "holding": [{"mutex": LOCK, "holder": "a"}]}
    at_work = nodes("a", {"resolve-model": (Attempt("Running"),)})
    add(world, "a", LABELS, phase="Running", nodes=at_work, synchronization={"mutex": both})
    assert message(world, "a", capsys) == ("Running", "0 tasks done; resolve-model Running")


def test_a_queued_run_that_is_to_stop_says_that_it_still_waits(world: ArgoCluster, capsys: Any) -> None:
    waiting = {"mutex": {"waiting": [{"mutex": LOCK, "holder": "slipway/a"}]}}
    add(world, "a", LABELS, phase="Running")
    add(world, "b", LABELS, {"shutdown": "Stop"}, phase="Pending", synchronization=waiting)
    assert message(world, "b", capsys)[1].startswith("Pending, Stop was asked for, queued for mutex")


CUT_OFF = {"create-volume": (Attempt(),), "roll-out-service": (Attempt("Failed", "workflow shutdown", ""),)}
REST = "its exit handler did not run. Next: submit a new run, which cleans up, or run slipway step roll-back"


@pytest.mark.parametrize(
    ("spec", "phase", "tasks", "why"),
    [
        ({"shutdown": "Terminate"}, "Failed", CUT_OFF, "terminated"),
        ({}, "Error", CUT_OFF, "Error"),
        ({"shutdown": "Stop"}, "Failed", {**CUT_OFF, "roll-back": (Attempt(),)}, ""),
        ({"shutdown": "Terminate"}, "Failed", {"resolve-model": (Attempt("Failed", "x"),)}, ""),
    ],
)
def test_a_run_whose_exit_handler_did_not_run_says_who_cleans_up(
    world: ArgoCluster, spec: dict[str, str], phase: str, tasks: Any, why: str, capsys: Any
) -> None:
    add(world, "a", LABELS, spec, phase=phase, nodes=nodes("a", tasks, root="Failed"))
    found = message(world, "a", capsys)[1]
    assert found.startswith(f"{why}: {REST}") if why else REST not in found


def test_a_run_that_was_deleted_while_it_changed_the_service_is_named(world: ArgoCluster, capsys: Any) -> None:
    template = world.apply_template()
    service = parse(document_of(template), "the document")
    add(world, "a", LABELS, phase="Succeeded")
    add(world, "b", LABELS, phase="Running")
    cluster = connect(world.kubeconfig)
    lease = WriterLease(service, cluster, Writer("b", 60, stays=True), FakeClock())
    assert cluster.swap(lease.acquired(lease.observe()))
    runs(SERVICE, Place())
    assert REST not in capsys.readouterr().out
    world.store.delete(world.kind("Workflow"), "b", NAMESPACE)
    runs(SERVICE, Place())
    assert f"run b was deleted while it changed {SERVICE}: {REST}\n" in capsys.readouterr().out
    runs(SERVICE, Place(argo_server=world.argo_server))  # which knows no Lease
    assert REST not in capsys.readouterr().out
