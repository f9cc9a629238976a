"""The arguments of `python -m steps STEP`: each step takes the options that it uses, and no others."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steps.catalogue import CATALOGUE
from steps.document.overrides import InForce, of_text
from steps.errors import exit_codes
from steps.model import MalformedDigestError, ModelDigest


def _digest(text: str) -> ModelDigest:
    try:
        return ModelDigest(text)
    except MalformedDigestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _overrides(text: str) -> tuple[InForce, ...]:
    try:
        return of_text(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _shard(text: str) -> int | None:
    return None if text == "all" else int(text)


VERB = "slipway step"  # the name of this program when `slipway` runs it
# Options of some steps; the entry of a step in the catalogue names those that it takes.
OPTIONS: Mapping[str, dict[str, Any]] = {
    "parameter": {
        "action": "append",
        "default": [],
        "metavar": "NAME=VALUE",
        "help": "parameter of the run, such as image=…, inherited by later runs once it is promoted; document: as in "
        "the document; empty: as inherited; may repeat",
    },
    "overrides": {
        "type": _overrides,
        "metavar": "TEXT",
        "help": "the overrides in force, an output of resolve-model; document: none. Default: those of the release "
        "record; none for a transfer",
    },
    "model-digest": {
        "type": _digest,
        "metavar": "sha256:…",
        "help": "the digest that resolve-model pinned",
    },
    "proved-release": {"default": "", "metavar": "ID", "help": "the release that smoke-test proved, an output of it"},
    "scratch": {"type": Path, "default": Path("/scratch"), "metavar": "DIR", "help": "scratch volume of a transfer"},
    "shard": {
        "type": _shard,
        "metavar": "NUMBER",
        "help": "move only the files of this shard, from 0 to transfer.shards - 1; all (the default): move the other "
        "files as well, and write the manifest",
    },
    "run-name": {
        "default": "",
        "metavar": "RUN",
        "help": "name of the run that changes the service; default: this step",
    },
    "run-status": {"default": "", "help": "Succeeded, Failed or Error; default: started by hand"},
    "run-uid": {"default": "", "help": "uid of the Workflow that owns the claim"},
    "record-counter": {
        "type": int,
        "metavar": "NUMBER",
        "help": "counter of the release record that resolve-model read: the step changes nothing once another run has "
        "raised it; default: any",
    },
}


def parser(arguments: list[str]) -> argparse.ArgumentParser:
    """The steps; options only of a step that `arguments` name, since a pod runs one of them and pays for its start."""
    found = argparse.ArgumentParser(
        prog=VERB if sys.argv[0] == VERB else "python -m steps",
        description="Run one step of the pipeline: observe, plan, apply only what differs, report.",
        epilog=exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = found.add_subparsers(dest="step", required=True, metavar="STEP", title="steps")
    for name, spec in CATALOGUE.items():
        step = steps.add_parser(
            name,
            help=spec.description,
            description=spec.description,
            epilog=exit_codes(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in arguments:
            _add_options(step, name)
    return found


def _add_options(parser: argparse.ArgumentParser, step: str) -> None:
    parser.add_argument("--document", type=Path, required=True, metavar="FILE", help="the ModelService document")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change one field of the document for this step alone; may repeat. No later run inherits it",
    )
    for name, option in OPTIONS.items():
        if name in CATALOGUE[step].options:
            parser.add_argument(f"--{name}", **option)
        else:
            parser.set_defaults(**{name.replace("-", "_"): option.get("default")})
    parser.add_argument("--outputs", type=Path, metavar="DIR", help="folder for the outputs, one file each")
    parser.add_argument("--check", action="store_true", help="show the plan and change nothing")
    parser.add_argument("--diff", action="store_true", help="show each object before and after")
    parser.add_argument("--verbose", action="store_true", help="log more to stderr")
