"""A plan is data: what a step will do, what is already right, what it waits for, and what it cannot mend."""

from dataclasses import dataclass, field
from typing import Any, Literal

Action = Literal["create", "update", "delete"]


@dataclass(frozen=True)
class Change:
    action: Action
    target: str  # "PersistentVolumeClaim/default/llm-model-1a2b3c4d5e", "oss://bucket/key"
    # Why: "absent at OSS", "spec.replicas: 2 -> 3". No part of what the change is: who undoes it in ever new ways is
    # still undoing the same change.
    reason: str = field(default="", compare=False)
    payload: Any = None  # what apply() needs
    before: Any = field(default=None, compare=False)  # for people, in diff mode
    after: Any = field(default=None, compare=False)
    last_writer: str = field(default="", compare=False)  # who touched the target last, if the world can tell

    def __str__(self) -> str:
        return f"{self.action} {self.target}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True)
class Plan:
    changes: tuple[Change, ...] = ()
    kept: tuple[str, ...] = ()  # already as wanted
    waits: tuple[str, ...] = ()  # somebody else is still working; look again later
    faults: tuple[str, ...] = ()  # what neither we nor time will mend

    @property
    def converged(self) -> bool:
        return not (self.changes or self.waits or self.faults)

    def __add__(self, other: "Plan") -> "Plan":
        return Plan(
            self.changes + other.changes, self.kept + other.kept, self.waits + other.waits, self.faults + other.faults
        )
