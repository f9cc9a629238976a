"""`python -m workflows submit | status`: start a run on a cluster, follow it, and list what ran before."""

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from steps.document.overrides import DOCUMENT, OVERRIDES
from steps.document.schema import DEFAULT_WORKFLOW_NAMESPACE, ModelService, load, parse
from steps.errors import Blocked, DeadlineExceeded, DocumentError, Exit, Interrupted
from steps.kinds import Manifest
from steps.reconcile.clock import Clock, SystemClock
from steps.reconcile.converge import converge
from steps.reconcile.report import StreamReport, stdout_report
from steps.report.argo_nodes import read_run
from steps.report.run import NO_EXIT_HANDLER, Run
from workflows.runs.argo_server import ArgoServer
from workflows.runs.clients import ArgoServerDoor, Door, EventDoor, KubernetesDoor
from workflows.runs.follow import FollowRun, with_gone_holders
from workflows.runs.submission import Submission, Why, difference, document_of, prepare
from workflows.runs.tables import in_force, markdown, recap, runs_table

ENVIRONMENT = os.environ  # noqa: TID251  # where the cluster is and who asks is said there, as for kubectl and argo
TOKEN = "ARGO_TOKEN"  # noqa: S105  # a name, not a secret


@dataclass(frozen=True)
class Place:
    """Where runs are, and by which door."""

    namespace: str = ""  # empty: that of the document, else the default of documents
    argo_server: str | None = None  # address; None: as the environment says; empty: the Kubernetes API
    event: bool = False  # start by the event binding


@dataclass(frozen=True)
class Start:
    """What `submit` was told."""

    target: str  # a document, or the name of a WorkflowTemplate
    overrides: tuple[str, ...] = ()
    run_id: str = ""
    trigger: str = "manual"
    reason: str = ""
    wait: bool = True
    minutes: float | None = None  # how long to follow; None: as long as the template lets a run take
    recap: Path | None = None  # Markdown

    @property
    def why(self) -> Why:
        return Why(self.run_id or secrets.token_hex(4), self.trigger, self.reason)


def submit(start: Start, place: Place, clock: Clock | None = None) -> int:
    """Start a run and follow it. 0 if it succeeded; raises DocumentError and StepError, whose codes say the rest."""
    clock, place = clock or SystemClock(), _resolved(place)
    report = stdout_report(clock, diff=False, progress_file=None)
    document = load(Path(start.target)) if _is_document(start.target) else None
    name = document.name if document else start.target
    namespace = _namespace(place, document)
    door = _door(place)
    template = _template(door, namespace, name)
    if document:
        _refuse_another_document(document, template)
    submission = prepare(template, start.overrides, start.why)
    new = door.start(submission)
    report.note(_started(submission, new=new))
    if not start.wait:
        report.note(f"Follow it: {_follow_command(submission.name, place, namespace)}")
        return Exit.DONE
    minutes = start.minutes if start.minutes is not None else _longest(template)
    return _follow(door, submission.name, namespace, Watch(place, minutes, start.recap), report, clock)


def status(target: str, place: Place, *, follow: bool = False, last: int = 10, clock: Clock | None = None) -> int:
    """Print one run with its tasks, or the last runs of a service, or of all services."""
    clock, place = clock or SystemClock(), _resolved(place)
    report = stdout_report(clock, diff=False, progress_file=None)
    document = load(Path(target)) if _is_document(target) else None
    namespace = _namespace(place, document)
    door = _door(place)
    found = door.run(namespace, target) if target and not document else None
    if found and follow:
        return _follow(door, target, namespace, Watch(place, _ONE_DAY), report, clock)
    if found:
        run = with_gone_holders(read_run(found), partial(_exists, door, namespace))
        _print(report, recap(run, clock.time()))
        return Exit.DONE
    service = document.name if document else target
    if follow:
        raise Blocked(f"there is no run {service} in namespace {namespace}", "name a run; status lists them")
    return _list(door, namespace, service, report, clock, last)


@dataclass(frozen=True)
class Watch:
    """How to follow a run."""

    place: Place
    minutes: float
    recap: Path | None = None


_ONE_DAY = 24 * 60.0  # minutes


def _follow(door: Door, name: str, namespace: str, watch: Watch, report: StreamReport, clock: Clock) -> int:
    again = _follow_command(name, watch.place, namespace)
    following = FollowRun(
        name, partial(door.run, namespace, name), watch.minutes * 60, clock, partial(_exists, door, namespace)
    )
    try:
        with _interruptible():
            converge(following, report, clock)
    except DeadlineExceeded as error:
        raise DeadlineExceeded(
            f"gave up following after {watch.minutes:g} minutes; the run goes on. {error.reason}", f"follow it: {again}"
        ) from error
    except Interrupted:
        report.note(
            f"\nStopped following; run {name} goes on. Follow it: {again}\nEnd it: argo stop -n {namespace} {name}"
        )
        return Exit.NO_ANSWER
    finally:
        _tell(following.last, watch.recap, report, clock)
    return Exit.DONE


def _tell(run: Run | None, path: Path | None, report: StreamReport, clock: Clock) -> None:
    if run is None:
        return
    _print(report, ["", *recap(run, clock.time())])
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(markdown(run, clock.time()), encoding="utf-8")


def _list(door: Door, namespace: str, service: str, report: StreamReport, clock: Clock, last: int) -> int:
    found = list(map(read_run, door.runs(namespace)))
    exists = {run.name for run in found}.__contains__
    runs = [with_gone_holders(run, exists) for run in found if service in ("", run.service)]
    if not runs:
        of = f" of {service}" if service else ""
        raise Blocked(
            f"there is no run{of} in namespace {namespace}, and none is called so",
            "runs are deleted some days after their end; check --namespace, or start one: python -m workflows submit",
        )
    runs.sort(key=lambda run: (run.created.timestamp() if run.created else 0.0, run.name), reverse=True)
    _print(report, [*runs_table(runs[:last], clock.time()), *in_force(runs)])
    _print(report, _deleted(door, namespace, service))
    return Exit.DONE


def _deleted(door: Door, namespace: str, service: str) -> list[str]:
    """A run that was deleted while it changed the service is in no list of runs, only in the Lease."""
    template = door.template(namespace, service) if service else None
    if template is None:
        return []
    run = door.gone_writer(parse(document_of(template), "the document of the template"))
    return [f"run {run} was deleted while it changed {service}: {NO_EXIT_HANDLER}"] if run else []


def _exists(door: Door, namespace: str, run: str) -> bool:
    return door.run(namespace, run) is not None


def _is_document(target: str) -> bool:
    return target.endswith((".yaml", ".yml")) or "/" in target


def _namespace(place: Place, document: ModelService | None) -> str:
    return place.namespace or (document.workflow.namespace if document else DEFAULT_WORKFLOW_NAMESPACE)


def _door(place: Place) -> Door:
    if not place.argo_server:
        if place.event:
            raise Blocked("events are received by Argo Server, and none is named", "add --argo-server ADDRESS")
        return KubernetesDoor.of(_kubeconfig())
    server = ArgoServer(
        place.argo_server, ENVIRONMENT.get(TOKEN, ""), verify=ENVIRONMENT.get("ARGO_INSECURE_SKIP_VERIFY") != "true"
    )
    return EventDoor(server) if place.event else ArgoServerDoor(server)


def _resolved(place: Place) -> Place:
    """With the address of Argo Server as a URL, from what Argo's own command line reads.

    https://argo-workflows.readthedocs.io/en/latest/cli/argo/, and
    https://github.com/argoproj/argo-workflows/blob/v3.5.15/cmd/argo/commands/client/conn.go
    """
    asked = ENVIRONMENT.get("ARGO_SERVER", "") if place.argo_server is None else place.argo_server
    if not asked or "://" in asked:
        return replace(place, argo_server=asked)
    scheme = "http" if ENVIRONMENT.get("ARGO_SECURE") == "false" else "https"
    return replace(place, argo_server=f"{scheme}://{asked}{ENVIRONMENT.get('ARGO_BASE_HREF', '')}")


def _kubeconfig() -> Path | None:
    """None means: this is a pod, use its service account."""
    if "KUBECONFIG" in ENVIRONMENT:
        return Path(ENVIRONMENT["KUBECONFIG"])
    return None if "KUBERNETES_SERVICE_HOST" in ENVIRONMENT else Path.home() / ".kube" / "config"


def _template(door: Door, namespace: str, name: str) -> Manifest:
    found = door.template(namespace, name)
    if found is None:
        raise Blocked(
            f"there is no WorkflowTemplate {name} in namespace {namespace}",
            "check --namespace (kubectl get workflowtemplates -A), or render and apply it: python -m workflows render",
        )
    return found


def _refuse_another_document(document: ModelService, template: Manifest) -> None:
    """What runs is the document of the template, so a file that says something else must not seem to run."""
    there = parse(document_of(template), "the document of the template")
    differing = difference(document, there)
    if differing:
        raise DocumentError(
            f"the WorkflowTemplate {document.name} on the cluster holds another document than this file; they differ "
            f"in {', '.join(differing)}. Next: render and apply the file (python -m workflows render, kubectl apply), "
            f"or name the template instead of the file to run what is there: submit {document.name}"
        )


def _longest(template: Manifest) -> float:
    """Minutes that the template lets a run take, once more for the queue in front of it."""
    seconds = (template.get("spec") or {}).get("activeDeadlineSeconds")
    return 2 * float(seconds) / 60 if seconds else _ONE_DAY


def _started(submission: Submission, *, new: bool) -> str:
    overrides = ", ".join(f"{name}={value}" for name, value in submission.overrides.items() if value)
    beside = f" with {overrides}" if overrides else ""
    if not new:
        return f"run {submission.name} is there already; nothing was started"
    sticky = [one.parameter for one in OVERRIDES if one.sticky]
    stays = any(submission.overrides.get(name, DOCUMENT) not in ("", DOCUMENT) for name in sticky)
    later = "\nLater runs inherit it once it is promoted, until the document changes or NAME=document resets it"
    started = f"run {submission.name} started in namespace {submission.namespace} from {submission.template}"
    return f"{started}{beside}{later if stays else ''}"


def _follow_command(name: str, place: Place, namespace: str) -> str:
    server = f" --argo-server {place.argo_server}" if place.argo_server else ""
    return f"python -m workflows status {name} --namespace {namespace}{server} --follow"


def _print(report: StreamReport, lines: list[str]) -> None:
    for line in lines:
        report.note(line)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C, and the SIGTERM of a CI job that is cancelled, end the following and not the run."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(f"stopped by {signal.Signals(number).name}")
