"""How Argo fills in templates, of 3.5.15 and of 4.1.2: one pass over the JSON of an object, and as many as it makes.

Checked beside the project against `util/template` of both, on the texts of the tests and on many thousand made ones.
https://github.com/argoproj/argo-workflows/blob/v3.5.15/util/template/
https://github.com/argoproj/argo-workflows/blob/v4.1.2/util/template/
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal

from tests.support.expr_lang import ExprError, ExprSyntaxError, parsed, text_of, tokens

Version = Literal["3.5", "4.1"]
VERSIONS: tuple[Version, ...] = ("3.5", "4.1")

LONGEST = 100_000  # characters that `sprig.repeat` makes here; Argo has no limit, and 15 MB prove no more
# Names that later passes know. An expression that holds one waits for them.
# v3.5.15 expression_template.go:35-58, v4.1.2 expression_template.go:29-40
_LATE = {
    "3.5": ("retries", "workflow.status", "workflow.failures"),
    "4.1": ("item", "retries", "workflow.status", "workflow.failures"),
}


class SubstitutionError(Exception):
    """Argo puts the node, and so the run, into Error."""


def passes(spec: Any, values: Mapping[str, str], version: Version, count: int = 3) -> Any:
    """An object after `count` passes: each writes it as JSON, replaces in that text, and reads it again.

    v3.5.15 workflow/common/util.go:240-294, workflow/controller/workflowpod.go:507-527; 4.1.2 is alike.
    """
    for _ in range(count):
        spec = json.loads(replaced(_go_json(spec), values, version))
    return spec


def replaced(text: str, values: Mapping[str, str], version: Version) -> str:
    """v3.5.15 replace.go:9-29, v4.1.2 replace.go:48-69, with `allowUnresolved`, as the controller calls it for pods."""
    found = "".join(
        part if not is_tag else _filled_in(part, values, version) for part, is_tag in _parts(text, "{{", "}}")
    )
    try:
        json.loads(found)
    except ValueError as error:
        raise SubstitutionError(f"the result was invalid JSON: {error}") from error
    return found


def _parts(text: str, start: str, end: str) -> Iterator[tuple[str, bool]]:
    """Texts and tags in turn. github.com/valyala/fasttemplate v1.2.2, template.go:330-385 (Reset)"""
    while True:
        before, found, text = text.partition(start)
        yield before, False
        if not found:
            return
        tag, found, text = text.partition(end)
        if not found:
            raise SubstitutionError(f"cannot find end tag {end!r} from {tag[:60]!r}")
        yield tag, True


def _filled_in(tag: str, values: Mapping[str, str], version: Version) -> str:
    """What stands in place of `{{tag}}`; kind.go:22-29 tells the two kinds apart."""
    if tag.startswith("="):
        expression = tag[1:].replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&")
        return _evaluated(expression, values, version)
    if tag.strip() in values:
        return go_quoted(values[tag.strip()])
    # simple_template.go:18-25 of 3.5.15, 24-46 of 4.1.2: the innermost of nested tags
    outer, nested, inner = tag.rpartition("{{")
    if nested and outer and inner in values:
        return "{{" + outer + go_quoted(values[inner])
    return "{{" + tag + "}}"


def _evaluated(expression: str, values: Mapping[str, str], version: Version) -> str:
    """v3.5.15 expression_template.go:24-95, v4.1.2 expression_template.go:63-92 and 198-267"""
    unresolved = "{{=" + expression + "}}"
    try:
        unescaped = json.loads(f'"{expression}"')
        program = parsed(unescaped)
    except (ValueError, ExprSyntaxError) as error:
        if version == "4.1":
            raise SubstitutionError(f"failed to evaluate expression: {error}") from error
        return unresolved
    if any(name in _names(unescaped) and name not in values for name in _LATE[version]):
        return unresolved
    with suppress(ExprError):
        result = program(_environment(values))
        return unresolved if result is None else _result(result, version)
    return unresolved


def _result(result: Any, version: Version) -> str:
    """v3.5.15 writes it as `%v`, 4.1.2 as JSON."""
    if isinstance(result, str):
        return _go_json(result)[1:-1]
    if version == "4.1":
        return go_quoted(_go_json(result))
    return _go_json(str(result) if type(result) is int else text_of(result))[1:-1]


def _environment(values: Mapping[str, str]) -> dict[str, Any]:
    """`workflow.name` as a member of a member. v3.5.15 util/expand/expand.go, util/expr/env/env.go"""
    found: dict[str, Any] = {"sprig": {"repeat": _repeat}}
    for name, value in values.items():
        *path, last = name.split(".")
        section = found
        for key in path:
            section = section.setdefault(key, {})
        section[last] = value
    return found


def _repeat(count: Any, text: Any) -> str:
    if not isinstance(count, int) or not isinstance(text, str):
        raise ExprError("sprig.repeat takes a number and a text")
    return (text * count)[:LONGEST]


def _names(expression: str) -> set[str]:
    found = tokens(expression)
    return {*found, *("".join(found[at : at + 3]) for at in range(len(found)))}


def go_quoted(text: str) -> str:
    """Go's `strconv.Quote` without its quotes, which Argo takes for JSON. Go 1.23 strconv/quote.go:28-120"""
    return "".join(map(_go_quoted_character, text))


def _go_quoted_character(character: str) -> str:
    short = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    if character in short:
        return short[character]
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _go_json(content: Any) -> str:
    """Go's `json.Marshal`: without blanks, and with what HTML takes for its own, and two line ends, as escapes."""
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)
