"""The subset of the Prometheus text format that engines write.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

import re

from steps.ports.sglang import Metrics, Sample

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPED = re.compile(r"\\(.)")


def parse(text: str) -> Metrics:
    """Every sample except histogram buckets, which are unused here and most of the text.

    Raises ValueError for a line in another format: a page without metrics must not read as counters that did not move.
    """
    lines = (line.strip() for line in text.splitlines())
    read = (line for line in lines if line and not line.startswith("#") and "_bucket" not in line.partition("{")[0])
    return Metrics(tuple(_sample(line) for line in read))


def _sample(line: str) -> Sample:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"not a line of metrics: {line[:80]!r}")
    name, labels, value = match.groups()
    return Sample(name, _labels(labels or ""), float(value))


def _labels(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _LABEL.match(text, position)
        if match is None:
            raise ValueError(f"not labels of a metric: {text[:80]!r}")
        found[match[1]] = _ESCAPED.sub(lambda escape: {"n": "\n"}.get(escape[1], escape[1]), match[2])
        position = match.end()
    return found
