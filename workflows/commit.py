"""The commit of this Slipway: recorded when a wheel is built, read from `.git` in a checkout.

Standard library only, since hatch_build.py loads this file on its own. No process is started for it: a machine that
runs Slipway may have no git.
"""

from pathlib import Path

RECORD = "commit.txt"  # beside this file, in a wheel and in a source distribution
UNKNOWN = "unknown"


def commit() -> str:
    here = Path(__file__)
    return _text(here.with_name(RECORD)) or of_checkout(here.parents[1])


def of_checkout(root: Path) -> str:
    """The commit that is checked out at `root`, 40 hex digits; `unknown` without a `.git`.

    https://git-scm.com/docs/gitrepository-layout
    """
    git = root / ".git"
    linked = _text(git).removeprefix("gitdir:").strip() if git.is_file() else ""  # a worktree
    git = root / linked if linked else git
    shared = git / (_text(git / "commondir") or ".")
    head = _text(git / "HEAD")
    branch = head.removeprefix("ref:").strip()
    if branch == head:
        return head or UNKNOWN
    return _text(git / branch) or _text(shared / branch) or _packed(shared, branch) or UNKNOWN


def _packed(git: Path, branch: str) -> str:
    lines = (line.split() for line in _text(git / "packed-refs").splitlines())
    return next((words[0] for words in lines if words[1:] == [branch]), "")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
