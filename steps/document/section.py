"""What every section of the document has in common."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
        validate_default=True,
        defer_build=True,  # only the whole document is ever validated: building each section too would double the start
    )


def _as_tuple(found: object) -> object:
    return tuple(found) if isinstance(found, list) else found


AsTuple = BeforeValidator(_as_tuple)  # YAML has lists, and a frozen section has none
Strings = Annotated[tuple[str, ...], AsTuple]
# A DNS label. https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
