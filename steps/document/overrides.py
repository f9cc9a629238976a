"""Overrides: values of a run in place of those of the document, and their inheritance by later runs.

A sticky override of a run that promoted stays in force for the runs of every door until the document changes, which
then wins as a whole, or a run resets it with the value `document`. docs/decisions/0011-overrides-stay.md
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from steps.document.schema import Document, ModelService
from steps.errors import DocumentError

DOCUMENT = "document"  # as value of a parameter: that of the document; as text of overrides: none is in force
BY_HAND = "by-hand"  # in place of a run's name
_LISTED, _OF_RUN = ",", "~"  # between two overrides, and before the run of one; no pattern below admits either


@dataclass(frozen=True)
class Override:
    """One field of the document that a run may change."""

    parameter: str  # of the workflow
    field: str  # path in the document
    does: str  # description of the parameter, one sentence
    pattern: str  # RE2, for values from outside. It matches the empty text, which stands for "not given"
    choices: tuple[str, ...] = ()
    sticky: bool = True  # later runs inherit it


_INHERITED = "empty means as the last promoted run, or else the document; `document` means as in the document."
OVERRIDES = (
    Override(
        "model-revision",
        "model.revision",
        f"Branch, tag or commit at the hub; {_INHERITED}",
        r"^([A-Za-z0-9][A-Za-z0-9._/-]{0,127})?$",
    ),
    Override(
        "image",
        "serving.image",
        f"Engine image of prefill and decode; {_INHERITED}",
        r"^([A-Za-z0-9][A-Za-z0-9._/:@-]{0,511})?$",
    ),
    Override(
        "prefill-replicas",
        "serving.prefill.replicas",
        f"Number of prefill workers, 1 to 64; {_INHERITED}",
        r"^([1-9][0-9]?|document)?$",
    ),
    Override(
        "strategy",
        "rollout.strategy",
        f"How the new release replaces the old one; {_INHERITED}",
        r"^(BlueGreen|Recreate|document)?$",
        ("BlueGreen", "Recreate", DOCUMENT),
    ),
    Override(
        "skip-unchanged",
        "workflow.skipUnchanged",
        "Whether a run that finds this exact release deployed and verified skips its other tasks; empty means as in the document.",
        r"^(true|false)?$",
        ("true", "false"),
        sticky=False,
    ),
)
_BY_NAME = {override.parameter: override for override in OVERRIDES}
_RUN = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")  # the name of a Workflow is a DNS subdomain


@dataclass(frozen=True)
class InForce:
    """A sticky override, and the run that brought it. Raises ValueError for one that no run may carry."""

    parameter: str
    value: str
    run: str

    def __post_init__(self) -> None:
        declared = _BY_NAME.get(self.parameter)
        if declared is None or not declared.sticky:
            raise ValueError(f"{self.parameter!r} is no sticky parameter")
        if self.value in ("", DOCUMENT) or not re.fullmatch(declared.pattern, self.value):
            raise ValueError(f"{self.parameter} is {self.value!r}, expected a text that matches {declared.pattern}")
        if not _RUN.fullmatch(self.run):
            raise ValueError(f"the run of {self.parameter} is {self.run!r}, expected the name of a run")

    @property
    def field(self) -> str:
        return _BY_NAME[self.parameter].field

    def __str__(self) -> str:
        return f"{self.field}={self.value} (run {self.run})"


_ONE = r"[a-z-]+=[A-Za-z0-9][A-Za-z0-9._/:@-]*~[a-z0-9][a-z0-9.-]*"
# As one word that Argo may paste into arguments: `image=registry.example.com/llm/x:0.5.24~demo-c1,strategy=…`.
OverridesText = Annotated[str, re.compile(rf"{DOCUMENT}|{_ONE}(,{_ONE})*")]


def as_text(found: Iterable[InForce]) -> str:
    listed = _LISTED.join(f"{one.parameter}={one.value}{_OF_RUN}{one.run}" for one in found)
    return listed or DOCUMENT


def of_text(text: str) -> tuple[InForce, ...]:
    """Raises ValueError for what `as_text` does not write."""
    if text == DOCUMENT:
        return ()
    found = []
    for one in text.split(_LISTED):
        parameter, _, rest = one.partition("=")
        value, _, run = rest.partition(_OF_RUN)
        found.append(InForce(parameter, value, run))
    return tuple(found)


def given(texts: Iterable[str]) -> dict[str, str]:
    """The parameters of a run, from `name=value`; those that are empty are not given.

    Raises DocumentError for a parameter that does not exist and for a value that may not come in.
    """
    found: dict[str, str] = {}
    for text in texts:
        parameter, equals, value = text.partition("=")
        declared = _BY_NAME.get(parameter)
        if not equals or declared is None:
            allowed = ", ".join(_BY_NAME)
            raise DocumentError(f"the parameter {text!r}: expected name=value with one of the names {allowed}")
        if not re.fullmatch(declared.pattern, value):
            raise DocumentError(f"the parameter {parameter}: found {value!r}, expected {declared.pattern}")
        found |= {parameter: value} if value else {}
    return found


@dataclass(frozen=True)
class Resolved:
    """The document of a run, with all overrides."""

    service: ModelService
    overrides: tuple[InForce, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """The document of a run with its own overrides, before it inherits others."""

    document: Document
    parameters: Mapping[str, str] = field(default_factory=dict)
    sets: tuple[str, ...] = ()  # `path.to.field=value`: edits of the document for this run alone
    run: str = BY_HAND

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the document as it is written, without comments, order and overrides.

        A default that a later Slipway changes or adds is no change of the document.
        """
        canonical = json.dumps(self.document.content, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def resolve(self, inherited: Iterable[InForce] = ()) -> Resolved:
        """The document, then inherited overrides, then the parameters of the run, then its edits.

        Raises DocumentError for a wrong document, and for one that contradicts an override; it names both.
        """
        edited = self.document.service(self.sets)
        overrides = self._in_force(inherited, edited)
        passing = [f"{one.field}={one.value}" for one in overrides] + [
            f"{override.field}={self.parameters.get(override.parameter, '')}"
            for override in OVERRIDES
            if not override.sticky
        ]
        try:
            return Resolved(self._named(overrides).service((*passing, *self.sets)), overrides)
        except DocumentError as error:
            resets = " ".join(f"-p {one.parameter}={DOCUMENT}" for one in overrides)
            hint = f"\nNext: change the document, or start a run with {resets}" if resets else ""
            raise DocumentError(f"{error}{hint}") from error

    def _in_force(self, inherited: Iterable[InForce], document: ModelService) -> tuple[InForce, ...]:
        """A value that the document has, too, is no override; one that a run only repeats stays the earlier run's."""
        before = {one.parameter: one for one in inherited}
        found = []
        for override in filter(lambda override: override.sticky, OVERRIDES):
            value, one = self.parameters.get(override.parameter), before.get(override.parameter)
            if value == DOCUMENT:
                continue
            if value and (one is None or one.value != value):
                one = InForce(override.parameter, value, self.run)
            if one and one.value != str(_value(document, override.field)):
                found.append(one)
        return tuple(found)

    def _named(self, overrides: tuple[InForce, ...]) -> Document:
        beside = f" with {', '.join(map(str, overrides))}" if overrides else ""
        return replace(self.document, origin=f"{self.document.origin}{beside}")


def _value(service: ModelService, path: str) -> Any:
    found: Any = service.model_dump(by_alias=True)
    for key in path.split("."):
        found = found[key]
    return found
