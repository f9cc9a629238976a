"""Two runs never write the same state at the same time, also when one of them was killed."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from workflows.simulator import launch
from workflows.simulator.launch import Addresses, RehearsalError, embedded_services, only_run

# Instead of the services: they serve until their standard input ends.
PROGRAM = """
import json, sys
print(json.dumps(dict.fromkeys({fields}, "http://127.0.0.1:1")), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a `python -m workflows.simulator` that is only a process."""
    package = tmp_path / "root" / "workflows"
    package.mkdir(parents=True)
    (package / "simulator.py").write_text(PROGRAM.format(fields=list(Addresses.__dataclass_fields__)))
    return package.parent


def test_services_that_outlive_their_run_keep_the_next_one_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ExitStack()
    run.enter_context(only_run(tmp_path))
    with embedded_services(root, tmp_path, ()):
        run.close()  # as after a kill: its files are closed, and its services still run
        monkeypatch.setattr(launch, "LOCK_SECONDS", 0.0)
        with pytest.raises(RehearsalError, match="another run is at work"), only_run(tmp_path):
            pytest.fail("two runs at the same time")
    with only_run(tmp_path):
        """The services are over."""
