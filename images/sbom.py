# ruff: noqa: INP001  # programs by path, not a package
"""Runs inside the image and writes what is in it, as CycloneDX JSON: Python packages, Debian packages, Python itself.

Read from the image and not from the lock, so that it says what is there, not what was meant to be.
https://cyclonedx.org/docs/1.6/json/
"""

import json
import platform
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

import steps

SITE = Path(steps.__file__).parents[1] / "site"
LONGEST_NAME = 100  # characters; some packages put the text of their licence where its name belongs


def main() -> None:
    components = sorted([*packages(), *debian(), interpreter()], key=lambda component: component["bom-ref"])
    built = datetime.fromtimestamp(Path(steps.__file__).stat().st_mtime, UTC)
    slipway = {
        "type": "application",
        "bom-ref": f"pkg:generic/slipway@{steps.__version__}",
        "name": "slipway",
        "version": steps.__version__,
        "licenses": [{"expression": "Apache-2.0"}],
    }
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(components))}",
        "version": 1,
        "metadata": {"timestamp": built.isoformat().replace("+00:00", "Z"), "component": slipway},
        "components": components,
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def packages() -> Iterator[dict[str, Any]]:
    for found in distributions(path=[str(SITE)]):
        name = found.name.lower().replace("_", "-").replace(".", "-")
        yield component(name, found.version, f"pkg:pypi/{name}@{quote(found.version)}", licence(found))


def licence(found: Distribution) -> list[dict[str, Any]]:
    if "License-Expression" in found.metadata:
        return [{"expression": found.metadata["License-Expression"]}]
    name = found.metadata["License"].strip() if "License" in found.metadata else ""
    return [{"license": {"name": name}}] if name and len(name) <= LONGEST_NAME and "\n" not in name else []


def debian() -> Iterator[dict[str, Any]]:
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    for paragraph in Path("/var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status") == "install ok installed":
            name, version = fields["Package"], fields["Version"]
            where = f"arch={fields['Architecture']}&distro={codename}"
            yield component(name, version, f"pkg:deb/debian/{quote(name)}@{quote(version)}?{where}", [])


def interpreter() -> dict[str, Any]:
    version = platform.python_version()
    return component("python", version, f"pkg:generic/python@{version}", [{"expression": "PSF-2.0"}])


def component(name: str, version: str, purl: str, licences: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return found | {"licenses": licences} if licences else found


if __name__ == "__main__":
    main()
