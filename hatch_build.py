"""Records the commit in what is built from a checkout, for `slipway --version`."""

import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # the signature of hatchling
        package = Path(self.root) / "workflows"
        source = runpy.run_path(str(package / "commit.py"))
        name = source["RECORD"]
        if (package / name).exists():  # a source distribution, which has it already
            return
        self._folder = tempfile.TemporaryDirectory()
        record = Path(self._folder.name) / name
        record.write_text(source["of_checkout"](Path(self.root)) + "\n", encoding="utf-8")
        build_data["force_include"][str(record)] = f"workflows/{name}"
