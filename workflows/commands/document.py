"""`slipway check`, `render` and `rehearse`: everything about a document that needs no run on a cluster."""

import json
import re
import subprocess  # noqa: TID251  # a check is the step of a pod, in a process of its own as there
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from steps.document.schema import ModelService, load
from steps.errors import Blocked, DocumentError, Exit
from workflows import packages

CHECK_STEP = "check-platform"
# Areas of `--only`, and the beginnings of the codes of their checks (docs/reference/checks.md).
AREAS: Mapping[str, tuple[str, ...]] = {
    "cluster": ("API", "RBG", "CSI"),
    "oss": ("OSS", "KEY"),
    "hub": ("MOD",),
    "image": ("ENG",),
    "fabric": ("FAB",),
    "nodes": ("NOD", "GPU", "QUO"),
    "argo": ("ARG",),
}
_LINE = re.compile(r"(?P<state>ok|waiting|failed) +(?:(?P<code>[A-Z]{3}\d\d) )?(?P<text>.*)")


@dataclass(frozen=True)
class Check:
    """The arguments of `check`."""

    document: Path
    sets: tuple[str, ...] = ()
    offline: bool = False
    areas: tuple[str, ...] = ()  # empty: all
    as_json: bool = False


@dataclass(frozen=True)
class Finding:
    state: str  # ok, waiting or failed
    code: str  # of the check, such as GPU01; empty where the step itself ended
    text: str

    def __str__(self) -> str:
        return f"{self.state:<8} {self.code}{' ' if self.code else ''}{self.text}"


def check(asked: Check) -> int:
    """Print all findings. The exit code is that of the worst one; raises DocumentError for a wrong document as text."""
    try:
        service = load(asked.document, asked.sets)
    except DocumentError as error:
        if not asked.as_json:
            raise
        return _print_json((Finding("failed", "", str(error)),), Exit.DOCUMENT)
    if asked.offline:
        return _offline(asked, service)
    return _online(asked)


def areas(text: str) -> tuple[str, ...]:
    """The areas of `--only`. Raises ValueError for an unknown one."""
    found = tuple(filter(None, text.split(",")))
    unknown = [name for name in found if name not in AREAS]
    if unknown or not found:
        raise ValueError(f"found {', '.join(unknown) or 'no area'}, allowed are {', '.join(AREAS)}")
    return found


def findings(lines: Iterable[str], wanted: tuple[str, ...] = ()) -> Iterable[Finding]:
    """The findings in the output of the step, those of other areas than `wanted` left out."""
    codes = tuple(code for area in wanted for code in AREAS[area])
    for line in lines:
        match = _LINE.fullmatch(line.rstrip("\n"))
        if match and (not codes or not match["code"] or match["code"].startswith(codes)):
            yield Finding(match["state"], match["code"] or "", match["text"])


def render(document: Path, argo: str, folder: Path) -> int:
    """Write the manifests; print the files that changed and the commands that apply them."""
    from workflows.argo.bundle import write_bundle  # noqa: PLC0415  # hera alone costs half a second

    sys.stdout.writelines(f"{line}\n" for line in write_bundle(document, argo, folder))
    return Exit.DONE


def rehearse(document: Path | None, sets: tuple[str, ...], state: Path, port: int, *, keep: bool) -> int:
    """Run the pipeline on this machine. Raises Blocked if the embedded services cannot start."""
    from workflows import rehearsal  # noqa: PLC0415  # the simulator is for this verb alone
    from workflows.simulator.launch import RehearsalError  # noqa: PLC0415  # as above

    try:
        return rehearsal.run(rehearsal.Options(document, sets, state, port, keep=keep))
    except RehearsalError as error:
        raise Blocked(str(error)) from error


def schema() -> int:
    from workflows.argo.bundle import schema_text  # noqa: PLC0415  # as above

    sys.stdout.write(schema_text())
    return Exit.DONE


def _offline(asked: Check, service: ModelService) -> int:
    found = Finding("ok", "", f"the document of {service.name} is valid: {asked.document}")
    if asked.as_json:
        return _print_json((found,), Exit.DONE)
    sys.stdout.write(f"{found}\nNext: slipway check {asked.document}\n")
    return Exit.DONE


def _online(asked: Check) -> int:
    sets = (f"--set={one}" for one in asked.sets)
    words = packages.python("-m", "steps", CHECK_STEP, f"--document={asked.document}", *sets, "--check")
    shown: list[Finding] = []
    # Its log stays on stderr.
    with subprocess.Popen(words, env=packages.environment(), stdout=subprocess.PIPE, text=True) as step:  # noqa: S603  # our own module, never a shell
        assert step.stdout
        for finding in findings(step.stdout, asked.areas):
            shown.append(finding)
            if not asked.as_json:
                sys.stdout.write(f"{finding}\n")
                sys.stdout.flush()
    code = step.returncode
    if code == Exit.BLOCKED and not shown:
        raise Blocked(
            f"no finding about {', '.join(asked.areas) or 'any area'}: {CHECK_STEP} failed before or beside it",
            f"run all checks: slipway check {asked.document}",
        )
    if code == Exit.BLOCKED and all(finding.state != "failed" for finding in shown):
        code = Exit.DONE  # all that failed is in another area
    return _print_json(shown, code) if asked.as_json else _end(asked, shown, code)


def _end(asked: Check, shown: Iterable[Finding], code: int) -> int:
    states = [finding.state for finding in shown]
    counts = " ".join(f"{state}={states.count(state)}" for state in ("ok", "waiting", "failed"))
    after = f"slipway check {asked.document}" if code else f"slipway render {asked.document} -o DIR"
    sys.stdout.write(f"check: {counts}\nNext: {'correct the findings, then ' if code else ''}{after}\n")
    return code


def _print_json(shown: Iterable[Finding], code: int) -> int:
    sys.stdout.write(json.dumps({"findings": list(map(asdict, shown)), "exit": int(code)}, indent=2) + "\n")
    return code
