"""Does the engine image hold the SGLang that the document expects, as far as the image says it?

SGLang's own Dockerfile sets no variable and no label; its build argument SGL_VERSION (docker/Dockerfile at 0.5.5, after
FROM) is what BuildKit writes into the history. Images built on it set SGLANG_VERSION, as the runtime image of NVIDIA
Dynamo does. No configuration of a published image was recorded here, so what says nothing stays unchecked.
The label `org.opencontainers.image.version` is no source: images inherit that of Ubuntu, 22.04.
"""

import re
from collections.abc import Mapping
from typing import Any

from steps.checks.facts import PlatformFacts
from steps.checks.findings import Finding, Refusal, Well, Wrong
from steps.release import Release

VARIABLE = "SGLANG_VERSION"
_BUILD_ARGUMENT = re.compile(r"\bARG SGL_VERSION=(\S+)")
_VERSION = re.compile(r"v?(\d+\.\d+\.\d+(?:rc\d+|\.post\d+)?)")


def said_version(config: Mapping[str, Any]) -> str:
    """The version in the configuration of an image; empty if it says none, or none that is a release."""
    try:
        return _said_version(config)
    except (AttributeError, TypeError):  # whoever pushed the image wrote it
        return ""


def _said_version(config: Mapping[str, Any]) -> str:
    variables = dict(entry.partition("=")[::2] for entry in (config.get("config") or {}).get("Env") or ())
    steps = (str(step.get("created_by", "")) for step in config.get("history") or ())
    built = [match[1] for step in steps if (match := _BUILD_ARGUMENT.search(step))]
    found = _VERSION.fullmatch(variables.get(VARIABLE) or (built[-1] if built else ""))
    return found[1] if found else ""


def engine_version(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """A version that the image says is the one that flags and probes were rendered for. Silence is no fault."""
    serving, said = release.service.serving, facts.engine
    if isinstance(said, Refusal):
        return (Well(f"the SGLang inside {serving.image} is not checked: {said.reason}"),)
    if not said:
        return (Well(f"the SGLang inside {serving.image} is not checked: the image does not say it"),)
    if said == serving.version:
        return (Well(f"{serving.image} says that it holds SGLang {said}"),)
    return (
        Wrong(
            f"SGLang {said} in {serving.image}, by its {VARIABLE} or the SGL_VERSION that it was built with",
            f"SGLang {serving.version}, as serving.version or the tag has it",
        ),
    )
