"""What each line of Argo wants. Manifests are built with the fields of Argo 4; older lines know some by other names.

No single file serves all lines: Argo 3.5 ignores `mutexes` and `schedules` or fails on them, Argo 4 knows no `mutex`
and no `schedule`, and 3.6 and 3.7 refuse an object that has both.
https://argo-workflows.readthedocs.io/en/latest/upgrading/
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steps.errors import DocumentError

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Singular:
    """A list that an older line knows as one value."""

    section: str  # field that holds it, in a workflow spec or a template; empty: the spec itself
    plural: str
    singular: str


@dataclass(frozen=True)
class Line:
    """A minor version of Argo and how its fields differ from Argo 4."""

    folder: str  # in manifests/argo; lines that want the same files share one
    singular: tuple[Singular, ...] = ()
    # Fields of the template that a scheduled run repeats beside its reference.
    repeated: tuple[str, ...] = ()


_OLD = Line(
    "3.5",
    (
        Singular("synchronization", "mutexes", "mutex"),
        Singular("synchronization", "semaphores", "semaphore"),
        Singular("", "schedules", "schedule"),
    ),
    # A controller of 3.5 that starts again knows the lock of a running run from the Workflow itself alone. 3.7.18 and
    # 4.1.2 look into the stored spec, too, and refuse the field under `templateReferencing: Strict`. 3.6 looks as 3.5
    # does, but shares its files with them: there the writer Lease keeps two runs apart, and the mutex is a queue.
    # https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/sync/sync_manager.go (getWorkflowSyncLevelByName)
    # https://github.com/argoproj/argo-workflows/blob/v4.1.2/workflow/util/merge.go (allowedUserOverrideFields)
    repeated=("synchronization",),
)
_NEW = Line("3.6-4.1")

LINES: Mapping[str, Line] = {"3.5": _OLD, "3.6": _NEW, "3.7": _NEW, "4.0": _NEW, "4.1": _NEW}


def line(version: str) -> Line:
    """The line of `3.5`, `3.5.15` or `v3.5.15`. Raises DocumentError for one that nobody has tried."""
    minor = ".".join(version.removeprefix("v").split(".")[:2])
    if minor not in LINES:
        raise DocumentError(f"cannot render for Argo {version!r}: allowed are {', '.join(LINES)}")
    return LINES[minor]


def for_line(manifest: Manifest, wanted: Line) -> Manifest:
    """The same object with the fields that this line knows."""
    return {**manifest, "spec": _rewritten(manifest["spec"], wanted)}


def _rewritten(spec: Manifest, wanted: Line) -> Manifest:
    result = dict(spec)
    for change in wanted.singular:
        if not change.section:
            result = _as_singular(result, change)
        elif change.section in result:
            result[change.section] = _as_singular(result[change.section], change)
    if "workflowSpec" in result:
        result["workflowSpec"] = _rewritten(_beside_reference(result["workflowSpec"], wanted), wanted)
    if "templates" in result:
        result["templates"] = [_rewritten(template, wanted) for template in result["templates"]]
    return result


def _beside_reference(spec: Manifest, wanted: Line) -> Manifest:
    """What a run by reference holds itself."""
    kept = {"workflowTemplateRef", "arguments", *wanted.repeated}
    return {key: value for key, value in spec.items() if key in kept}


def _as_singular(section: Manifest, change: Singular) -> Manifest:
    return dict(_renamed(section, change))


def _renamed(section: Manifest, change: Singular) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if key != change.plural:
            yield key, value
            continue
        if len(value) != 1:
            raise DocumentError(f"Argo 3.5 holds one {change.singular}, found {len(value)} in {change.plural}")
        yield change.singular, value[0]
