"""The pipeline on this machine: each task is a process of its own, with the command that its pod would run.

Only the surroundings are embedded: hub, bucket, Kubernetes API and PD engine on loopback. Their content stays in the
state folder, so the next run goes on where this one stopped.
"""

import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess  # noqa: TID251  # a local run is processes; the steps themselves never shell out
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from steps import kinds
from steps.check_release import CURRENT
from steps.document.schema import ModelService, load
from steps.errors import Exit
from steps.model import ModelDigest
from steps.reconcile.outputs import RECAP, RECAP_FILE, file_name
from steps.release import Release
from steps.report.run import EXIT_TASKS, NOT_FAILED, REPORT_RUN, ROLL_BACK, SUCCEEDED
from workflows import packages
from workflows.pipeline import (
    CHECK,
    EXIT,
    RECORD_COUNTER,
    SHARD,
    STATE,
    Output,
    Places,
    Task,
    arguments,
    command,
    tasks,
)
from workflows.simulator.launch import Addresses, embedded_services, only_run

RUN_NAME = "run-name"  # file in the state folder
COUNTER = "record-counter"  # file in the state folder: counter of the release record when that run began
RUN_FILE = "run.json"  # file in the state folder, in place of the Workflow object
_STOPPING = {signal.SIGINT, signal.SIGTERM}
ATTEMPTS = 3  # as often as Argo tries a step that got no answer


class _Stopped(BaseException):
    """SIGTERM or Ctrl-C."""


@dataclass(frozen=True)
class Options:
    document: Path | None = None  # None: the demo document
    sets: tuple[str, ...] = ()  # path=value
    state: Path = Path(".slipway")
    port: int = 0  # 0: any free one
    keep: bool = False  # serve until Ctrl-C

    @property
    def path(self) -> Path:
        return (self.document or demo_document()).absolute()


@dataclass(frozen=True)
class Recap:
    """How one task ended."""

    task: str
    code: int
    ok: int
    changed: int
    failed: int
    reason: str
    seconds: float
    skipped: bool = False

    def __str__(self) -> str:
        if self.skipped:
            return f"RECAP {self.task}: skipped"
        return f"RECAP {self.task}: ok={self.ok} changed={self.changed} failed={self.failed}"


@dataclass(frozen=True)
class _Run:
    options: Options
    service: ModelService
    state: Path
    name: str
    environment: Mapping[str, str]
    console: Console

    def outputs(self, task: str) -> Path:
        return self.state.absolute() / "outputs" / task

    def output(self, task: str, field: str) -> str:
        """An output of a task of this run."""
        path = self.outputs(task) / file_name(field)
        return path.read_text(encoding="utf-8") if path.exists() else "-"


def demo_document() -> Path:
    """The document of the demo: inside of an installation, or in the manifests of a checkout."""
    place = Path("manifests", "services", "demo.yaml")
    installed = Path(__file__).parent / place
    return installed if installed.exists() else packages.FOLDER / place


def run(options: Options) -> int:
    """Run every task of the pipeline in order. Returns the exit code of the first task that failed, else 0.

    Raises DocumentError for a wrong document and RehearsalError if the embedded services cannot start.
    """
    service = load(options.path, options.sets)
    state = options.state / service.name
    console = Console(highlight=False, soft_wrap=True)
    console.print(_preface(state))
    started = time.monotonic()
    try:
        signal.signal(signal.SIGTERM, _stop)
        signal.signal(signal.SIGINT, _stop)
        with only_run(state), embedded_services(packages.FOLDER, state, _services_arguments(options)) as addresses:
            this = _Run(options, service, state, _run_name(state), _environment(addresses, state), console)
            recaps = _run_tasks(this)
            _summarize(this, recaps, time.monotonic() - started)
            failed = _first_failure(recaps)
            code = failed.code if failed else 0
            if options.keep and not code:
                _keep_serving(this, addresses)
    except _Stopped:
        console.print(f"\nStopped. Nothing is lost: the next run goes on from here. State: {state}")
        console.print(f"Next: {_again(options)}", markup=False)
        return Exit.NO_ANSWER
    return code


def _run_tasks(run: _Run) -> list[Recap]:
    recaps: list[Recap] = []
    if run.outputs("").exists():
        shutil.rmtree(run.outputs(""))  # outputs of an earlier run prove nothing about this one
    for task in tasks(run.service, in_pods=False):
        if task.spec.skippable and run.output(STATE.task, STATE.field) == CURRENT:
            recaps.append(_skip(run, task, f"{CHECK.name} found nothing to do"))
            continue
        values = {option: _value(run, source) for option, source in task.options.items()}
        recaps += _run_task(run, task, values | {"run-name": run.name})
        if any(recap.code for recap in recaps):
            break
    return [*recaps, *_exit_handler(run, recaps)]


def _exit_handler(run: _Run, pipeline: list[Recap]) -> list[Recap]:
    """A task of the exit handler that fails is shown and does not stop the next one."""
    failed = any(recap.code for recap in pipeline)
    run_facts = {"run-name": run.name, "run-status": "Failed" if failed else SUCCEEDED}
    ended: list[Recap] = []
    for task in EXIT:
        if task.if_failed and not failed:
            ended.append(_skip(run, task, NOT_FAILED))
            continue
        _write_run_file(run, [*pipeline, *ended], run_facts["run-status"])
        ended += _run_task(run, task, run_facts)
    if not any(recap.code for recap in ended if recap.task == ROLL_BACK):
        (run.state / COUNTER).unlink(missing_ok=True)
        (run.state / RUN_NAME).unlink(missing_ok=True)
    return ended


def _first_failure(recaps: list[Recap]) -> Recap | None:
    """The task that failed the run. A failed report of the run does not."""
    return next((recap for recap in recaps if recap.code and recap.task != REPORT_RUN), None)


def _skip(run: _Run, task: Task, why: str) -> Recap:
    reason = f"skipped: {why}"
    run.console.print(Text.assemble((task.name, "bold"), f"  {reason}"))
    return Recap(task.name, Exit.DONE, 0, 0, 0, reason, 0.0, skipped=True)


def _run_name(state: Path) -> str:
    """A run that was killed goes on under its name, since it may still hold the writer Lease."""
    path = state / RUN_NAME
    if not path.exists():
        path.write_text(f"local-{time.strftime('%Y%m%d-%H%M%S')}", encoding="utf-8")
    return path.read_text(encoding="utf-8") or "local"


def _run_task(run: _Run, task: Task, values: Mapping[str, str]) -> list[Recap]:
    """Run all instances of the task at the same time, and again those that ended without an answer."""
    run.console.print(Text.assemble(("\n" + task.name, "bold"), f"  {task.description}"))
    instances = {_instance(task, shard): {**values, SHARD: shard} for shard in task.shards or ("",)}
    recaps = _run_once(run, task, instances)
    for attempt in range(2, ATTEMPTS + 1):
        unanswered = {name: instances[name] for name, recap in recaps.items() if recap.code == Exit.NO_ANSWER}
        if not unanswered:
            break
        run.console.print(f"no answer to {', '.join(unanswered)}; attempt {attempt} of {ATTEMPTS}")
        recaps |= _run_once(run, task, unanswered)
    return list(recaps.values())


def _instance(task: Task, shard: str) -> str:
    return f"{task.name}-{shard}" if task.fans_out else task.name


def _run_once(run: _Run, task: Task, instances: Mapping[str, Mapping[str, str]]) -> dict[str, Recap]:
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        with _signals_wait():
            for name, values in instances.items():
                processes[name] = _started(run, task, name, values)
        codes = {name: process.wait() for name, process in processes.items()}
    except _Stopped:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()
        raise
    return {name: _recap(name, code, run.outputs(name) / RECAP_FILE) for name, code in codes.items()}


def _started(run: _Run, task: Task, name: str, values: Mapping[str, str]) -> subprocess.Popen[bytes]:
    outputs = run.outputs(name)
    (outputs / RECAP_FILE).unlink(missing_ok=True)
    places = Places(str(run.options.path), str(outputs), str(run.state.absolute() / "scratch"))
    return subprocess.Popen(
        packages.python(*command(task)[1:], *arguments(task, places, values, sets=run.options.sets)),
        env=run.environment,
        preexec_fn=partial(_live_as_long_as, os.getpid()),  # noqa: PLW1509  # this process has no threads
        close_fds=False,  # keeps the lock of the state folder
    )


def _recap(task: str, code: int, recap_file: Path) -> Recap:
    if not recap_file.exists():
        reason = f"ended by signal {-code}" if code < 0 else f"ended with code {code} without a reason"
        return Recap(task, code or Exit.BUG, 0, 0, 1, reason, 0.0)
    found = json.loads(recap_file.read_text(encoding="utf-8"))
    return Recap(task, code, found["ok"], found["changed"], found["failed"], found["reason"], found["seconds"])


def _write_run_file(run: _Run, recaps: list[Recap], status: str) -> None:
    """The tasks as the Workflow object would hold them, for the exit handler."""
    nodes = {recap.task: _node(run, recap) for recap in recaps}
    workflow = {"metadata": {"name": run.name}, "status": {"phase": status, "nodes": nodes}}
    (run.state / RUN_FILE).write_text(json.dumps(workflow), encoding="utf-8")


def _node(run: _Run, recap: Recap) -> dict[str, Any]:
    at_exit = f".onExit[0].{recap.task}" if recap.task in EXIT_TASKS else f".{recap.task}"
    found = {"name": run.name + at_exit, "displayName": recap.task, "message": recap.reason}
    if recap.skipped:
        # As Argo writes a skipped task, in contrast to one that was never reached.
        return {**found, "type": "Skipped", "phase": "Skipped", "message": "when 'skipped' evaluated false"}
    # Other outputs of a task that failed may be those of an earlier run.
    written = run.outputs(recap.task).glob(RECAP if recap.code else "*")
    parameters = [{"name": path.name, "value": path.read_text(encoding="utf-8")} for path in written]
    phase = "Failed" if recap.code else SUCCEEDED
    return {**found, "type": "Pod", "phase": phase, "outputs": {"parameters": parameters}}


def _value(run: _Run, source: Output) -> str:
    """A run that goes on keeps the counter of the record that it read when it began."""
    if source != RECORD_COUNTER:
        return run.output(source.task, source.field)
    path = run.state / COUNTER
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    if not kept:
        kept = run.output(source.task, source.field)
        path.write_text(kept, encoding="utf-8")
    return kept


def _services_arguments(options: Options) -> list[str]:
    sets = [f"--set={override}" for override in options.sets]
    return [f"--document={options.path}", f"--port={options.port}", *sets]


def _environment(addresses: Addresses, state: Path) -> dict[str, str]:
    """The environment of a pod, with the addresses of the embedded services."""
    ours = ("OSS_", "SLIPWAY_", "KUBE", "ALIBABA_CLOUD_", "ARGO_")
    inherited = {key: value for key, value in packages.environment().items() if not key.startswith(ours)}
    log = state.absolute() / "termination-log"
    log.touch()
    return {
        **inherited,
        kinds.KUBECONFIG: addresses.kubeconfig,
        kinds.HUB_ENDPOINT: addresses.hub,
        kinds.STORE_ENDPOINT: addresses.bucket,
        kinds.REGISTRY: "none",
        kinds.TERMINATION_LOG: str(log),
        kinds.RUN_FILE: str(state.absolute() / RUN_FILE),
        kinds.ACCESS_KEY_ID: addresses.access_key_id,
        kinds.ACCESS_KEY_SECRET: addresses.access_key_secret,
    }


def _summarize(run: _Run, recaps: list[Recap], seconds: float) -> None:
    failed = _first_failure(recaps)
    unchanged = "" if failed or any(recap.changed for recap in recaps) else ", nothing changed"
    ended = f"{'failed' if failed else 'done'} in {seconds:.1f} s{unchanged}"
    run.console.print(Text(f"\n{run.service.name}: {ended}", style="bold"))
    for recap in recaps:
        style = "red" if recap.code else "yellow" if recap.changed else "green"
        run.console.print(Text.assemble((f"{recap!s:<58}", style), f" {recap.seconds:5.1f} s"))
    if failed:
        run.console.print(Text.assemble((f"\n{failed.task} ended with {failed.code}: ", "bold red"), failed.reason))
        run.console.print(f"\nNext: {_again(run.options)}", markup=False)
        return
    run.console.print(Text(_places_of_results(run)))
    if not run.options.keep:
        run.console.print(f"\nNext: {_again(run.options)} --keep   # serve until Ctrl-C", markup=False)


def _places_of_results(run: _Run) -> str:
    service = run.service
    release = Release(service, ModelDigest(run.output("resolve-model", "model_digest")))
    current = run.output(STATE.task, STATE.field) == CURRENT
    proof, traffic = (STATE.task, STATE.task) if current else ("smoke-test", "promote-release")
    rows = {
        **({"unchanged": run.output(STATE.task, "reason")} if current else {}),
        "prompt": service.proof.prompt,
        "answer": run.output(proof, "answer"),
        "endpoint": run.output(traffic, "endpoint") + " (inside the embedded cluster)",
        "model": f"{service.model.id}@{service.model.revision} is {release.model_digest}",
        "files": f"oss://{service.store.bucket}/{release.prefix}",
        "volume": f"PV {release.volume_name}, PVC {service.namespace}/{release.volume_name}",
        "release": f"RoleBasedGroup {release.group}",
        "state": f"{run.state} holds everything; delete the folder to start afresh",
        "simulated": "hub, bucket, Kubernetes API, GPUs, eRDMA and the engine are embedded, and the answer is not a "
        "language model's; steps, adapters, bytes and checks are the real ones",
    }
    return "\n" + "\n".join(f"{name:<10} {value}" for name, value in rows.items())


def _keep_serving(run: _Run, addresses: Addresses) -> None:
    body = json.dumps({"model": run.service.served_model_name, "messages": [{"role": "user", "content": "Hello"}]})
    ours = (
        kinds.KUBECONFIG,
        kinds.HUB_ENDPOINT,
        kinds.STORE_ENDPOINT,
        kinds.REGISTRY,
        kinds.ACCESS_KEY_ID,
        kinds.ACCESS_KEY_SECRET,
    )
    exports = " ".join(f"{name}={run.environment[name]}" for name in ours)
    run.console.print(
        f"\nServing until Ctrl-C. A request:\n  curl {addresses.endpoint}/v1/chat/completions "
        f"-H 'Content-Type: application/json' -d '{body}'\n"
        f"Run one step by hand:\n  export {exports}\n"
        f"  slipway step check-platform --document {run.options.path} --check --diff",
        markup=False,
    )
    signal.pause()


def _again(options: Options) -> str:
    """The command that started this run."""
    state = () if options.state == Options.state else (f"--state={options.state}",)
    document = (str(options.document),) if options.document else ()
    return shlex.join(("slipway", "rehearse", *document, *(f"--set={one}" for one in options.sets), *state))


def _preface(state: Path) -> str:
    return (
        "Local run: hub, bucket, Kubernetes API and PD engine are embedded services on loopback; "
        f"no cluster, GPU or cloud account is used. State: {state}"
    )


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block, so that every step that was started is known and can be ended.

    A fork calls hooks, of the module logging for example, and CPython drops what a handler raises in one of them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _live_as_long_as(parent: int) -> None:
    """Called in the process of a step, before it becomes one.

    SIGTERM reaches it, Ctrl-C does not: a terminal sends that to the run as well, which ends its steps. When the run is
    killed, its step is killed with it, as a pod would be; Linux only.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # include/uapi/linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # the parent was killed before the call
            os.kill(os.getpid(), signal.SIGKILL)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Stopped
