"""A cluster with Argo on it, and a command line that leads there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.argo_world import TOKEN, ArgoWorld, argo_world
from workflows.runs import argo_server, commands


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArgoWorld]:
    monkeypatch.setattr(argo_server, "ATTEMPTS", 2)
    with argo_world(tmp_path) as started:
        monkeypatch.setattr(commands, "ENVIRONMENT", {"KUBECONFIG": str(started.kubeconfig), "ARGO_TOKEN": TOKEN})
        yield started
