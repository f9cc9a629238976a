"""Where `steps` and `workflows` are imported from, and how a process of this installation starts another one."""

import os
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1]  # a checkout, or the site-packages of an installation
_PATH = "PYTHONPATH"


def python(*arguments: str) -> list[str]:
    """A command of the interpreter without the current folder on its path: the user's folder may hold any package."""
    return [sys.executable, "-P", *arguments]


def environment() -> dict[str, str]:
    """The environment of this process, by which `python` finds these packages."""
    inherited = dict(os.environ)  # noqa: TID251  # passed on
    paths = (str(FOLDER), inherited.get(_PATH, ""))
    return {**inherited, _PATH: os.pathsep.join(filter(None, paths))}
