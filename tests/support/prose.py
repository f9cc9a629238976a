"""Rates of four patterns that hide nouns, over pages, docstrings, comments, field descriptions and help texts.

`python -m tests.support.prose` prints them, lists the files with the most places above a limit, and ends with 1 then.
`--all` lists every place. The reasons are in docs/decisions/0012-prose-is-counted.md.
"""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = ("steps", "workflows", "images")
PAGES = (*CODE, "docs", "manifests")
SHOWN_FILES, SHOWN_PLACES = 5, 20
_AFTER_WHAT = (
    "is|it|was|were|are|has|have|had|the|a|an|they|he|we|this|that|may|must|can|serves?|differs?|changes?|fails?|"
    "follows?|runs?|waits?|needs?|[a-z]+s"
)


@dataclass(frozen=True)
class Limit:
    """At most `rate` matches of `pattern` in 1,000 words."""

    name: str
    pattern: re.Pattern[str]
    rate: float


LIMITS = (
    Limit("clauses as nouns", re.compile(rf"\b(?:what|who|whom)\s+(?:{_AFTER_WHAT})\b"), 1.5),
    Limit("whoever, whatever, whose", re.compile(r"\b(?:whoever|whatever|whichever|whose|whomever)\b"), 1.0),
    Limit("nobody, somebody, nothing", re.compile(r"\b(?:nobody|somebody|nothing|everybody)\b"), 2.0),
    Limit("look, tell, say", re.compile(r"\b(?:look|looks|looked|tell|tells|told|say|says|said)\b"), 3.0),
)


@dataclass(frozen=True)
class Text:
    """A text for people, in lower case and without code; `line` is its first one in the file."""

    file: str
    line: int
    words: str

    @classmethod
    def of(cls, file: str, line: int, found: str) -> "Text":
        return cls(file, line, re.sub(r"`[^`]*`", _blank, found).lower())

    def matches(self, pattern: re.Pattern[str]) -> Iterator[str]:
        """Each match as `file:line: words around it`."""
        for match in pattern.finditer(self.words):
            line = self.line + self.words.count("\n", 0, match.start())
            around = self.words[max(0, match.start() - 30) : match.end() + 30]
            yield f"{self.file}:{line}: {' '.join(around.split())}"


def _blank(code: re.Match[str]) -> str:
    """Code counts as one word and keeps its lines."""
    return " x " + "\n" * code.group().count("\n")


def in_page(file: str, source: str) -> Iterator[Text]:
    yield Text.of(file, 1, re.sub(r"^```.*?^```", _blank, source, flags=re.DOTALL | re.MULTILINE))


def in_code(file: str, source: str) -> Iterator[Text]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if docstring := ast.get_docstring(node, clean=False):
                    yield Text.of(file, node.body[0].lineno, docstring)
            case ast.keyword(arg="description" | "help", value=ast.Constant(value=str(text), lineno=line)):
                yield Text.of(file, line, text)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and "noqa" not in token.string:
            yield Text.of(file, token.start[0], token.string)


def texts(root: Path) -> Iterator[Text]:
    pages = [*root.glob("*.md"), *(page for room in PAGES for page in (root / room).rglob("*.md"))]
    for page in sorted(pages):
        yield from in_page(str(page.relative_to(root)), page.read_text(encoding="utf-8"))
    for module in sorted(module for room in CODE for module in (root / room).rglob("*.py")):
        yield from in_code(str(module.relative_to(root)), module.read_text(encoding="utf-8"))


def report(found: Iterable[Text], *, every: bool = False) -> tuple[list[str], bool]:
    """Lines for people, and whether every rate is within its limit."""
    known = list(found)
    words = sum(len(re.findall(r"[a-z']+", text.words)) for text in known)
    lines, within = [], True
    for limit in LIMITS:
        places = [place for text in known for place in text.matches(limit.pattern)]
        rate = 1000 * len(places) / max(words, 1)
        lines.append(f"{limit.name}: {rate:.1f} per 1,000 of {words} words, at most {limit.rate}")
        within = within and rate <= limit.rate
        if every or rate > limit.rate:
            lines.extend(f"  {place}" for place in (places if every else _worst(places)))
    return lines, within


def _worst(places: list[str]) -> list[str]:
    """Places of the files with the most of them."""
    files = Counter(place.partition(":")[0] for place in places)
    worst = [file for file, _ in files.most_common(SHOWN_FILES)]
    return [place for file in worst for place in places if place.startswith(f"{file}:")][:SHOWN_PLACES]


def main() -> int:
    lines, within = report(texts(ROOT), every="--all" in sys.argv)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
