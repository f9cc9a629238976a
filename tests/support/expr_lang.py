"""The part of expr-lang that our manifests use, and what a hostile text may hold, read as Argo reads it.

Argo 3.5.15 has v1.17.5 of it, 4.1.2 v1.17.8. An expression is read as a whole before any of it is evaluated, so a
mistake in its grammar is told from one in its values.

Operators, from loose to tight: `? :`, `??` and `||`, `&&`, comparisons, `+`. `matches` searches with RE2. `#` is the
item of a closure. `tests/recorded/argo/expr.json` holds what the real library answered.
https://expr-lang.org/docs/language-definition
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_TEXT = r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'"""
_TOKEN = re.compile(
    rf"\s*({_TEXT}|[A-Za-z_$][A-Za-z0-9_$]*|\d+(?:\.\d+)?(?:e\d+)?(?![.\dA-Za-z_$])"
    r"|\?\?|\|\||&&|==|!=|[<>?:+,;=#()\[\]{}]|\.(?!\.))"
)
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
Node = Callable[[Mapping[str, Any]], Any]  # an expression, given what its names stand for

_LEVELS = (("||", "??"), ("&&",), ("==", "!=", "<", ">", "matches", "in", "not"), ("+",))


class ExprError(Exception):
    """Argo would fail the call."""


class ExprSyntaxError(ExprError):
    """It is no expression at all."""


def evaluate(expression: str, environment: Mapping[str, Any]) -> Any:
    return parsed(expression)(environment)


def parsed(expression: str) -> Node:
    """Raises ExprSyntaxError."""
    reader = _Reader(tokens(expression))
    program = reader.sequence()
    if reader.tokens:
        raise ExprSyntaxError(f"unexpected {reader.tokens[0]} in {expression}")
    return program


def text_of(value: Any) -> str:
    """Go's `fmt.Sprint` of what JSON can hold."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{text_of(value[key])}" for key in sorted(value)) + "]"
    return "[" + " ".join(map(text_of, value)) + "]" if isinstance(value, list) else str(value)


def received(payload: Any) -> Any:
    """A payload as Go has it: every number is a double."""
    return json.loads(json.dumps(payload), parse_int=float)


def _number(value: float) -> str:
    """`%v` is `%g` with the shortest digits, which Python finds as well, and an exponent from a million on."""
    sign, digits, power = Decimal(repr(value)).normalize().as_tuple()
    exponent = len(digits) - 1 + int(power)
    if value == 0 or -5 < exponent < 6:
        return f"{value:.0f}" if value == int(value) else repr(value)
    first, *rest = map(str, digits)
    return f"{'-' * sign}{first}{'.' if rest else ''}{''.join(rest)}e{exponent:+03d}"


def tokens(expression: str) -> list[str]:
    found, at = [], 0
    while expression[at:].strip():
        match = _TOKEN.match(expression, at)
        if match is None:
            raise ExprSyntaxError(f"cannot read {expression[at:]}")
        found.append(match[1])
        at = match.end()
    return found


@dataclass
class _Reader:
    tokens: list[str]

    def take(self, wanted: str = "") -> str:
        if not self.tokens or (wanted and self.tokens[0] != wanted):
            raise ExprSyntaxError(f"expected {wanted or 'more'}, found {self.tokens[:1]}")
        return self.tokens.pop(0)

    def at(self, *tokens: str) -> bool:
        return bool(self.tokens) and self.tokens[0] in tokens

    def sequence(self) -> Node:
        """`let name = value; …`"""
        if not self.at("let"):
            return self.choice()
        self.take()
        name = self.take()
        self.take("=")
        value = self.choice()
        self.take(";")
        rest = self.sequence()
        return lambda names: rest({**names, name: value(names)})

    def choice(self) -> Node:
        condition = self.operation(0)
        if not self.at("?"):
            return condition
        self.take("?")
        chosen = self.choice()
        self.take(":")
        other = self.choice()
        return lambda names: chosen(names) if condition(names) else other(names)

    def operation(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self.item()
        value = self.operation(level + 1)
        while self.at(*_LEVELS[level]):
            operator = self.take()
            if operator == "not":
                operator += " " + self.take("in")
            value = _operation(value, operator, self.operation(level + 1))
        return value

    def item(self) -> Node:
        value = self.first()
        while self.at("[", ".", "("):
            opened = self.take()
            value = _called(value, self.items(")")) if opened == "(" else self.member(opened, value)
        return value

    def first(self) -> Node:  # noqa: PLR0911  # one for each kind of item
        token = self.take()
        if token == "(":
            value = self.choice()
            self.take(")")
            return value
        if token == "[":
            items = self.items("]")
            return lambda names: [item(names) for item in items]
        if token == "{":
            self.take("}")
            return lambda _: {}
        if token[0] in "\"'":
            return _constant(_unquoted(token))
        if token[0].isdigit():
            return _constant(float(token) if set(token) & set(".e") else int(token))
        if token in ("map", "filter") and self.at("("):
            self.take()
            return _over(token, *self.items(")"))
        if token != "#" and not _NAME.fullmatch(token):
            raise ExprSyntaxError(f"unexpected {token}")
        return lambda names: names[token] if token in names else _FUNCTIONS.get(token)

    def items(self, end: str) -> list[Node]:
        found: list[Node] = []
        while not self.at(end):
            found.append(self.choice())
            if not self.at(end):
                self.take(",")
        self.take(end)
        return found

    def member(self, opened: str, value: Node) -> Node:
        if opened == ".":
            name = self.take()
            if not _NAME.fullmatch(name):
                raise ExprSyntaxError(f"unexpected {name} behind a point")
            return lambda names: _fetch(value(names), name)
        if self.at(":"):
            self.take()
            stop = self.choice()
            self.take("]")
            return lambda names: value(names)[: stop(names)]
        key = self.choice()
        self.take("]")
        return lambda names: _fetch(value(names), key(names))


def _unquoted(token: str) -> str:
    inner = token[1:-1]
    if token[0] == "'":
        inner = inner.replace("\\'", "'").replace('"', '\\"')
    try:
        return str(json.loads(f'"{inner}"', strict=False))
    except ValueError as error:
        raise ExprSyntaxError(f"cannot read {token}") from error


def _constant(value: Any) -> Node:
    return lambda _: value


def _operation(left: Node, operator: str, right: Node) -> Node:
    if operator == "&&":
        return lambda names: left(names) and right(names)
    if operator == "||":
        return lambda names: left(names) or right(names)
    if operator == "??":
        return lambda names: right(names) if (found := left(names)) is None else found
    return lambda names: _compared(left(names), operator, right(names))


def _compared(value: Any, operator: str, other: Any) -> Any:
    try:
        if operator == "+":
            if type(value) is not type(other) or not isinstance(value, (str, int, float)) or isinstance(value, bool):
                raise ExprError(f"cannot add {type(other).__name__} to {type(value).__name__}")
            return value + other
        if operator == "matches":
            return re.search(other.replace("$", r"\Z"), value) is not None
        if operator in ("in", "not in"):
            return (value in other) == (operator == "in")
        if operator in ("<", ">"):
            return value < other if operator == "<" else value > other
    except (TypeError, AttributeError) as error:
        raise ExprError(str(error)) from error
    return bool((value == other) == (operator == "=="))


def _fetch(value: Any, key: Any) -> Any:
    if isinstance(value, Mapping):
        return value.get(key)
    raise ExprError(f"cannot fetch {key} from {type(value).__name__}")


def _called(function: Node, arguments: list[Node]) -> Node:
    def call(names: Mapping[str, Any]) -> Any:
        found = function(names)
        if not callable(found):
            raise ExprError(f"{found!r} cannot be called")
        try:
            return found(*(argument(names) for argument in arguments))
        except (TypeError, ValueError) as error:
            raise ExprError(str(error)) from error

    return call


def _over(name: str, items: Node, closure: Node) -> Node:
    def over(names: Mapping[str, Any]) -> list[Any]:
        found = [(item, closure({**names, "#": item})) for item in items(names)]
        return [result for _, result in found] if name == "map" else [item for item, kept in found if kept]

    return over


def _type(value: Any) -> str:
    names = {str: "string", bool: "bool", float: "float", int: "int", list: "array", dict: "map", type(None): "nil"}
    return names[type(value)]


def _json(value: Any) -> str:
    """As encoding/json writes it: whole numbers below 1e21 have no exponent, and one of one digit has no zero."""
    text = json.dumps(_digits(value), indent=2, ensure_ascii=False)
    return text.replace("e-0", "e-") if isinstance(value, float) else text


def _digits(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _digits(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_digits(inner) for inner in value]
    return int(value) if isinstance(value, float) and abs(value) < 1e21 and value == int(value) else value


def _int(value: Any) -> int:
    if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9]+", value):
        raise ExprError(f"invalid operation: int({value})")
    return int(value)


def _keys(value: Any) -> list[str]:
    if not isinstance(value, Mapping):
        raise ExprError(f"cannot get keys from {type(value).__name__}")
    return list(value)


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "string": text_of,
    "toJSON": _json,
    "fromJSON": lambda text: json.loads(text, parse_int=float),
    "type": _type,
    "int": _int,
    "abs": abs,
    "len": len,
    "keys": _keys,
    "split": lambda text, _separator: list(text),
    "join": lambda items, separator: separator.join(items),
}
