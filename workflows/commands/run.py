"""`slipway submit` and `slipway runs`: start a run on a cluster, follow it, list runs and show one."""

import json
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from steps.document.overrides import DOCUMENT, OVERRIDES
from steps.document.schema import WORKFLOW_NAMESPACE, ModelService, load, parse
from steps.errors import Blocked, DeadlineExceeded, DocumentError, Exit, Interrupted
from steps.kinds import Manifest
from steps.reconcile.clock import Clock, SystemClock
from steps.reconcile.converge import converge
from steps.reconcile.plain_text import printable
from steps.reconcile.report import StreamReport, stdout_report
from steps.report.argo_nodes import read_run
from steps.report.run import NO_EXIT_HANDLER, Run
from workflows.runs.argo_server import ArgoServer
from workflows.runs.clients import ArgoServerClient, Client, EventClient, KubernetesClient
from workflows.runs.follow import FollowRun, with_gone_holders
from workflows.runs.submission import Submission, Why, difference, document_of, prepare
from workflows.runs.tables import as_data, in_force, markdown, recap, runs_table

ENVIRONMENT = os.environ  # noqa: TID251  # addresses and tokens, as for kubectl and argo
TOKEN = "ARGO_TOKEN"  # noqa: S105  # a name, not a secret


@dataclass(frozen=True)
class Place:
    """Where runs are, and by which client."""

    namespace: str = ""  # empty: that of the document, else the default of documents
    argo_server: str | None = None  # address; None: of the environment; empty: the Kubernetes API
    event: bool = False  # start by the event binding


@dataclass(frozen=True)
class Start:
    """The arguments of `submit`."""

    target: str  # name of a WorkflowTemplate, or a document
    parameters: tuple[str, ...] = ()  # name=value
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
    """Start a run and follow it. 0 if it succeeded; raises DocumentError and StepError with the other exit codes."""
    clock, place = clock or SystemClock(), _resolved(place)
    report = stdout_report(clock, diff=False, progress_file=None)
    document = load(Path(start.target)) if _is_document(start.target) else None
    name = document.name if document else start.target
    namespace = _namespace(place, document)
    client = _client(place)
    template = _template(client, namespace, name)
    if document:
        _refuse_another_document(document, template)
    submission = prepare(template, start.parameters, start.why)
    new = client.start(submission)
    report.note(_started(submission, new=new))
    if not start.wait:
        report.note(f"Next: {_runs_command(submission.name, place, namespace)} --follow")
        return Exit.DONE
    minutes = start.minutes if start.minutes is not None else _longest(template)
    return _follow(client, submission.name, namespace, Watch(place, minutes, start.recap), report, clock)


@dataclass(frozen=True)
class Query:
    """The arguments of `runs`."""

    target: str = ""  # name of a run or of a service, or a document; empty: all services
    follow: bool = False
    last: int = 10  # runs in the list
    as_json: bool = False


def runs(query: Query, place: Place, clock: Clock | None = None) -> int:
    """Print one run with its tasks, or the last runs of a service, or of all services."""
    clock, place = clock or SystemClock(), _resolved(place)
    report = stdout_report(clock, diff=False, progress_file=None)
    document = load(Path(query.target)) if _is_document(query.target) else None
    namespace = _namespace(place, document)
    client = _client(place)
    found = client.run(namespace, query.target) if query.target and not document else None
    if found and query.follow:
        return _follow(client, query.target, namespace, Watch(place, _ONE_DAY), report, clock)
    if found:
        run = with_gone_holders(read_run(found), partial(_exists, client, namespace))
        return _show(run, place, query, report, clock)
    service = document.name if document else query.target
    if query.follow:
        raise Blocked(f"there is no run {service} in namespace {namespace}", "name a run; slipway runs lists them")
    return _list(client, namespace, replace(query, target=service), place, report, clock)


def _show(run: Run, place: Place, query: Query, report: StreamReport, clock: Clock) -> int:
    if query.as_json:
        report.note(_json(as_data(run)))
        return Exit.DONE
    _print(report, recap(run, clock.time()))
    again = run.service if run.ended else f"{run.name} --follow"
    report.note(f"Next: {_runs_command(again, place, run.namespace)}")
    return Exit.DONE


def logs(run: str, task: str, place: Place) -> int:
    """Print the log of each pod of a run, or of the pods of one task.

    Raises Blocked for an absent run, and for a run without such a pod.
    """
    place = _resolved(place)
    report = stdout_report(SystemClock(), diff=False, progress_file=None)
    namespace, client = _namespace(place, None), _client(place)
    if client.run(namespace, run) is None:
        raise Blocked(f"there is no run {run} in namespace {namespace}", "name a run; slipway runs lists them")
    found = client.logs(namespace, run)
    shown = [log for log in found if not task or log.is_of(task)]
    if not shown:
        pods = ", ".join(log.node for log in found) or "none"
        raise Blocked(
            f"run {run} has no pod{f' of task {task}' if task else ''} in namespace {namespace}; its pods: {pods}. "
            "Argo deletes the pods of a run that succeeded",
            f"see the tasks: slipway runs {run}, or read the log archive of the cluster",
        )
    for log in shown:
        report.note(f"== {log.node}  (pod {log.pod})")
        _print(report, printable(log.text).splitlines() or ["no log: the container has not started"])
    report.note(f"Next: {_runs_command(run, place, namespace)}")
    return Exit.DONE


@dataclass(frozen=True)
class Watch:
    """How to follow a run."""

    place: Place
    minutes: float
    recap: Path | None = None


@dataclass
class _Latest:
    """The last observed state of a run, for its recap however following ends."""

    run: Run | None = None

    def keep(self, run: Run) -> None:
        self.run = run


_ONE_DAY = 24 * 60.0  # minutes


def _follow(client: Client, name: str, namespace: str, watch: Watch, report: StreamReport, clock: Clock) -> int:
    again = f"{_runs_command(name, watch.place, namespace)} --follow"
    latest = _Latest()
    following = FollowRun(
        name,
        partial(client.run, namespace, name),
        watch.minutes * 60,
        clock,
        partial(_exists, client, namespace),
        latest.keep,
    )
    try:
        try:
            with _interruptible():
                converge(following, report, clock)
        finally:
            _print_recap(latest.run, watch.recap, report, clock)
    except DeadlineExceeded as error:
        raise DeadlineExceeded(
            f"gave up following after {watch.minutes:g} minutes; the run goes on. {error.reason}", f"follow it: {again}"
        ) from error
    except Interrupted:
        report.note(f"\nStopped following; run {name} goes on. End it: argo stop -n {namespace} {name}\nNext: {again}")
        return Exit.NO_ANSWER
    report.note(f"Next: {_runs_command(latest.run.service if latest.run else name, watch.place, namespace)}")
    return Exit.DONE


def _print_recap(run: Run | None, path: Path | None, report: StreamReport, clock: Clock) -> None:
    if run is None:
        return
    _print(report, ["", *recap(run, clock.time())])
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(markdown(run, clock.time()), encoding="utf-8")


def _list(client: Client, namespace: str, query: Query, place: Place, report: StreamReport, clock: Clock) -> int:
    service = query.target
    found = list(map(read_run, client.runs(namespace)))
    exists = {run.name for run in found}.__contains__
    listed = [with_gone_holders(run, exists) for run in found if service in ("", run.service)]
    if not listed:
        of = f" of {service}" if service else ""
        raise Blocked(
            f"there is no run{of} in namespace {namespace}, and no run of that name",
            f"check --namespace (Argo deletes old runs), or start a run: slipway submit {service or 'NAME'}",
        )
    listed.sort(key=lambda run: (run.created.timestamp() if run.created else 0.0, run.name), reverse=True)
    if query.as_json:
        report.note(_json(list(map(as_data, listed[: query.last]))))
        return Exit.DONE
    _print(report, [*runs_table(listed[: query.last], clock.time()), *in_force(listed)])
    _print(report, _deleted(client, namespace, service))
    report.note(f"Next: {_runs_command(listed[0].name, place, namespace)}")
    return Exit.DONE


def _json(content: Any) -> str:
    return json.dumps(content, indent=2)


def _deleted(client: Client, namespace: str, service: str) -> list[str]:
    """A run that was deleted while it changed the service is in the Lease alone, not in the list of runs."""
    template = client.template(namespace, service) if service else None
    if template is None:
        return []
    run = client.gone_writer(parse(document_of(template), "the document of the template"))
    return [f"run {run} was deleted while it changed {service}: {NO_EXIT_HANDLER}"] if run else []


def _exists(client: Client, namespace: str, run: str) -> bool:
    return client.run(namespace, run) is not None


def _is_document(target: str) -> bool:
    return target.endswith((".yaml", ".yml")) or "/" in target


def _namespace(place: Place, document: ModelService | None) -> str:
    return place.namespace or (document.workflow.namespace if document else WORKFLOW_NAMESPACE)


def _client(place: Place) -> Client:
    if not place.argo_server:
        if place.event:
            raise Blocked("events need an Argo Server, and no address is given", "add --argo-server ADDRESS")
        return KubernetesClient.of(ENVIRONMENT)
    server = ArgoServer(
        place.argo_server, ENVIRONMENT.get(TOKEN, ""), verify=ENVIRONMENT.get("ARGO_INSECURE_SKIP_VERIFY") != "true"
    )
    return EventClient(server) if place.event else ArgoServerClient(server)


def _resolved(place: Place) -> Place:
    """With the address of Argo Server as a URL, from the variables of Argo's own command line.

    https://argo-workflows.readthedocs.io/en/latest/cli/argo/, and
    https://github.com/argoproj/argo-workflows/blob/v3.5.15/cmd/argo/commands/client/conn.go
    """
    asked = ENVIRONMENT.get("ARGO_SERVER", "") if place.argo_server is None else place.argo_server
    if not asked or "://" in asked:
        return replace(place, argo_server=asked)
    scheme = "http" if ENVIRONMENT.get("ARGO_SECURE") == "false" else "https"
    return replace(place, argo_server=f"{scheme}://{asked}{ENVIRONMENT.get('ARGO_BASE_HREF', '')}")


def _template(client: Client, namespace: str, name: str) -> Manifest:
    found = client.template(namespace, name)
    if found is None:
        raise Blocked(
            f"there is no WorkflowTemplate {name} in namespace {namespace}",
            "check --namespace (kubectl get workflowtemplates -A), or render and apply it: slipway render",
        )
    return found


def _refuse_another_document(document: ModelService, template: Manifest) -> None:
    """A run takes the document of the template, so a file with another content must not seem to run."""
    there = parse(document_of(template), "the document of the template")
    differing = difference(document, there)
    if differing:
        raise DocumentError(
            f"the WorkflowTemplate {document.name} on the cluster holds another document than this file; they differ "
            f"in {', '.join(differing)}. Next: render and apply the file (slipway render, kubectl apply), "
            f"or run the document of the cluster: slipway submit {document.name}"
        )


def _longest(template: Manifest) -> float:
    """Twice the deadline of a run, in minutes: the run may wait in a queue before it starts."""
    seconds = (template.get("spec") or {}).get("activeDeadlineSeconds")
    return 2 * float(seconds) / 60 if seconds else _ONE_DAY


def _started(submission: Submission, *, new: bool) -> str:
    overrides = ", ".join(f"{name}={value}" for name, value in submission.overrides.items() if value)
    beside = f" with {overrides}" if overrides else ""
    if not new:
        return f"run {submission.name} exists already; no run was started"
    sticky = [one.parameter for one in OVERRIDES if one.sticky]
    stays = any(submission.overrides.get(name, DOCUMENT) not in ("", DOCUMENT) for name in sticky)
    later = "\nLater runs inherit it once it is promoted, until the document changes or NAME=document resets it"
    started = f"run {submission.name} started in namespace {submission.namespace} from {submission.template}"
    return f"{started}{beside}{later if stays else ''}"


def _runs_command(name: str, place: Place, namespace: str) -> str:
    server = f" --argo-server {place.argo_server}" if place.argo_server else ""
    return f"slipway runs {name} -n {namespace}{server}"


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
