"""A cluster with Argo on it, and a command line that leads there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.reconcile.retry_policy import RetryPolicy
from tests.support.argo_cluster import TOKEN, ArgoCluster, argo_cluster
from workflows.commands import run as run_commands
from workflows.runs import argo_server


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArgoCluster]:
    monkeypatch.setattr(argo_server, "RETRIES", RetryPolicy(attempts=2))
    with argo_cluster(tmp_path) as started:
        monkeypatch.setattr(run_commands, "ENVIRONMENT", {"KUBECONFIG": str(started.kubeconfig), "ARGO_TOKEN": TOKEN})
        yield started
