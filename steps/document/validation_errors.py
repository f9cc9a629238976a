"""Validation errors as sentences: field, line and column, the value found, the values allowed, and a near name."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from steps.document.tokens import is_token
from steps.document.written import Path, Written

_LIKENESS = 0.6  # of a name that is worth a "did you mean"; difflib.SequenceMatcher.ratio

# Pydantic writes of dictionaries, strings and inputs; a document has sections, texts and values.
_ALLOWED = {
    "int_type": "a whole number",
    "bool_type": "true or false",
    "model_type": "a section",
    "model_attributes_type": "a section",
    "dict_type": "a section of names and texts",
    "tuple_type": "a list",
    "string_too_short": "a text that is not empty",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} entry",
    "too_long": "at most {max_length} entry",
    "literal_error": "{expected}",
}


def explain(origin: str, error: ValidationError, document: type[BaseModel], written: Written) -> str:
    """All errors in one message; `origin` names the document."""
    errors = [_sentence(details, document, written) for details in error.errors()]
    count = "1 validation error" if len(errors) == 1 else f"{len(errors)} validation errors"
    return f"{origin} has {count}:\n" + "\n".join(f"  {line}" for line in errors)


def wants_text(path: Iterable[str], document: type[BaseModel]) -> bool:
    """Whether the field at `path`, or the value of a mapping there, may be a text."""
    section: type[BaseModel] | None = document
    annotation: Any = None
    for part in path:
        if section is None:
            break  # a key of a mapping, such as a label
        annotation = _annotation(section, part)
        section = _section(annotation)
    return _may_be_text(annotation)


def _sentence(details: ErrorDetails, document: type[BaseModel], written: Written) -> str:
    path, section = _locate(details["loc"], document)
    at_key = details["type"] == "extra_forbidden"
    field = f"{'.'.join(path) or '(document)'} ({written.place(path, of_key=at_key)})"
    if details["type"] == "missing":
        return f"{field}: missing; this field is required"
    found = _shown(details, path, written)
    if at_key and section:
        fields = [str(one.alias) for one in section.model_fields.values()]
        near = _near_field(path, fields, document)
        return (
            f"{field}: found {found}, but there is no such field; allowed are: {', '.join(fields)}{_did_you_mean(near)}"
        )
    return (
        f"{field}: found {found}, allowed is: {_allowed(details, path, written)}{_did_you_mean(_near_value(details))}"
    )


def _shown(details: ErrorDetails, path: Path, written: Written) -> str:
    """The value, unless it is long or may be a secret."""
    found = details["input"]
    match details["type"]:
        case "token":
            return "a value that is not shown"
        case "no_version":
            return "nothing"
        case "no_proof":
            return repr(details["ctx"]["version"])
    if isinstance(found, str):
        return "a token" if is_token(found) else repr(found)
    by_type = {dict: "a section", list: "a list", tuple: "a list", type(None): "nothing"}
    plain = "a section" if isinstance(found, BaseModel) else by_type.get(type(found))
    return plain or written.scalar(path) or str(found).lower()


def _allowed(details: ErrorDetails, path: Path, written: Written) -> str:
    if details["type"] == "string_type":
        raw = written.scalar(path)
        return f'a text: write "{raw}" in quotes' if raw and details["input"] is not None else "a text, in quotes"
    template = _ALLOWED.get(details["type"])
    if template:
        return template.format_map(details.get("ctx", {}))
    return details["msg"]


def _near_field(path: Path, fields: list[str], document: type[BaseModel]) -> str:
    """A field of this section that is spelled alike, or else the path of one of that very name nearby."""
    *section, name = path
    same = [found for found in _paths(document) if found.rpartition(".")[2] == name]
    return _near(name, fields) or min(same, key=lambda found: _distance(found.split("."), section), default="")


def _distance(path: list[str], section: list[str]) -> tuple[bool, int]:
    return path[: len(section)] != section, len(path)


def _near_value(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    if details["type"] != "literal_error" or not isinstance(details["input"], str):
        return str(context.get("near", ""))
    choices = [choice.strip("'") for part in str(context["expected"]).split(" or ") for choice in part.split(", ")]
    return _near(details["input"], choices)


def _near(name: str, choices: Iterable[str]) -> str:
    by_letters = {choice.lower().replace("_", ""): choice for choice in choices}
    found = get_close_matches(name.lower().replace("_", ""), by_letters, n=1, cutoff=_LIKENESS)
    return by_letters[found[0]] if found else ""


def _did_you_mean(near: str) -> str:
    return f". Did you mean {near}?" if near else ""


def _paths(section: type[BaseModel], before: str = "") -> Iterator[str]:
    for field in section.model_fields.values():
        path = f"{before}{field.alias}"
        yield path
        inner = _section(field.annotation)
        if inner is not None:
            yield from _paths(inner, f"{path}.")


def _locate(location: tuple[int | str, ...], document: type[BaseModel]) -> tuple[Path, type[BaseModel] | None]:
    """The path in the document, and the section that holds its last part."""
    path: list[str] = []
    section: type[BaseModel] | None = None
    inner: type[BaseModel] | None = document
    for part in location:
        if part == "[key]":  # pydantic's mark of a key of a mapping that is wrong itself
            continue
        path.append(str(part))
        if isinstance(part, int):
            continue
        section = inner
        inner = _section(_annotation(section, part)) if section else None
    return tuple(path), section


def _annotation(section: type[BaseModel], alias: int | str) -> Any:
    return next((field.annotation for field in section.model_fields.values() if field.alias == alias), None)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section in an annotation such as `Section`, `Section | None` or `tuple[Section, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section(item) for item in get_args(annotation))
    return next((found for found in inner if found), None)


def _may_be_text(annotation: Any) -> bool:
    return annotation is str or any(_may_be_text(item) for item in get_args(annotation))
