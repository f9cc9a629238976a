"""The parameters of a new run: all of the template, each checked before anything is created."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steps.document.overrides import DOCUMENT as AS_IN_DOCUMENT
from steps.document.overrides import OVERRIDES, Override
from steps.document.schema import ModelService, parse
from steps.errors import DocumentError
from steps.kinds import SERVICE_LABEL, TRIGGER_LABEL, WORKFLOW, Manifest
from steps.report.argo_nodes import TEMPLATE_LABEL

DOCUMENT = "service"  # parameter that holds the document; the same as in `workflows.argo.templates`
REASON = "reason"  # parameter: why this run, for its title
REASON_LENGTH = 80  # characters; a title in Argo's list shows fewer
REASON_CHARACTER = r"^[A-Za-z0-9 ._/:#@+-]$"  # RE2, as every pattern that an event binding holds
REASON_PATTERN = REASON_CHARACTER.replace("$", f"{{0,{REASON_LENGTH}}}$")
OUTSIDE_REASON = " "  # stands for any other character
RUN_ID = "run-id"  # key of an event's payload: the end of the name of the run
RUN_ID_PATTERN = r"^([a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?)?$"  # with the name of the service at most 51 characters


@dataclass(frozen=True)
class Submission:
    """One run to start. Its name is chosen here, so that two submissions with one ID start one run."""

    name: str
    namespace: str
    template: str
    service: str
    parameters: Mapping[str, str]  # all of the template's: a Retry that overrides one forgets defaults
    overrides: Mapping[str, str]  # those of them that differ from the document
    trigger: str = "manual"
    lock: Manifest = field(default_factory=dict)  # the template's own `synchronization`, where the run must repeat it

    @property
    def labels(self) -> dict[str, str]:
        return {SERVICE_LABEL: self.service, TRIGGER_LABEL: self.trigger, TEMPLATE_LABEL: self.template}

    @property
    def manifest(self) -> Manifest:
        """Only fields that `templateReferencing: Strict` admits from a submitter: newer Argo refuses a lock there.

        https://github.com/argoproj/argo-workflows/blob/v4.1.2/workflow/util/merge.go (allowedUserOverrideFields)
        """
        parameters = [{"name": name, "value": value} for name, value in self.parameters.items()]
        return {
            "apiVersion": WORKFLOW.api_version,
            "kind": WORKFLOW.kind,
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels},
            "spec": {
                "workflowTemplateRef": {"name": self.template},
                "arguments": {"parameters": parameters},
                **({"synchronization": self.lock} if self.lock else {}),
            },
        }


@dataclass(frozen=True)
class Why:
    """Who starts a run, and why."""

    run_id: str
    trigger: str = "manual"
    reason: str = ""  # default: the trigger


def prepare(template: Manifest, requested: Iterable[str], why: Why) -> Submission:
    """A run of this WorkflowTemplate with the `requested` parameters (`name=value`).

    Raises DocumentError for every error that the first step would find, and for names that are no parameter.
    """
    name = template["metadata"]["name"]
    origin = f"WorkflowTemplate/{template['metadata']['namespace']}/{name}"
    declared = _declared(template)
    reason = cleaned(why.reason or why.trigger)
    _check("--run-id", why.run_id, RUN_ID_PATTERN, "1 to 20 lower-case letters, digits and dashes")
    overrides = _overrides(requested, declared)
    document = document_of(template)
    service = parse(document, f"the document in {origin}")
    parse(document, f"the document in {origin} with these overrides", _on_document(overrides))
    parameters = {parameter: str(found.get("value", "")) for parameter, found in declared.items()}
    parameters |= {REASON: reason} if REASON in declared else {}
    return Submission(
        name=f"{name}-{why.run_id}",
        namespace=template["metadata"]["namespace"],
        template=name,
        service=service.name,
        parameters={**parameters, **overrides},
        overrides=overrides,
        trigger=why.trigger,
        lock=_lock(template),
    )


def _lock(template: Manifest) -> Manifest:
    """The lock in the form of Argo 3.5, which a run has to carry itself: a controller that restarts reads it from the
    spec of the Workflow alone, and gives the lock of a running run to the next one in the queue.

    https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/sync/sync_manager.go (getWorkflowSyncLevelByName)
    """
    lock: Manifest = template["spec"].get("synchronization") or {}
    return lock if "mutex" in lock else {}


def cleaned(reason: str) -> str:
    """A reason without the characters that Argo could evaluate, cut to its length.

    It is a text for people, so it never prevents the start of a run.
    """
    return "".join(
        character if re.fullmatch(REASON_CHARACTER, character) else OUTSIDE_REASON
        for character in reason[:REASON_LENGTH]
    )


def document_of(template: Manifest) -> str:
    """The text of the document that a template holds. Raises DocumentError for a template of something else."""
    found = _declared(template).get(DOCUMENT, {}).get("value")
    if not isinstance(found, str):
        name = template["metadata"]["name"]
        raise DocumentError(
            f"WorkflowTemplate/{template['metadata']['namespace']}/{name} has no parameter {DOCUMENT!r} with a "
            "document in it, so Slipway did not render it. Next: slipway render, then kubectl apply"
        )
    return found


def difference(one: ModelService, other: ModelService) -> list[str]:
    """Paths of the fields in which two documents differ."""
    return sorted(_differing(one.model_dump(by_alias=True), other.model_dump(by_alias=True), ""))


def _differing(one: Any, other: Any, path: str) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in {**one, **other}
            for found in _differing(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if one == other else [path]


def _check(name: str, found: str, pattern: str, allowed: str) -> None:
    if not found or not re.fullmatch(pattern, found):
        raise DocumentError(f"{name}: found {found!r}, allowed are {allowed}")


def _declared(template: Manifest) -> dict[str, dict[str, Any]]:
    parameters = ((template.get("spec") or {}).get("arguments") or {}).get("parameters") or ()
    return {parameter["name"]: parameter for parameter in parameters}


def _overrides(requested: Iterable[str], declared: Mapping[str, Any]) -> dict[str, str]:
    known = {override.parameter: override for override in OVERRIDES if override.parameter in declared}
    found, errors = {}, []
    for text in requested:
        name, equals, value = text.partition("=")
        override = known.get(name)
        if not equals:
            errors.append(f"{text!r}: expected name=value")
        elif override is None:
            errors.append(_unknown(name, known.values()))
        elif not re.fullmatch(override.pattern, value):
            errors.append(f"{override.parameter}: found {value!r}, allowed is: {_allowed(override)}")
        else:
            found[override.parameter] = value
    if errors:
        raise DocumentError("cannot start a run:\n" + "\n".join(f"  {error}" for error in errors))
    return found


def _unknown(name: str, known: Iterable[Override]) -> str:
    allowed = ", ".join(f"{override.parameter} ({override.field})" for override in known)
    return (
        f"{name}: no parameter of a run; allowed are: {allowed}. "
        "Any other change is a change of the document: render and apply it"
    )


def _allowed(override: Override) -> str:
    choices = " or ".join(override.choices)
    return choices or f"{override.does} As a pattern: {override.pattern}"


def _on_document(overrides: Mapping[str, str]) -> list[str]:
    """Only the first task reads inherited values, so `document` and the empty value change no field here."""
    given = {override: overrides.get(override.parameter, AS_IN_DOCUMENT) for override in OVERRIDES}
    return [f"{override.field}={value}" for override, value in given.items() if value != AS_IN_DOCUMENT]
