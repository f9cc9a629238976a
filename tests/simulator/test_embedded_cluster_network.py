"""Names inside the embedded cluster lead to the sockets on which pods really listen."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.toy_cluster import ToyCluster, group, is_ready, toy_cluster
from workflows.simulator.core.cluster.controllers.network import REFUSING
from workflows.simulator.core.cluster.resources import ENDPOINTS, PODS, SERVICES
from workflows.simulator.core.cluster.store import Manifest
from workflows.simulator.http.port_forward import Forward
from workflows.simulator.http.server import PortInUseError
from workflows.simulator.runtime import Address

SERVICE: Manifest = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "sglang-pd", "namespace": "default"},
    "spec": {
        "selector": {"pd-role": "router"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
    },
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyCluster]:
    with toy_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.volume()
        cluster.create(group())
        cluster.create(SERVICE)
        cluster.until(lambda: is_ready(cluster.pods().get("sglang-pd-router-0")))
        yield cluster


def who(address: Address) -> str:
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.request("GET", "/")
        return str(json.loads(connection.getresponse().read())["pod"])
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("host", "port", "pod"),
    [
        ("sglang-pd-prefill-1.s-sglang-pd-prefill", 8000, "sglang-pd-prefill-1"),
        ("sglang-pd-prefill-1.s-sglang-pd-prefill.default", 8000, "sglang-pd-prefill-1"),
        ("sglang-pd-prefill-1.s-sglang-pd-prefill.default.svc", 8000, "sglang-pd-prefill-1"),
        ("sglang-pd-prefill-1.s-sglang-pd-prefill.default.svc.cluster.local", 8000, "sglang-pd-prefill-1"),
        ("s-sglang-pd-decode", 8000, "sglang-pd-decode-0"),
        ("sglang-pd", 80, "sglang-pd-router-0"),
        ("sglang-pd.default", 80, "sglang-pd-router-0"),
        ("sglang-pd.default.svc.cluster.local", 80, "sglang-pd-router-0"),
    ],
)
def test_a_name_leads_to_its_pod(served: ToyCluster, host: str, port: int, pod: str) -> None:
    assert who(served.control_plane.network.dial("default")(host, port)) == pod


def test_a_container_dials_as_its_own_namespace_sees_names(served: ToyCluster) -> None:
    router = served.runtime.of("sglang-pd-router-0")[0]
    assert who(router.dial("sglang-pd-decode-0.s-sglang-pd-decode", 8000)) == "sglang-pd-decode-0"


def test_the_addresses_of_pods_and_services_lead_there_too(served: ToyCluster) -> None:
    dial = served.control_plane.network.dial("elsewhere")
    assert who(dial(served.pods()["sglang-pd-decode-0"]["status"]["podIP"], 8000)) == "sglang-pd-decode-0"
    service = served.until(lambda: served.store.get(SERVICES, "sglang-pd", "default"))
    assert who(dial(service["spec"]["clusterIP"], 80)) == "sglang-pd-router-0"


@pytest.mark.parametrize(
    "host",
    [
        "sglang-pd-prefill-0.sglang-pd-prefill",  # the Service has a prefix on this release of the operator
        "sglang-pd-prefill-9.s-sglang-pd-prefill",
        "sglang-pd-prefill-0",
        "sglang-pd.elsewhere",
        "example.com",
    ],
)
def test_a_name_that_dns_does_not_know_is_an_error(served: ToyCluster, host: str) -> None:
    with pytest.raises(LookupError, match="no such host"):
        served.control_plane.network.dial("default")(host, 8000)


def test_a_port_on_which_nothing_listens_refuses(served: ToyCluster) -> None:
    assert served.control_plane.network.dial("default")("sglang-pd-prefill-0.s-sglang-pd-prefill", 34000) == REFUSING
    assert served.control_plane.network.dial("default")("sglang-pd", 81) == REFUSING
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(REFUSING, 1)


def test_a_pod_and_a_service_can_be_reached_by_their_objects(served: ToyCluster) -> None:
    network = served.control_plane.network
    pod = network.pod_address("default", "sglang-pd-decode-0", 8000)
    service = network.service_address("default", "sglang-pd", 80)
    named = network.service_address("default", "sglang-pd", "http")
    assert pod is not None
    assert who(pod) == "sglang-pd-decode-0"
    assert service is not None
    assert service == named
    assert network.pod_address("default", "no-such", 8000) is None
    assert network.service_address("default", "sglang-pd", 81) is None


def test_endpoints_name_the_ready_pods_of_a_service(served: ToyCluster) -> None:
    endpoints = served.until(
        lambda: (found := served.store.get(ENDPOINTS, "sglang-pd", "default")) and found["subsets"] and found
    )
    subset = endpoints["subsets"][0]
    assert [one["targetRef"]["name"] for one in subset["addresses"]] == ["sglang-pd-router-0"]
    assert subset["ports"] == [{"name": "http", "port": 8000, "protocol": "TCP"}]


def test_a_service_shown_on_this_machine_follows_its_pods(served: ToyCluster) -> None:
    forward = Forward(lambda: served.control_plane.network.service_address("default", "sglang-pd", 80))
    try:
        assert who(forward.address) == "sglang-pd-router-0"
        old = served.pods()["sglang-pd-router-0"]["metadata"]["uid"]
        served.store.delete(PODS, "sglang-pd-router-0", "default")
        served.until(
            lambda: (new := served.pods().get("sglang-pd-router-0")) and new["metadata"]["uid"] != old and is_ready(new)
        )
        assert who(forward.address) == "sglang-pd-router-0"
        with pytest.raises(PortInUseError, match=str(forward.address[1])):
            Forward(lambda: None, forward.address[1])
    finally:
        forward.stop()


def test_a_service_without_ready_pods_hangs_up(served: ToyCluster, tmp_path: Path) -> None:
    forward = Forward(lambda: served.control_plane.network.service_address("default", "no-such", 80))
    try:
        with socket.create_connection(forward.address, 30) as connection:
            assert connection.recv(1) == b""
    finally:
        forward.stop()
