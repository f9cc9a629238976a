"""Services of one test, and the moments at which they can be watched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import Moment
from tests.transfer.test_end_to_end import Services, services


@pytest.fixture
def moment() -> Moment:
    """Of the requests for the bytes of the largest file."""
    return Moment("/prod/lfs-objects/", "model-00001-of-00003.safetensors")


@pytest.fixture
def found(tmp_path: Path, moment: Moment) -> Iterator[Services]:
    here = services(tmp_path, hub_faults=moment)
    yield here
    here.hub.stop()
    here.bucket.stop()
