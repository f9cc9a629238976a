"""The pipeline as data: the tasks of a run and their order.

`workflows.argo` turns it into Argo manifests and `workflows.rehearsal` into processes, so both run the same commands.
"""

import dataclasses
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steps.catalogue import CATALOGUE, StepSpec
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
    """One place of a step in the pipeline."""

    step: str  # `python -m steps <step>`, and the Argo template
    alias: str = ""  # name of the task, where the pipeline has several tasks of its step
    purpose: str = ""  # in place of the description of the step
    after: tuple[str, ...] = ()
    only_in_pods: bool = False  # on a laptop, scratch is a folder
    # Values of --shard. Several mean as many instances of the task at the same time, each with retries of its own; none
    # means a call without the option.
    shards: tuple[str, ...] = ()
    if_failed: bool = False  # of the exit handler: skipped if the run succeeded

    @property
    def name(self) -> str:
        """The name of the node in Argo, and of the task in a recap."""
        return self.alias or self.step

    @property
    def spec(self) -> StepSpec:
        return CATALOGUE[self.step]

    @property
    def description(self) -> str:
        return self.purpose or self.spec.description

    @property
    def options(self) -> Mapping[str, Output]:
        """Options with an output of an earlier task as value."""
        return {option: SOURCES[option] for option in self.spec.options if option in SOURCES}

    @property
    def run_facts(self) -> tuple[str, ...]:
        """Options with a fact of the run as value."""
        return tuple(option for option in self.spec.options if option in RUN_FACTS)

    @property
    def fans_out(self) -> bool:
        return len(self.shards) > 1


@dataclass(frozen=True)
class Marker:
    """A node without work and without a pod: its green phase is its meaning."""

    name: str
    description: str
    after: tuple[str, ...]


@dataclass(frozen=True)
class Places:
    """Document, outputs and scratch of a task; paths of a pod or of this machine."""

    document: str
    outputs: str
    scratch: str


SHARD = "shard"  # option of a step that shares its work
RECORD_COUNTER = Output("resolve-model", "record_counter")
# By the counter, a step finds out that another run promoted a release since this one began.
SOURCES: Mapping[str, Output] = {
    "model-digest": Output("resolve-model", "model_digest"),
    "overrides": Output("resolve-model", "overrides"),
    "record-counter": RECORD_COUNTER,
    "proved-release": Output("smoke-test", "proved_release"),
}
RUN_FACTS = ("run-name", "run-status", "run-uid")

RESOLVE = Task("resolve-model")
CHECK = Task("check-release")
# The condition of a task that is skipped. An output that is missing stops the run, so it never means "skip".
STATE = Output("check-release", "state")
NOTHING_CHANGED = Marker(
    MARKER, "Nothing changed: the release of the document serves already, and was proved again", (CHECK.name,)
)
PREFLIGHT = Task("check-platform", "preflight", "Check everything that needs no bytes, before any byte moves.")
SCRATCH = Task("create-scratch", only_in_pods=True)
MIRROR = Task("mirror-model")
PUBLISH = Task(
    "mirror-model", "publish-model", "Check that every shard has arrived, then write the manifest.", shards=("all",)
)
COMPONENTS = Task("check-platform", "check-components", "The same checks again, right before GPUs are taken.")
# The exit handler. Each task begins after the one before it, failed or not.
EXIT = (Task(ROLL_BACK, if_failed=True), Task(REPORT_RUN))


def tasks(service: ModelService, *, in_pods: bool = True) -> tuple[Task, ...]:
    """The tasks of one run without its exit handler, each behind the one before it."""
    every = (
        RESOLVE,
        CHECK,
        PREFLIGHT,
        *_transfer(service),
        Task("create-volume"),
        COMPONENTS,
        Task("roll-out-service"),
        Task("smoke-test"),
        Task("promote-release"),
    )
    return tuple(_in_order(task for task in every if in_pods or not task.only_in_pods))


def _transfer(service: ModelService) -> tuple[Task, ...]:
    """By way of the scratch volume; or in one stream, with a last task for the manifest if there are several shards."""
    shards = service.transfer.shards
    if service.transfer.mode == "staged":
        return (SCRATCH, Task("download-model"), Task("upload-model"))
    if shards == 1:
        return (MIRROR,)
    purpose = "Copy the files from the hub to the bucket in one stream, each shard its own files."
    numbers = tuple(str(number) for number in range(shards))
    return dataclasses.replace(MIRROR, purpose=purpose, shards=numbers), PUBLISH


def _in_order(found: Iterable[Task]) -> Iterator[Task]:
    after: tuple[str, ...] = ()
    for task in found:
        yield dataclasses.replace(task, after=after)
        after = (task.name,)


def command(task: Task) -> tuple[str, ...]:
    """The command of the task, in a pod and on this machine."""
    return ("python", "-m", "steps", task.step)


def arguments(
    task: Task, places: Places, values: Mapping[str, str], *, parameters: Iterable[str] = (), sets: Iterable[str] = ()
) -> tuple[str, ...]:
    """The arguments behind `command`.

    `values` fills `task.options` and `task.run_facts` by their names, and `shard` for a task with shards; `parameters`
    are `name=value`, `sets` `path.to.field=value`. A step of the exit handler takes no parameters: its work does not
    depend on them, and a wrong one must not keep it from starting. Raises KeyError for an option without a value.
    """
    scratch = (f"--scratch={places.scratch}",) if "scratch" in task.spec.options else ()
    shard = (SHARD,) if task.shards else ()
    options = (f"--{option}={values[option]}" for option in (*task.options, *shard, *task.run_facts))
    given = (f"--parameter={parameter}" for parameter in parameters if "parameter" in task.spec.options)
    edits = (f"--set={edit}" for edit in sets)
    return (f"--document={places.document}", f"--outputs={places.outputs}", *scratch, *options, *given, *edits)


def outputs(step: str) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of the dataclass with which the step writes its outputs."""
    return dataclasses.fields(importlib.import_module(f"steps.{CATALOGUE[step].module}").Outputs)
