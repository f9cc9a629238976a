"""Add the step of CONTRIBUTING.md to a copy of the tree; `make render` and `make quick` must pass there.

The first line of a code block names the file and, for a file that exists, the place: `before` or `after` the one line
that starts with the text in backticks. A block may hold several such lines.
"""

import re
import shutil
import subprocess  # noqa: TID251  # git and make, for a copy of the tree
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.samples import ROOT

BLOCK = re.compile(r"^```python\n(# .*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(
    r"^# (?P<path>(?:steps|workflows)/\S+\.py)(?:, (?P<side>before|after) `(?P<text>.+)`)?\n", re.MULTILINE
)


@dataclass(frozen=True)
class Addition:
    path: str
    side: str  # before or after; empty for a new file
    text: str  # start of the line beside it
    code: str


def additions(page: str) -> Iterator[Addition]:
    for block in BLOCK.findall(page):
        places = list(PLACE.finditer(block))
        ends = [*(place.start() for place in places[1:]), len(block)]
        for place, end in zip(places, ends, strict=True):
            yield Addition(place["path"], place["side"] or "", place["text"] or "", block[place.end() : end])


def add(found: Addition, root: Path) -> None:
    target = root / found.path
    if not found.side:
        assert not target.exists(), f"{found.path} exists: the example of CONTRIBUTING.md is no new step"
        target.write_text(found.code, encoding="utf-8")
        return
    lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
    places = [number for number, line in enumerate(lines) if line.strip().startswith(found.text)]
    assert len(places) == 1, f"{found.path} has {len(places)} lines that start with {found.text}, expected 1"
    place = places[0] + (found.side == "after")
    target.write_text("".join([*lines[:place], found.code, *lines[place:]]), encoding="utf-8")


def copy_tree(target: Path) -> None:
    """The files of the working tree that git does not ignore, with the environment of this one."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / ".venv").symlink_to((ROOT / ".venv").resolve(), target_is_directory=True)


def main() -> int:
    found = list(additions((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert len({one.path for one in found}) == 4, "CONTRIBUTING.md promises four places"
    with tempfile.TemporaryDirectory(prefix="new-step-") as folder:
        root = Path(folder)
        copy_tree(root)
        for one in found:
            add(one, root)
        # The environment is this one, so nothing is installed for the copy.
        make = ["make", "--old-file=.venv/ready", "render", "quick"]
        for command in (make, [".venv/bin/lint-imports"], [".venv/bin/ruff", "check", *(one.path for one in found)]):
            ended = subprocess.run(command, cwd=root, check=False)
            if ended.returncode:
                sys.stderr.write(f"a step by the words of CONTRIBUTING.md fails at: {' '.join(command)}\n")
                return ended.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
