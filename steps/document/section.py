"""What every section of the document has in common, and the types of its texts."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        validate_default=True,
        defer_build=True,  # only the whole document is ever validated: building each section too would double the start
    )


@dataclass(frozen=True)
class Text:
    """Type of a text: its pattern, which an editor checks as well, and the same in words for the validation error."""

    pattern: str  # a regular expression that Python and ECMA-262 read alike
    allowed: str
    longest: int | None = None  # characters

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        longest = {"maxLength": self.longest} if self.longest else {}
        return {**handler(schema), "pattern": self.pattern, **longest}

    def _checked(self, found: str) -> str:
        if not re.search(self.pattern, found) or found.endswith("\n") or len(found) > (self.longest or len(found)):
            at_most = f", at most {self.longest} characters" if self.longest else ""
            raise PydanticCustomError("text", "{allowed}", {"allowed": f"{self.allowed}{at_most}"})
        return found


def _as_tuple(found: object) -> object:
    return tuple(found) if isinstance(found, list) else found


AsTuple = BeforeValidator(_as_tuple)  # YAML has lists, and a frozen section has none
# A DNS label. https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names
Name = Annotated[
    str,
    Text(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "lower-case letters, digits and dashes, with a letter or digit at both ends",
        longest=63,
    ),
]
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
LabelKey = Annotated[
    str,
    Text(
        r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
        "the key of a label: letters, digits, dashes, underscores and dots, with an optional domain and slash before",
        longest=317,
    ),
]
LabelValue = Annotated[
    str,
    Text(
        r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        "the value of a label: letters, digits, dashes, underscores and dots",
        longest=63,
    ),
]
