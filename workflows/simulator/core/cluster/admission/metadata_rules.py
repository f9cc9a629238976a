"""Rules for the metadata of every object.

https://github.com/kubernetes/apimachinery/blob/master/pkg/util/validation/validation.go
"""

import re
from collections.abc import Iterator
from typing import Any

from workflows.simulator.core.cluster import resources as kinds
from workflows.simulator.core.cluster.errors import Cause, invalid_value
from workflows.simulator.core.cluster.resources import Resource

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_SERVICE_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY_NAME = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = rf"({_KEY_NAME})?"
_LONGEST_LABEL = 63
_LONGEST_NAME = 253
_PATH_NAMES = frozenset({"roles", "rolebindings", "clusterroles", "clusterrolebindings"})  # any URL segment will do


def metadata_errors(resource: Resource, metadata: dict[str, Any]) -> Iterator[Cause]:
    name = metadata.get("name", "")
    if name:
        yield from _name_errors(resource, name)
    for key, value in (metadata.get("labels") or {}).items():
        yield from _key_errors("metadata.labels", key)
        if not _fits(_VALUE, value, _LONGEST_LABEL):
            yield invalid_value(
                "metadata.labels",
                f'"{value}"',
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
                f"must start and end with an alphanumeric character, at most {_LONGEST_LABEL} characters",
            )
    for key in metadata.get("annotations") or {}:
        yield from _key_errors("metadata.annotations", key.lower())


def _name_errors(resource: Resource, name: str) -> Iterator[Cause]:
    if resource.plural in _PATH_NAMES:
        return
    if resource.key == kinds.SERVICES.key:
        rule, what, longest = _SERVICE_NAME, "a DNS-1035 label", _LONGEST_LABEL
    elif resource.key == kinds.NAMESPACES.key:
        rule, what, longest = _LABEL, "a lowercase RFC 1123 label", _LONGEST_LABEL
    else:
        rule, what, longest = _SUBDOMAIN, "a lowercase RFC 1123 subdomain", _LONGEST_NAME
    if not _fits(rule, name, longest):
        yield invalid_value(
            "metadata.name",
            f'"{name}"',
            f"{what} must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
            f"alphanumeric character (regex used for validation is '{rule}'), at most {longest} characters",
        )


def _key_errors(field: str, key: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if (slash and not _fits(_SUBDOMAIN, prefix, _LONGEST_NAME)) or not _fits(_KEY_NAME, name, _LONGEST_LABEL):
        yield invalid_value(
            field,
            f'"{key}"',
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            f"alphanumeric character, at most {_LONGEST_LABEL} characters; an optional DNS subdomain and '/' before it",
        )


def _fits(rule: str, text: Any, longest: int) -> bool:
    return isinstance(text, str) and len(text) <= longest and re.fullmatch(rule, text) is not None
