"""Quantities as Kubernetes writes them.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_FACTORS = {"": 1, "m": 1e-3, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_FACTORS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_CPU = rf"^{_NUMBER}m?$"
_SIZE = rf"^{_NUMBER}(?:k|[KMGTPE]i|[MGTPE])$"
_PART = r"^[1-9][0-9]*(?:Mi|Gi)$"
LARGEST_PART = 2**30  # bytes


def quantity(text: Any) -> float:
    """A quantity as a number: "200m" is 0.2, "48Gi" is 51539607552, and a text that is no quantity is 0."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    return float(match[1]) * _FACTORS[match[2]] if match and match[2] in _FACTORS else 0.0


def _cpu(found: str) -> str:
    if not re.match(_CPU, found):
        raise PydanticCustomError("cpu", "a number of CPUs such as 12 or 500m")
    return found


def _size(found: str) -> str:
    if re.match(_SIZE, found):
        return found
    raise PydanticCustomError("size", "a size such as 48Gi or 512G{instead}", {"instead": _instead(found)})


def _part(found: str) -> str:
    if not re.match(_PART, found) or quantity(found) > LARGEST_PART:
        raise PydanticCustomError("part_size", "whole Mi or Gi, from 1Mi to 1Gi")
    return found


def _instead(found: str) -> str:
    """For `512GB`, `512 gb`, `512GiB` and `512`: how Kubernetes writes it."""
    match = re.fullmatch(rf"({_NUMBER})\s*(?:([kmgtpe])(i?)b?)?", found, re.IGNORECASE)
    if match is None:
        return ""
    number, letter, binary = match[1], (match[2] or "g").upper(), match[3]
    decimal = "k" if letter == "K" else letter
    return f": write {number}{letter}i" if binary else f": write {number}{letter}i or {number}{decimal}"


Cpu = Annotated[str, AfterValidator(_cpu), WithJsonSchema({"type": "string", "pattern": _CPU})]
Size = Annotated[str, AfterValidator(_size), WithJsonSchema({"type": "string", "pattern": _SIZE})]
PartSize = Annotated[str, AfterValidator(_part), WithJsonSchema({"type": "string", "pattern": _PART})]
