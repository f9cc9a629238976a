"""Outputs of a step: one file a field, which Argo reads as output parameters.

Written to a draft and renamed, so that a reader never sees half a value. Argo may paste a parameter into a template, so
each is plain text; one that Argo does paste is a `Word`.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from steps.reconcile.plain_text import plain_bytes

LIMIT = 4096  # bytes of one output; Argo keeps all of them in the Workflow, for which etcd has about 1.5 MB
WORD = re.compile(r"[A-Za-z0-9._:-]+")
# An output that another task consumes, in its arguments or in the expression of its `when`. Any text that is annotated
# with a pattern is held to it.
Word = Annotated[str, WORD]
RECAP_FILE = "recap.json"  # the recap of a step, in numbers
RECAP = "recap"  # the recap of a step, in one line, beside its own outputs
NOTHING_CHANGED = "nothing changed"  # start of the recap of a step without changes


@runtime_checkable
class Judged(Protocol):
    """Outputs of a read-only step with a verdict: its recap ends with it, since its counts never differ."""

    @property
    def verdict(self) -> str: ...


def write(outputs: Any, folder: Path) -> None:
    """Write each field of the dataclass `outputs` to `folder/<field-name-with-dashes>`.

    Raises ValueError, and writes nothing, for a text that does not match the pattern of its field.
    """
    found = {field.name: _checked(field, getattr(outputs, field.name)) for field in dataclasses.fields(outputs)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in found.items():
        _replace(folder / file_name(name), plain_bytes(_text(value), LIMIT))


def write_json(content: Any, path: Path) -> None:
    """For a reader beside the step, as it is: Argo has no parameter for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(content, indent=1).encode())


def write_text(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, plain_bytes(text, LIMIT))


def file_name(field: str) -> str:
    """`model_digest` is `model-digest` as a file, as an Argo parameter and as an option of the next step."""
    return field.replace("_", "-")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _checked(field: dataclasses.Field[Any], value: Any) -> Any:
    patterns = (found for found in getattr(field.type, "__metadata__", ()) if isinstance(found, re.Pattern))
    for pattern in patterns:
        if not pattern.fullmatch(value):
            raise ValueError(f"output {file_name(field.name)}: found {value!r}, expected {pattern.pattern}")
    return value


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(content)
    draft.replace(path)
