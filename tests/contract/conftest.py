"""API servers, one for each module of tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.adapters.kubernetes.cluster import KubernetesCluster
from tests.support.api_servers import REAL, Api, Server, embedded, real


@pytest.fixture(
    scope="module",
    params=[
        "embedded",
        pytest.param(
            "real",
            marks=[
                pytest.mark.cluster,
                pytest.mark.skipif(not REAL, reason="SLIPWAY_TEST_KUBECONFIG names no real API server"),
            ],
        ),
    ],
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("api-server")
    with embedded(folder) if request.param == "embedded" else real(folder) as started:
        yield started


@pytest.fixture
def api(server: Server) -> Iterator[Api]:
    with server.api() as opened:
        yield opened


@pytest.fixture
def cluster(server: Server) -> KubernetesCluster:
    return server.cluster()
