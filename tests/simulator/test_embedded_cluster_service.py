"""The embedded cluster as the steps meet it: through its API, with the adapter and the objects of the line."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from steps.adapters.kubernetes.cluster import KubernetesCluster, connect
from steps.create_volume import CreateVolume
from steps.errors import Blocked
from steps.kinds import POD
from steps.objects.services import release_service_ref
from steps.ports.kubernetes import Permission
from steps.ports.oss import AccessKey
from steps.reconcile.clock import SystemClock
from steps.reconcile.converge import converge
from steps.release import Release
from steps.roll_out_service import RollOutService
from tests.support.fakes import RecordingReport, stored
from tests.support.pd_group import FAST as FAST_ENGINE
from tests.support.pd_group import write_model
from tests.support.samples import release
from workflows.simulator.core.cluster.controllers.operator_style import V08, OperatorStyle
from workflows.simulator.core.cluster.controllers.timing import FAST
from workflows.simulator.core.cluster.seed import Secret, Seed
from workflows.simulator.http.cluster import EmbeddedCluster
from workflows.simulator.http.engine import SglangRuntime

KEY = AccessKey("dummy-id", "dummy-secret")
PACE = replace(FAST, probe_scale=0.01)


def embedded(folder: Path, operator: OperatorStyle | None = None) -> EmbeddedCluster:
    secret = Secret("slipway", "oss-credentials", {"akId": KEY.id, "akSecret": KEY.secret})
    seed = Seed(secrets=(secret,)) if operator is None else Seed(operator, secrets=(secret,))
    return EmbeddedCluster(
        folder / "cluster", SglangRuntime(timing=FAST_ENGINE), folder / "bucket", seed=seed, timing=PACE
    )


def wanted(folder: Path, *overrides: str) -> Release:
    """A release with its model in the bucket."""
    made = release(*overrides, name="demo")
    target = folder / "bucket" / "objects" / made.service.store.bucket / made.prefix
    if not target.exists():
        write_model(target)
    return made


def roll_out(release: Release, cluster: KubernetesCluster) -> RecordingReport:
    report = RecordingReport()
    converge(CreateVolume(release, cluster, KEY, stored(release)), report, SystemClock())
    converge(RollOutService(release, cluster), report, SystemClock())
    return report


@pytest.fixture
def running(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    cluster = embedded(tmp_path)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.mark.parametrize("operator", [None, V08], ids=["v0.6", "v0.8"])
def test_a_release_rolls_out_and_answers_on_this_machine(tmp_path: Path, operator: OperatorStyle | None) -> None:
    cluster = embedded(tmp_path, operator)
    cluster.start()
    try:
        demo, api = wanted(tmp_path), connect(cluster.kubeconfig)
        roll_out(demo, api)
        service = release_service_ref(demo)
        endpoint = cluster.expose(service.namespace, service.name, demo.service.serving.ports.http)
        question = {"model": demo.service.served_model_name, "messages": [{"role": "user", "content": "hello"}]}
        answer = requests.post(f"{endpoint}/v1/chat/completions", json=question, timeout=30)
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"]
        pod = f"{demo.group}-prefill-0"
        assert api.pod_log("default", pod, api.select(POD, "default")[1]["spec"]["containers"][0]["name"])
        proxied = f"{cluster.url}/api/v1/namespaces/default/pods/{pod}:{demo.service.serving.ports.http}/proxy/health"
        assert requests.get(proxied, headers={"Authorization": "Bearer slipway-embedded"}, timeout=30).ok
        # No change is left.
        assert roll_out(demo, api).of("changed") == []
    finally:
        cluster.stop()


def test_the_next_start_finds_the_release_served(tmp_path: Path, running: EmbeddedCluster) -> None:
    demo = wanted(tmp_path)
    roll_out(demo, connect(running.kubeconfig))
    running.stop()
    again = embedded(tmp_path)
    again.start()
    try:
        report = roll_out(demo, connect(again.kubeconfig))
        assert report.of("changed") == []
    finally:
        again.stop()


def test_an_image_that_cannot_be_pulled_stops_the_rollout_with_its_reason(
    tmp_path: Path, running: EmbeddedCluster
) -> None:
    demo = wanted(tmp_path, "serving.image=registry.example.com/does-not-exist:0.5.23")
    with pytest.raises(Blocked, match="does-not-exist"):
        roll_out(demo, connect(running.kubeconfig))


def test_what_a_client_may_not_do_is_refused(tmp_path: Path) -> None:
    cluster = EmbeddedCluster(
        tmp_path / "cluster",
        SglangRuntime(),
        tmp_path / "bucket",
        timing=FAST,
        denied=lambda verb, resource, _namespace, _name: (verb, resource) == ("list", "pods"),
    )
    cluster.start()
    try:
        api = connect(cluster.kubeconfig)
        assert not api.allows(Permission("list", "", "pods", "default"))
        with pytest.raises(Blocked, match="pods"):
            api.select(POD, "default")
    finally:
        cluster.stop()
