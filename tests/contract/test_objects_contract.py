"""Our objects on an API server with a volume binder, embedded and real: applied once, then never different.

The embedded server answers `make test`; a real one proves that merging, defaults and binding are what we think.
"""

from collections.abc import Iterator

import pytest
import yaml

from steps.adapters.kubernetes.cluster import KubernetesCluster
from steps.create_volume import CreateVolume
from steps.document.schema import Serving
from steps.kinds import Manifest, Ref
from steps.objects import record, services, volume
from steps.objects.converging import observe_object, plan_objects
from steps.objects.group import role_based_group
from steps.objects.group_operator import GroupOperator, ask
from steps.objects.record import Entry, Record
from steps.ports.oss import AccessKey
from steps.reconcile.clock import SystemClock
from steps.reconcile.converge import converge
from steps.release import Release
from tests.support.api_servers import Server, delete, until
from tests.support.custom_kinds import custom_kinds
from tests.support.fakes import RecordingReport, stored
from tests.support.samples import ROOT, release

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")  # of a test server

GROUPS = "workloads.x-k8s.io_rolebasedgroups.yaml"


@pytest.fixture
def here(server: Server, cluster: KubernetesCluster) -> Iterator[Release]:
    """A release in the namespace of these tests; its volume, which has no namespace, is removed afterwards."""
    found = release(f"metadata.namespace={server.namespace}", "metadata.annotations={owner: search@example.com}")
    yield found
    for ref in (volume.claim_ref(found), volume.volume_ref(found)):
        delete(cluster, ref)


@pytest.fixture(scope="module")
def operator(server: Server) -> Iterator[GroupOperator]:
    path = ROOT / "workflows" / "simulator" / "core" / "cluster" / "crds" / "rbg-v0.6.0" / GROUPS
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    with custom_kinds(server, definition):
        until(lambda: ask(server.cluster()) is not None)
        found = ask(server.cluster())
        assert found is not None
        yield found


def run(step: CreateVolume) -> list[str]:
    report = RecordingReport()
    converge(step, report, SystemClock())
    return report.of("changed")


def at_rest(cluster: KubernetesCluster, *manifests: Manifest) -> bool:
    return plan_objects([observe_object(cluster, manifest) for manifest in manifests]).converged


def test_a_volume_is_bound_and_stays_as_it_is(cluster: KubernetesCluster, here: Release) -> None:
    step = CreateVolume(here, cluster, AccessKey("dummy-id", "dummy-secret"), stored(here))
    assert len(run(step)) == 3
    assert run(step) == []
    assert run(CreateVolume(here, cluster, AccessKey("dummy-id", "rotated"), stored(here))) == [
        f"update Secret/{here.service.namespace}/qwen3-32b-oss (data.akSecret: (hidden) -> another value)"
    ]


def test_a_retained_volume_without_its_claim_is_made_anew(cluster: KubernetesCluster, here: Release) -> None:
    step = CreateVolume(here, cluster, None, stored(here))
    run(step)
    claim = cluster.get(volume.claim_ref(here))
    assert claim is not None
    cluster.delete(volume.claim_ref(here), claim["metadata"]["uid"])
    until(lambda: (cluster.get(volume.volume_ref(here)) or {})["status"]["phase"] == "Released")
    assert [line.split(" ")[0] for line in run(step)] == ["delete", "create", "create"]
    assert run(step) == []


def test_every_object_of_a_release_is_applied_once(
    cluster: KubernetesCluster, here: Release, operator: GroupOperator
) -> None:
    group = role_based_group(here, operator)
    objects = [group, services.release_service(here), services.traffic_service(here)]
    objects.append(record.record(here.service, Record(Entry.of(here, objects))))
    for manifest in objects:
        cluster.apply(manifest)
    assert at_rest(cluster, *objects)
    assert record.read(cluster.get(record.record_ref(here.service))).current == Entry.of(here, objects[:3])
    # A moved Service selects the other release, and nothing of the first is left in its selector.
    other = release(f"metadata.namespace={here.service.namespace}", "serving.ports.http=9000", "endpoint.port=80")
    cluster.apply(services.traffic_service(other))
    moved = cluster.get(services.traffic_service_ref(here.service))
    assert moved is not None
    assert moved["spec"]["selector"] == services.traffic_service(other)["spec"]["selector"]
    assert [(port["port"], port["targetPort"]) for port in moved["spec"]["ports"]] == [(80, 9000)]


def test_a_scaled_group_differs_in_its_replicas_and_its_router(
    cluster: KubernetesCluster, here: Release, operator: GroupOperator
) -> None:
    cluster.apply(role_based_group(here, operator))
    scaled = Release(here.service.model_copy(update={"serving": three_prefills()}), here.model_digest)
    (change,) = plan_objects([observe_object(cluster, role_based_group(scaled, operator))]).changes
    router = "spec.roles[router].template.spec.containers[router].args differs"
    assert change.reason == f"spec.roles[prefill].replicas: 2 -> 3; {router}"
    assert change.target == str(Ref.of(role_based_group(here, operator)))


def three_prefills() -> Serving:
    return release("serving.prefill.replicas=3").service.serving


def test_a_preview_names_the_revision_that_it_started_from(cluster: KubernetesCluster, here: Release) -> None:
    """Or else a look could not tell a difference from what a controller wrote between its two reads."""
    one, other = services.traffic_service(here), {**services.traffic_service(here)}
    other["metadata"] = {**one["metadata"], "labels": {**one["metadata"]["labels"], "team": "search"}}
    assert not cluster.preview({**one, "metadata": {**one["metadata"], "name": "not-yet"}})["metadata"].get(
        "resourceVersion"
    )
    cluster.apply(one)
    live = cluster.get(Ref.of(one))
    assert live is not None
    for preview in (cluster.preview(one), cluster.preview(other)):
        assert preview["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
