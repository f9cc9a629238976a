"""The part of expr-lang that our event bindings use, and what a hostile text may hold, read as Argo reads it.

Operators, from loose to tight: `? :`, `??` and `||`, `&&`, comparisons, `+`. `matches` searches with RE2, and `string`
is Go's `fmt.Sprint`. An expression is read as a whole before any of it is evaluated, so a mistake in its grammar is
told from one in its values. https://expr-lang.org/docs/language-definition
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_TEXT = r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'"""
_TOKEN = re.compile(
    rf"\s*({_TEXT}|[A-Za-z_$][A-Za-z0-9_$]*|\d+(?![.\dA-Za-z_$])|\?\?|\|\||&&|==|!=|[?:+()\[\]{{}},]|\.(?!\.))"
)
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")

Value = Callable[[], Any]


class ExprError(Exception):
    """Argo would fail the call."""


class ExprSyntaxError(ExprError):
    """It is no expression at all."""


def evaluate(expression: str, environment: Mapping[str, Any]) -> Any:
    return parsed(expression, environment)()


def parsed(expression: str, environment: Mapping[str, Any]) -> Value:
    """What evaluates it. Raises ExprSyntaxError."""
    reader = _Reader(tokens(expression), environment)
    value = reader.choice()
    if reader.tokens:
        raise ExprSyntaxError(f"unexpected {reader.tokens[0]} in {expression}")
    return value


def tokens(expression: str) -> list[str]:
    found, at = [], 0
    while expression[at:].strip():
        match = _TOKEN.match(expression, at)
        if match is None:
            raise ExprSyntaxError(f"cannot read {expression[at:]}")
        found.append(match[1])
        at = match.end()
    return found


def text_of(value: Any) -> str:
    """Go's `fmt.Sprint` of what JSON can hold."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return _number(float(value))
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{text_of(value[key])}" for key in sorted(value)) + "]"
    return "[" + " ".join(map(text_of, value)) + "]" if isinstance(value, list) else str(value)


def _number(value: float) -> str:
    """`%v` is `%g` with the shortest digits, which Python finds as well, and an exponent from a million on."""
    sign, digits, power = Decimal(repr(value)).normalize().as_tuple()
    exponent = len(digits) - 1 + int(power)
    if value == 0 or -5 < exponent < 6:
        return f"{value:.0f}" if value == int(value) else repr(value)
    first, *rest = map(str, digits)
    return f"{'-' * sign}{first}{'.' if rest else ''}{''.join(rest)}e{exponent:+03d}"


_BUILT_IN: Mapping[str, Callable[..., Any]] = {"string": text_of, "toJSON": json.dumps, "fromJSON": json.loads}


@dataclass
class _Reader:
    tokens: list[str]
    environment: Mapping[str, Any]

    def take(self, wanted: str = "") -> str:
        if not self.tokens or (wanted and self.tokens[0] != wanted):
            raise ExprSyntaxError(f"expected {wanted or 'more'}, found {self.tokens[:1]}")
        return self.tokens.pop(0)

    def at(self, *found: str) -> bool:
        return bool(self.tokens) and self.tokens[0] in found

    def choice(self) -> Value:
        value = self.either()
        if not self.at("?"):
            return value
        self.take("?")
        chosen = self.choice()
        self.take(":")
        other = self.choice()
        return lambda: chosen() if value() else other()

    def either(self) -> Value:
        value = self.both()
        while self.at("||", "??"):
            value = _joined(value, self.take(), self.both())
        return value

    def both(self) -> Value:
        value = self.comparison()
        while self.at("&&"):
            value = _joined(value, self.take(), self.comparison())
        return value

    def comparison(self) -> Value:
        value = self.sum()
        while self.at("==", "!=", "matches"):
            value = _joined(value, self.take(), self.sum())
        return value

    def sum(self) -> Value:
        value = self.item()
        while self.at("+"):
            value = _joined(value, self.take(), self.item())
        return value

    def item(self) -> Value:
        value = self.first()
        while self.at("[", ".", "("):
            opened = self.take()
            if opened == "(":
                value = _called(value, self.arguments())
            elif opened == ".":
                name = self.take()
                if not _NAME.fullmatch(name):
                    raise ExprSyntaxError(f"unexpected {name} behind a point")
                value = _member(value, _constant(name))
            else:
                value = _member(value, self.choice())
                self.take("]")
        return value

    def first(self) -> Value:
        token = self.take()
        if token == "(":
            value = self.choice()
            self.take(")")
            return value
        if token == "{":
            self.take("}")
            return dict
        if token[0] in "\"'":
            return _constant(_unquoted(token))
        if token.isdigit():
            return _constant(int(token))
        if not _NAME.fullmatch(token):
            raise ExprSyntaxError(f"unexpected {token}")
        return lambda: self.environment[token] if token in self.environment else _BUILT_IN.get(token)

    def arguments(self) -> list[Value]:
        found: list[Value] = []
        while not self.at(")"):
            if found:
                self.take(",")
            found.append(self.choice())
        self.take(")")
        return found


def _constant(value: Any) -> Value:
    return lambda: value


def _unquoted(token: str) -> str:
    inner = token[1:-1]
    if token[0] == "'":
        inner = inner.replace("\\'", "'").replace('"', '\\"')
    try:
        return str(json.loads(f'"{inner}"', strict=False))
    except ValueError as error:
        raise ExprSyntaxError(f"cannot read {token}") from error


def _called(function: Value, arguments: list[Value]) -> Value:
    def call() -> Any:
        found = function()
        if not callable(found):
            raise ExprError(f"{found!r} cannot be called")
        try:
            return found(*(argument() for argument in arguments))
        except (TypeError, ValueError) as error:
            raise ExprError(str(error)) from error

    return call


def _member(value: Value, key: Value) -> Value:
    def fetch() -> Any:
        found = value()
        if isinstance(found, Mapping):
            return found.get(key())
        raise ExprError(f"cannot fetch {key()} from {type(found).__name__}")

    return fetch


def _joined(one: Value, operator: str, other: Value) -> Value:
    def joined() -> Any:
        value = one()
        if operator == "??":
            return other() if value is None else value
        if operator == "||":
            return value or other()
        if operator == "&&":
            return value and other()
        return _combined(value, operator, other())

    return joined


def _combined(value: Any, operator: str, other: Any) -> Any:
    if operator == "+":
        if type(value) is not type(other) or not isinstance(value, (str, int)) or isinstance(value, bool):
            raise ExprError(f"cannot add {type(other).__name__} to {type(value).__name__}")
        return value + other
    if operator == "matches":
        return re.search(other.replace("$", r"\Z"), value) is not None
    return bool((value == other) == (operator == "=="))
