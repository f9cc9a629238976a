"""`slipway step STEP`: one step of a run by hand, with the command line of its pod."""

import runpy
import sys
from collections.abc import Sequence
from typing import NoReturn

NAME = "slipway step"  # for the help of the steps


def step(arguments: Sequence[str]) -> NoReturn:
    """Run `python -m steps` in this process. Ends with SystemExit; the exit code is that of the step.

    As a module and not by an import: adapters belong to steps, and no command of `slipway` may reach them.
    """
    sys.argv = [NAME, *arguments]
    runpy.run_module("steps", run_name="__main__")
    raise AssertionError("a step ends with its exit code")
