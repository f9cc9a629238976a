"""The arguments of `python -m steps STEP`: each step takes the options that it uses, and no others."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
SENTENCES: Mapping[str, str] = {
    "resolve-model": "Pin the files of the model by one digest, and the overrides in force.",
    "check-release": "Is this exact release deployed and verified?",
    "check-platform": "Check hub, bucket, cluster, fabric and nodes; read-only.",
    "create-scratch": "Claim the scratch volume of a run.",
    "download-model": "Copy the files from the hub to the scratch volume, verified.",
    "upload-model": "Copy the files from the scratch volume to the bucket, verified, the manifest last.",
    "mirror-model": "Copy the files from the hub to the bucket in one stream, verified, the manifest last.",
    "verify-model": "Read the files in the bucket again and compare every byte.",
    "create-volume": "Create Secret, volume and claim over the verified files.",
    "roll-out-service": "Start the release and wait until its own pods are ready.",
    "smoke-test": "Prove the release with real inference on every pair of workers.",
    "promote-release": "Move the traffic to the proved release, record it and remove old ones.",
    "roll-back": "Restore the recorded release and remove the failed one.",
    "report-run": "Report the result of a run to its targets.",
}
# Options that only some steps take, and those steps.
PINNED = ("parameter", "overrides", "model-digest")
WRITER = (*PINNED, "run-name", "record-counter")
AT_EXIT = ("run-name", "run-status")
TAKEN: Mapping[str, tuple[str, ...]] = {
    "resolve-model": ("parameter", "run-name"),
    "check-platform": (*PINNED, "run-name"),
    "create-scratch": (*PINNED, "run-name", "run-uid"),
    "download-model": (*PINNED, "scratch"),
    "upload-model": (*PINNED, "scratch"),
    "mirror-model": (*PINNED, "shard"),
    "verify-model": PINNED,
    "smoke-test": PINNED,
    "promote-release": (*WRITER, "proved-release"),
    "roll-back": AT_EXIT,
    "report-run": AT_EXIT,
}
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
    for name, sentence in SENTENCES.items():
        step = steps.add_parser(
            name,
            help=sentence,
            description=sentence,
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
    taken = TAKEN.get(step, WRITER)
    for name, option in OPTIONS.items():
        if name in taken:
            parser.add_argument(f"--{name}", **option)
        else:
            parser.set_defaults(**{name.replace("-", "_"): option.get("default")})
    parser.add_argument("--outputs", type=Path, metavar="DIR", help="folder for the outputs, one file each")
    parser.add_argument("--check", action="store_true", help="show the plan and change nothing")
    parser.add_argument("--diff", action="store_true", help="show each object before and after")
    parser.add_argument("--verbose", action="store_true", help="log more to stderr")
