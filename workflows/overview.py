"""The verbs of `slipway` by group, as help and a command without a verb show them."""

from collections.abc import Mapping
from dataclasses import dataclass

from steps.errors import exit_codes


@dataclass(frozen=True)
class Verb:
    name: str
    operands: str
    does: str


GROUPS: Mapping[str, tuple[Verb, ...]] = {
    "document": (
        Verb("check", "DOC", "show all findings about a document and its platform; read-only"),
        Verb("render", "DOC -o DIR", "write the manifests, and print the commands that apply them"),
        Verb("rehearse", "[DOC]", "run the pipeline on this machine with embedded services"),
    ),
    "run": (
        Verb("submit", "NAME", "start a run on a cluster and follow it"),
        Verb("runs", "[NAME|RUN]", "list runs, or show one with its tasks"),
        Verb("logs", "RUN [TASK]", "print the logs of a run, or of one task"),
    ),
}
VERBS = {verb.name: verb for verbs in GROUPS.values() for verb in verbs}
DESCRIPTION = "From a ModelScope commit to a proven prefill/decode SGLang service on Kubernetes."
NEXT = "Next: slipway rehearse"
_OPTIONS = """options:
  -h, --help  show this help, or the help of a verb
  --version   show version and commit"""


def groups() -> str:
    """One paragraph for each group."""
    return "\n\n".join(f"{name}\n" + "\n".join(map(_line, verbs)) for name, verbs in GROUPS.items())


def overview() -> str:
    """Without a verb: the groups and the next command."""
    return f"{groups()}\n\n{NEXT}\n"


def full_help() -> str:
    parts = ("usage: slipway VERB ...", DESCRIPTION, groups(), _OPTIONS, exit_codes(), NEXT)
    return "\n\n".join(parts) + "\n"


def _line(verb: Verb) -> str:
    return f"  {verb.name + ' ' + verb.operands:<20}  {verb.does}"
