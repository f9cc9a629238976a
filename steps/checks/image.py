"""Does the engine image hold the SGLang of the document, by its own configuration?

SGLang's own Dockerfile sets no variable and no label; its build argument SGL_VERSION (docker/Dockerfile at 0.5.5, after
FROM) is what BuildKit writes into the history. Images built on it set SGLANG_VERSION, as the runtime image of NVIDIA
Dynamo does. No configuration of a published image was recorded here, so an image without both stays unchecked.
The label `org.opencontainers.image.version` is no source: images inherit that of Ubuntu, 22.04.
"""

import re
from collections.abc import Mapping
from typing import Any

from steps.checks.facts import PlatformFacts
from steps.checks.findings import Fail, Finding, Pass, Refusal
from steps.document.schema import WORKER_ROLES
from steps.release import Release

VARIABLE = "SGLANG_VERSION"
_BUILD_ARGUMENT = re.compile(r"\bARG SGL_VERSION=(\S+)")
_VERSION = re.compile(r"v?(\d+\.\d+\.\d+(?:rc\d+|\.post\d+)?)")


def version_of(config: Mapping[str, Any]) -> str:
    """The version in the configuration of an image; empty if it names none, or none that is a release."""
    try:
        return _version_of(config)
    except (AttributeError, TypeError):  # a configuration may hold anything
        return ""


def _version_of(config: Mapping[str, Any]) -> str:
    variables = dict(entry.partition("=")[::2] for entry in (config.get("config") or {}).get("Env") or ())
    steps = (str(step.get("created_by", "")) for step in config.get("history") or ())
    built = [match[1] for step in steps if (match := _BUILD_ARGUMENT.search(step))]
    found = _VERSION.fullmatch(variables.get(VARIABLE) or (built[-1] if built else ""))
    return found[1] if found else ""


def engine_version(release: Release, facts: PlatformFacts) -> tuple[Finding, ...]:
    """A version in the configuration of an image is the one for which flags and probes were rendered. An image without
    one is no fault.
    """
    return tuple(
        _finding(image, release.service.serving.version, facts.engines.get(image, ""))
        for image in images_of_workers(release)
    )


def images_of_workers(release: Release) -> tuple[str, ...]:
    serving = release.service.serving
    return tuple(dict.fromkeys(serving.worker(role).image for role in WORKER_ROLES))


def _finding(image: str, version: str, found: str | Refusal) -> Finding:
    if isinstance(found, Refusal):
        return Pass(f"the SGLang inside {image} is not checked: {found.reason}")
    if not found:
        return Pass(f"the SGLang inside {image} is not checked: the image names none")
    if found == version:
        return Pass(f"{image} holds SGLang {found}")
    return Fail(
        f"SGLang {found} in {image}, by its {VARIABLE} or the SGL_VERSION that it was built with",
        f"SGLang {version}, as serving.version or the tag has it",
    )
