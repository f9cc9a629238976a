"""Label selectors, as the API server reads them in a query.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from workflows.simulator.core.cluster.errors import bad_request

_SET = re.compile(r"^(?P<key>[^\s,=!()]+)\s+(?P<word>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s,=!()]+)\s*(?P<word>==|=|!=)\s*(?P<value>[^\s,=!()]*)$")
_KEY = re.compile(r"^(?P<no>!?)\s*(?P<key>[^\s,=!()]+)$")


@dataclass(frozen=True)
class Requirement:
    key: str
    values: frozenset[str] | None  # None: any value will do
    wanted: bool = True  # False turns the requirement around

    def matches(self, labels: Mapping[str, str]) -> bool:
        holds = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return holds == self.wanted


@dataclass(frozen=True)
class Selector:
    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Selector":
        """Read `a=b,c!=d,e in (f,g),h,!i`. Raises ApiError 400 for anything else."""
        parts = [part.strip() for part in re.split(r",(?![^()]*\))", text)] if text.strip() else []
        return cls(tuple(_requirement(part) for part in parts))

    @classmethod
    def equal(cls, labels: Mapping[str, str]) -> "Selector":
        return cls(tuple(Requirement(key, frozenset({value})) for key, value in labels.items()))

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        return all(requirement.matches(labels or {}) for requirement in self.requirements)


def _requirement(part: str) -> Requirement:
    if found := _SET.match(part):
        values = frozenset(value.strip() for value in found["values"].split(","))
        return Requirement(found["key"], values, wanted=found["word"] == "in")
    if found := _EQUAL.match(part):
        return Requirement(found["key"], frozenset({found["value"]}), wanted=found["word"] != "!=")
    if found := _KEY.match(part):
        return Requirement(found["key"], None, wanted=not found["no"])
    raise bad_request(f"unable to parse requirement: {part!r}")
