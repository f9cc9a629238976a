"""The part of expr-lang that our event bindings use, read as Argo reads it.

Operators, from loose to tight: `? :`, `??` and `||`, `&&`, comparisons, `+`. `matches` searches with RE2, and `string`
is Go's `fmt.Sprint`. https://expr-lang.org/docs/language-definition
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[A-Za-z_][A-Za-z0-9_]*|\?\?|\|\||&&|==|!=|[?:+()\[\]{}])')


class ExprError(Exception):
    """Argo would fail the call."""


def evaluate(expression: str, environment: Mapping[str, Any]) -> Any:
    reader = _Reader(_tokens(expression), environment)
    value = reader.choice()
    if reader.tokens:
        raise ExprError(f"unexpected {reader.tokens[0]} in {expression}")
    return value


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


def _tokens(expression: str) -> list[str]:
    found, at = [], 0
    while expression[at:].strip():
        match = _TOKEN.match(expression, at)
        if match is None:
            raise ExprError(f"cannot read {expression[at:]}")
        found.append(match[1])
        at = match.end()
    return found


@dataclass
class _Reader:
    """Evaluates while it reads. What is not chosen is evaluated too, which harms nobody here: nothing has effects."""

    tokens: list[str]
    environment: Mapping[str, Any]
    functions: Mapping[str, Callable[[Any], Any]] = field(
        default_factory=lambda: {"string": text_of, "toJSON": json.dumps, "fromJSON": json.loads}
    )

    def take(self, wanted: str = "") -> str:
        if not self.tokens or (wanted and self.tokens[0] != wanted):
            raise ExprError(f"expected {wanted or 'more'}, found {self.tokens[:1]}")
        return self.tokens.pop(0)

    def at(self, *tokens: str) -> bool:
        return bool(self.tokens) and self.tokens[0] in tokens

    def choice(self) -> Any:
        value = self.either()
        if not self.at("?"):
            return value
        self.take("?")
        chosen = self.choice()
        self.take(":")
        other = self.choice()
        return chosen if value else other

    def either(self) -> Any:
        value = self.both()
        while self.at("||", "??"):
            operator, other = self.take(), self.both()
            value = (other if value is None else value) if operator == "??" else (value or other)
        return value

    def both(self) -> Any:
        value = self.comparison()
        while self.at("&&"):
            self.take()
            other = self.comparison()
            value = value and other
        return value

    def comparison(self) -> Any:
        value = self.sum()
        while self.at("==", "!=", "matches"):
            operator, other = self.take(), self.sum()
            value = _compared(value, operator, other)
        return value

    def sum(self) -> Any:
        value = self.item()
        while self.at("+"):
            self.take()
            value += self.item()
        return value

    def item(self) -> Any:
        token = self.take()
        if token == "(":
            value = self.choice()
            self.take(")")
        elif token == "{":
            self.take("}")
            value = {}
        elif token.startswith('"'):
            value = json.loads(token)
        elif token in self.functions and self.at("("):
            self.take("(")
            value = self.functions[token](self.choice())
            self.take(")")
        else:
            value = self.environment.get(token)
        while self.at("["):
            self.take()
            key = self.choice()
            value = _member(value, key)
            self.take("]")
        return value


def _member(value: Any, key: Any) -> Any:
    if isinstance(value, Mapping):
        return value.get(key)
    raise ExprError(f"cannot fetch {key} from {type(value).__name__}")


def _compared(value: Any, operator: str, other: Any) -> bool:
    if operator == "matches":
        return re.search(other.replace("$", r"\Z"), value) is not None
    return bool((value == other) == (operator == "=="))
