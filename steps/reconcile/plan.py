"""A plan is data: the actions of a step, and the objects that are ok, waiting or failed."""

from dataclasses import dataclass, field
from typing import Any, Literal

Action = Literal["create", "update", "delete"]


@dataclass(frozen=True)
class Change:
    action: Action
    target: str  # "PersistentVolumeClaim/default/llm-model-1a2b3c4d5e", "oss://bucket/key"
    # "absent at OSS", "spec.replicas: 2 -> 3". Not compared: a writer that undoes the same change in ever new ways is
    # still found by the loop.
    reason: str = field(default="", compare=False)
    payload: Any = None  # what apply() needs
    before: Any = field(default=None, compare=False)  # for people, with --diff
    after: Any = field(default=None, compare=False)
    last_writer: str = field(default="", compare=False)  # field manager of the last write, where it is known

    def __str__(self) -> str:
        return f"{self.action} {self.target}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True)
class Plan:
    changes: tuple[Change, ...] = ()
    ok: tuple[str, ...] = ()  # as declared
    waiting: tuple[str, ...] = ()  # another controller is still working; observe again
    failed: tuple[str, ...] = ()  # neither the step nor time can repair it

    @property
    def converged(self) -> bool:
        return not (self.changes or self.waiting or self.failed)

    def __add__(self, other: "Plan") -> "Plan":
        return Plan(
            self.changes + other.changes,
            self.ok + other.ok,
            self.waiting + other.waiting,
            self.failed + other.failed,
        )
