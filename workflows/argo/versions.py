"""The fields of each version of Argo. Manifests are built with those of Argo 4; older versions name some differently.

No single file serves all versions: Argo 3.5 ignores `mutexes` and `schedules` or fails on them, Argo 4 knows no `mutex`
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
    """A list that is one value in an older version."""

    section: str  # field around it, in a workflow spec or a template; empty: the spec itself
    plural: str
    singular: str


@dataclass(frozen=True)
class ArgoVersion:
    """A minor version of Argo and how its fields differ from Argo 4."""

    folder: str  # in manifests/argo; versions with the same files share one
    singular: tuple[Singular, ...] = ()
    # Fields of the template that a scheduled run repeats beside its reference.
    repeated: tuple[str, ...] = ()


_OLD = ArgoVersion(
    "3.5",
    (
        Singular("synchronization", "mutexes", "mutex"),
        Singular("synchronization", "semaphores", "semaphore"),
        Singular("", "schedules", "schedule"),
    ),
    # A restarted controller of 3.5 reads the lock of a running run from the Workflow itself alone. 3.7.18 and 4.1.2
    # read the stored spec as well, and refuse the field under `templateReferencing: Strict`. 3.6 reads as 3.5
    # does, but shares its files with them: there the writer Lease keeps two runs apart, and the mutex is a queue.
    # https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/sync/sync_manager.go (getWorkflowSyncLevelByName)
    # https://github.com/argoproj/argo-workflows/blob/v4.1.2/workflow/util/merge.go (allowedUserOverrideFields)
    repeated=("synchronization",),
)
_NEW = ArgoVersion("3.6-4.1")

VERSIONS: Mapping[str, ArgoVersion] = {"3.5": _OLD, "3.6": _NEW, "3.7": _NEW, "4.0": _NEW, "4.1": _NEW}


def argo_version(text: str) -> ArgoVersion:
    """The minor version of `3.5`, `3.5.15` or `v3.5.15`. Raises DocumentError for a version without a test."""
    minor = ".".join(text.removeprefix("v").split(".")[:2])
    if minor not in VERSIONS:
        raise DocumentError(f"cannot render for Argo {text!r}: allowed are {', '.join(VERSIONS)}")
    return VERSIONS[minor]


def for_version(manifest: Manifest, version: ArgoVersion) -> Manifest:
    """The same object with the fields of this version."""
    return {**manifest, "spec": _rewritten(manifest["spec"], version)}


def _rewritten(spec: Manifest, version: ArgoVersion) -> Manifest:
    result = dict(spec)
    for change in version.singular:
        if not change.section:
            result = _as_singular(result, change)
        elif change.section in result:
            result[change.section] = _as_singular(result[change.section], change)
    if "workflowSpec" in result:
        result["workflowSpec"] = _rewritten(_beside_reference(result["workflowSpec"], version), version)
    if "templates" in result:
        result["templates"] = [_rewritten(template, version) for template in result["templates"]]
    return result


def _beside_reference(spec: Manifest, version: ArgoVersion) -> Manifest:
    """The fields that a run by reference has beside its reference."""
    kept = {"workflowTemplateRef", "arguments", *version.repeated}
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
