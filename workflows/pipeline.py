"""The line as data: the tasks and their order. The only place that knows it.

`workflows.argo` turns it into Argo manifests and `workflows.local` into processes, so both run the same commands.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steps.service import ModelService


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
    scratch: bool = False  # works on the scratch volume


_DIGEST = {"model-digest": Output("resolve-model", "model_digest")}

RESOLVE = Task("resolve-model", "resolve-model", "Pin the files at the hub by one digest")
PREFLIGHT = Task(
    "preflight", "check-platform", "Check everything that needs no bytes, before any byte moves", ("resolve-model",), _DIGEST
)
DOWNLOAD = Task(
    "download-model", "download-model", "Hub to scratch volume, verified", ("preflight",), _DIGEST, scratch=True
)
UPLOAD = Task(
    "upload-model", "upload-model", "Scratch volume to bucket, verified, manifest last", ("download-model",), _DIGEST, scratch=True
)
MIRROR = Task("mirror-model", "mirror-model", "Hub to bucket in one stream, verified, manifest last", ("preflight",), _DIGEST)
FINISH = Task("finish-run", "finish-run", "Put a failed release back, tell people how the run ended")


def tasks(service: ModelService) -> tuple[Task, ...]:
    """The tasks of one run, in an order in which each comes after all that it needs."""
    transfer = (DOWNLOAD, UPLOAD) if service.transfer.mode == "staged" else (MIRROR,)
    rest = (
        ("create-volume", "create-volume", "Secret, volume and claim over the verified files"),
        ("check-components", "check-platform", "The same checks again, right before GPUs are taken"),
        ("roll-out-service", "roll-out-service", "Start the release and wait until its own pods serve"),
        ("smoke-test", "smoke-test", "Real inference: right model, right answers, KV cache moved on every pair"),
        ("promote-release", "promote-release", "Move the traffic, record the release, retire the old one"),
    )
    line = [RESOLVE, PREFLIGHT, *transfer]
    for name, step, does in rest:
        line.append(Task(name, step, does, (line[-1].name,), _DIGEST))
    return tuple(line)


def module_name(step: str) -> str:
    """`check-platform` is the module `steps.check_platform`."""
    return "steps." + step.replace("-", "_")


def outputs(step: str) -> tuple[dataclasses.Field[Any], ...]:
    """The fields that a step writes, from the very dataclass that it writes them with."""
    return dataclasses.fields(importlib.import_module(module_name(step)).Outputs)
