"""What pydantic found wrong with a document, as sentences: the path of the field, what was found, what is allowed."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]

# Pydantic speaks of dictionaries and strings; who writes YAML thinks of sections and texts.
_ALLOWED = {
    "string_type": "a text; put quotes around what YAML takes for a number, a date or yes and no",
    "int_type": "a whole number",
    "model_type": "a section",
    "dict_type": "a section of names and texts",
    "tuple_type": "a list of texts",
    "union_tag_not_found": "a section with its `kind`",
}


def explain(origin: str, error: ValidationError, document: type[BaseModel]) -> str:
    """Every mistake in one message; `origin` says where the document came from."""
    mistakes = [_mistake(details, document) for details in error.errors()]
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    return f"{origin} has {count}:\n" + "\n".join(f"  {mistake}" for mistake in mistakes)


def wants_text(path: Iterable[str], document: type[BaseModel]) -> bool:
    """Whether the field at `path`, or the value of a mapping there, may be a text."""
    section: type[BaseModel] | None = document
    annotation: Any = None
    for part in path:
        if section is None:
            break  # a key of a mapping, such as a label
        annotation = _annotation(section, part)
        section = next(iter(_sections(annotation)), None)
    return _may_be_text(annotation)


def _mistake(details: ErrorDetails, document: type[BaseModel]) -> str:
    parts, section = _locate(details["loc"], document)
    path = ".".join(parts) or "(document)"
    if details["type"] == "missing":
        return f"{path}: found nothing, this field is required"
    if details["type"] == "union_tag_invalid":
        return f"{path}.kind: found {details['ctx']['tag']!r}, allowed is: {details['ctx']['expected_tags']}"
    found = details["input"]
    shown = "a section" if isinstance(found, Mapping) else repr(found)
    if details["type"] == "no_version":
        shown = "nothing"
    if details["type"] == "extra_forbidden" and section:
        fields = ", ".join(str(field.alias) for field in section.model_fields.values())
        return f"{path}: found {shown}, but there is no such field; allowed are: {fields}"
    return f"{path}: found {shown}, allowed is: {_allowed(details)}"


def _allowed(details: ErrorDetails) -> str:
    message = _ALLOWED.get(details["type"], details["msg"])
    return message[0].lower() + message[1:]


def _locate(location: Location, document: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None]:
    """The path as the document has it, and the section that holds its last part.

    Where a section may be of several kinds, pydantic puts the kind that it tried between the parts.
    """
    path: list[str] = []
    section: type[BaseModel] | None = None
    choices = [document]
    for part in location:
        tried = [choice for choice in choices if len(choices) > 1 and part in _kinds(choice)]
        if tried:
            choices = tried
            continue
        path.append(str(part))
        section = choices[0] if choices else None
        choices = _sections(_annotation(section, part)) if section else []
    return path, section


def _kinds(section: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(_annotation(section, "kind"))


def _annotation(section: type[BaseModel], alias: int | str) -> Any:
    return next((field.annotation for field in section.model_fields.values() if field.alias == alias), None)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    candidates = (annotation, *get_args(annotation))
    return [item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)]


def _may_be_text(annotation: Any) -> bool:
    return annotation is str or any(_may_be_text(item) for item in get_args(annotation))
