"""Outputs of a step: one file a field, which Argo reads as output parameters.

Written to a draft and renamed, so that a reader never sees half a value.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

RECAP_FILE = "recap.json"  # what a step did, in numbers
RECAP = "recap"  # what a step did, in one line; every step leaves it beside its own outputs
NOTHING_CHANGED = "nothing changed"  # how the recap of a step begins that found everything as wanted


@runtime_checkable
class Judged(Protocol):
    """Outputs of a step that only judges: its recap ends with what it found, since counts would always say the same."""

    @property
    def verdict(self) -> str: ...


def write(outputs: Any, folder: Path) -> None:
    """Write each field of the dataclass `outputs` to `folder/<field-name-with-dashes>`."""
    folder.mkdir(parents=True, exist_ok=True)
    for field in dataclasses.fields(outputs):
        _replace(folder / file_name(field.name), _text(getattr(outputs, field.name)))


def write_json(content: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(content, indent=1))


def write_text(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, text)


def file_name(field: str) -> str:
    """`model_digest` is `model-digest` as a file, as an Argo parameter and as an option of the next step."""
    return field.replace("_", "-")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
