"""The line as data: the tasks and their order. The only place that knows it.

`workflows.argo` turns it into Argo manifests and `workflows.rehearsal` into processes, so both run the same commands.
"""

import dataclasses
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steps.document.schema import ModelService
from steps.report.argo_nodes import MARKER
from steps.report.run import REPORT_RUN, ROLL_BACK


@dataclass(frozen=True)
class Output:
    """One output of an earlier task."""

    task: str
    field: str  # field of the step's Outputs


@dataclass(frozen=True)
class Task:
    name: str  # of the node in Argo and of the recap
    step: str  # `python -m steps <step>`, module and Argo template
    does: str  # one sentence for people
    after: tuple[str, ...] = ()
    options: Mapping[str, Output] = field(default_factory=dict)  # option of the step -> where its value comes from
    about_run: tuple[str, ...] = ()  # options of the step that only the run itself can fill
    scratch: bool = False  # works on the scratch volume
    only_in_pods: bool = False  # on a laptop, scratch is a folder
    # What --shard tells the step. Several mean as many instances of the task at the same time, each of which may be
    # tried again alone; none means that the step is not told.
    shards: tuple[str, ...] = ()
    unless_current: bool = False  # left out when check-release finds nothing to do
    if_failed: bool = False  # of the exit handler: left out when the run succeeded

    @property
    def fans_out(self) -> bool:
        return len(self.shards) > 1


@dataclass(frozen=True)
class Sign:
    """A node that does nothing and needs no pod: that it is green is what it says."""

    name: str
    does: str
    after: tuple[str, ...]


@dataclass(frozen=True)
class Places:
    """Where a task finds its document and leaves what it makes; paths of a pod or of this machine."""

    document: str
    outputs: str
    scratch: str


SHARD = "shard"  # option of a step that shares its work

# What the first task found, and every later one goes by.
_PINNED = {
    "model-digest": Output("resolve-model", "model_digest"),
    "overrides": Output("resolve-model", "overrides"),
}
_MORE = {"promote-release": {"proved-release": Output("smoke-test", "proved_release")}}
RECORD_COUNTER = Output("resolve-model", "record_counter")
# What tells a step whether another run promoted a release since this one began.
_INTENT = {"record-counter": RECORD_COUNTER}

# Steps that change the service, in the name of the run: no other run may do so before this one has ended.
WRITING = frozenset({"create-volume", "roll-out-service", "promote-release", "roll-back"})

RESOLVE = Task("resolve-model", "resolve-model", "Pin the files at the hub by one digest", about_run=("run-name",))
CHECK = Task(
    "check-release",
    "check-release",
    "Is exactly this release, whole and proved, what serves already? Then the rest is left out",
    ("resolve-model",),
    _PINNED | _INTENT,
    ("run-name",),
)
# What a task that is left out looks at. An output that is missing stops the run, so it never means "left out".
STATE = Output("check-release", "state")
NOTHING_CHANGED = Sign(
    MARKER, "Nothing changed: the release of the document serves already, and was proved again", (CHECK.name,)
)
PREFLIGHT = Task(
    "preflight",
    "check-platform",
    "Check everything that needs no bytes, before any byte moves",
    ("check-release",),
    _PINNED,
    about_run=("run-name",),
    unless_current=True,
)
SCRATCH = Task(
    "create-scratch",
    "create-scratch",
    "Claim the scratch volume of this run",
    ("preflight",),
    _PINNED,
    about_run=("run-name", "run-uid"),
    only_in_pods=True,
    unless_current=True,
)
DOWNLOAD = Task(
    "download-model",
    "download-model",
    "Hub to scratch volume, verified",
    ("create-scratch",),
    _PINNED,
    scratch=True,
    unless_current=True,
)
UPLOAD = Task(
    "upload-model",
    "upload-model",
    "Scratch volume to bucket, verified, manifest last",
    ("download-model",),
    _PINNED,
    scratch=True,
    unless_current=True,
)
MIRROR = Task(
    "mirror-model",
    "mirror-model",
    "Hub to bucket in one stream, verified, manifest last",
    ("preflight",),
    _PINNED,
    unless_current=True,
)
PUBLISH = Task(
    "publish-model",
    "mirror-model",
    "Check that every shard has arrived, then write the manifest",
    ("mirror-model",),
    _PINNED,
    shards=("all",),
    unless_current=True,
)
# Tasks of the exit handler: each begins whatever became of the one before it.
EXIT = (
    Task(
        ROLL_BACK,
        ROLL_BACK,
        "Put the recorded release back, remove the one that failed",
        about_run=("run-name", "run-status"),
        if_failed=True,
    ),
    Task(
        REPORT_RUN,
        REPORT_RUN,
        "Tell people how the run ended",
        about_run=("run-name", "run-status"),
    ),
)


def tasks(service: ModelService, *, in_pods: bool = True) -> tuple[Task, ...]:
    """The tasks of one run, in an order in which each comes after all that it needs."""
    transfer = (SCRATCH, DOWNLOAD, UPLOAD) if service.transfer.mode == "staged" else _streamed(service.transfer.shards)
    rest = (
        ("create-volume", "create-volume", "Secret, volume and claim over the verified files"),
        ("check-components", "check-platform", "The same checks again, right before GPUs are taken"),
        ("roll-out-service", "roll-out-service", "Start the release and wait until its own pods serve"),
        ("smoke-test", "smoke-test", "Real inference: right model, right answers, KV cache moved on every pair"),
        ("promote-release", "promote-release", "Move the traffic, record the release, retire the old one"),
    )
    line = [RESOLVE, CHECK, PREFLIGHT, *transfer]
    for name, step, does in rest:
        options, about_run = (
            (_PINNED | _MORE.get(step, {}) | _INTENT, ("run-name",))
            if step in WRITING
            else (_PINNED, PREFLIGHT.about_run if step == PREFLIGHT.step else ())
        )
        line.append(Task(name, step, does, (line[-1].name,), options, about_run, unless_current=True))
    return tuple(task for task in line if in_pods or not task.only_in_pods)


def _streamed(shards: int) -> tuple[Task, ...]:
    """One task; or one in several instances, and behind them the one that may write the manifest."""
    if shards == 1:
        return (MIRROR,)
    numbers = tuple(str(number) for number in range(shards))
    return dataclasses.replace(MIRROR, does="Hub to bucket in one stream, each its own files", shards=numbers), PUBLISH


def command(task: Task) -> tuple[str, ...]:
    """What starts the task, in a pod and on this machine."""
    return ("python", "-m", "steps", task.step)


def arguments(
    task: Task, places: Places, values: Mapping[str, str], *, parameters: Iterable[str] = (), sets: Iterable[str] = ()
) -> tuple[str, ...]:
    """The arguments behind `command`.

    `values` fills `task.options` and `task.about_run` by their names, and `shard` for a task that is told one;
    `parameters` are `name=value`, `sets` `path.to.field=value`. A task of the exit handler is told no parameters: what
    it does is not decided by them, and a wrong one must not keep it from starting. Raises KeyError for an option that
    has no value.
    """
    scratch = (f"--scratch={places.scratch}",) if task.scratch else ()
    shard = (SHARD,) if task.shards else ()
    options = (f"--{option}={values[option]}" for option in (*task.options, *shard, *task.about_run))
    given = (f"--parameter={parameter}" for parameter in parameters if task not in EXIT)
    edits = (f"--set={edit}" for edit in sets)
    return (f"--document={places.document}", f"--outputs={places.outputs}", *scratch, *options, *given, *edits)


def module_name(step: str) -> str:
    """`check-platform` is the module `steps.check_platform`."""
    return "steps." + step.replace("-", "_")


def outputs(step: str) -> tuple[dataclasses.Field[Any], ...]:
    """The fields that a step writes, from the very dataclass that it writes them with."""
    return dataclasses.fields(importlib.import_module(module_name(step)).Outputs)
