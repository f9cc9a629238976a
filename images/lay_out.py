# ruff: noqa: INP001  # programs by path, not a package
"""Runs in the builder stage: lay out what the image gets, with the same bytes, modes and times at every build.

    python lay_out.py --version VERSION --epoch SECONDS STEPS LICENSE TARGET

`TARGET/site` holds the installed packages already. The compiled files of steps, packages and standard library go to
`TARGET/compiled`, where PYTHONPYCACHEPREFIX finds them.
"""

import argparse
import compileall
import os
import py_compile
import re
import shutil
import sys
import sysconfig
from pathlib import Path

# A second client of Kubernetes, for asyncio, as large as everything else together. The first one never imports it.
LEFT_OUT = ("kubernetes/aio",)
# What no step imports is not compiled: it would still work, only start slower. Of the client: a class for each kind.
UNUSED = (
    r"/kubernetes/client/(api|models)/(?!__init__)",
    r"/(tests?|SelfTest)/",
    r"/python3\.\d+/(idlelib|turtledemo|lib2to3|ensurepip|tkinter|pydoc_data|site-packages|dist-packages)/",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", required=True)
    parser.add_argument("--epoch", required=True, type=int)
    parser.add_argument("steps", type=Path)
    parser.add_argument("license", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    refuse_other_version(options.steps, options.version)
    copy_sources(options.steps, options.target / "steps")
    shutil.copyfile(options.license, options.target / "LICENSE")
    leave_out(options.target / "site")
    compile_all(options.target)
    settle(options.target, options.epoch)


def refuse_other_version(steps: Path, version: str) -> None:
    """The label must say what the code says."""
    found = re.search(r'^__version__ = "(.+?)"', (steps / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    if not found or found[1] != version:
        sys.exit(f"steps/__init__.py says {found[1] if found else 'no version'}, the build says {version}")


def copy_sources(source: Path, target: Path) -> None:
    """Only sources: whatever else lies about in a working tree stays out."""
    for path in sorted(source.rglob("*.py")):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def leave_out(site: Path) -> None:
    """Fails when a folder is no longer there: then the list above is to be read again."""
    for name in LEFT_OUT:
        shutil.rmtree(site / name)


def compile_all(target: Path) -> None:
    """Compiled files that are valid by definition: no time of a source is written into them or looked at."""
    sys.pycache_prefix = str(target / "compiled")
    roots = (target / "steps", target / "site", Path(sysconfig.get_path("stdlib")))
    unused = re.compile("|".join(UNUSED))
    for root in roots:
        # Some packages carry files for other versions of Python, which do not compile; they are not imported either.
        compileall.compile_dir(
            root,
            maxlevels=99,
            quiet=2,
            force=True,
            rx=unused,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def settle(target: Path, epoch: int) -> None:
    """Fixed modes and times: everybody may read, nobody may write."""
    for folder, _, files in os.walk(target, topdown=False):
        for name in files:
            path = Path(folder, name)
            path.chmod(0o644)
            os.utime(path, (epoch, epoch))
        Path(folder).chmod(0o755)
        os.utime(folder, (epoch, epoch))


if __name__ == "__main__":
    main()
