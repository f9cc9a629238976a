"""What is foreseen without the right to write is what the server's own preview says, or errs on the side of a change.

On the embedded API server and on a real one; both keep managedFields, from which a field that was given up is told.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from steps.adapters.kubernetes.cluster import KubernetesCluster, connect
from steps.create_volume import CreateVolume
from steps.errors import Blocked
from steps.kinds import Manifest, Ref
from steps.objects import record, services, volume
from steps.objects.converging import ObjectObservation, observe_object, plan_objects
from steps.objects.difference import differences
from steps.objects.group import role_based_group
from steps.objects.group_operator import GroupOperator, ask
from steps.objects.read_only import ReadOnlyCluster, predicted
from steps.objects.record import Entry, Record
from steps.ports.oss import AccessKey
from steps.reconcile.clock import SystemClock
from steps.reconcile.converge import check, converge
from steps.release import Release
from tests.support.api_servers import GROUP, MERGE, STRATEGIC, Server, delete, until, widget
from tests.support.custom_kinds import custom_kinds
from tests.support.fakes import RecordingReport, stored
from tests.support.samples import ROOT, release

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")  # of a test server

CRDS = ROOT / "workflows" / "simulator" / "core" / "cluster" / "crds"
KEY = AccessKey("dummy-id", "dummy-secret", "dummy-token")
# Among them every field that only some documents have, and quantities as Kubernetes writes them.
DOCUMENTS = {
    "reference": (),
    "more": (
        "metadata.labels={team: search}",
        "metadata.annotations={owner: search@example.com}",
        "serving.env={NCCL_DEBUG: INFO}",
        "serving.pod.nodeSelector={pool: gpu}",
        "serving.pod.imagePullSecrets=[{name: registry}]",
        "serving.prefill.args=[--max-running-requests=8]",
        "volume.capacity=70Gi",
    ),
    "tcp": ("serving.fabric=tcp", "store.credentials={role: slipway}", "volume.client=ossfs"),
}


@pytest.fixture(scope="module", params=["rbg-v0.6.0", "rbg-v0.8.0-alpha.5"])
def operator(server: Server, request: pytest.FixtureRequest) -> Iterator[GroupOperator]:
    text = (CRDS / request.param / "workloads.x-k8s.io_rolebasedgroups.yaml").read_text(encoding="utf-8")
    definition = yaml.safe_load(text)
    with custom_kinds(server, definition, alone=True):  # others would take the same kind with another schema
        until(lambda: ask(server.cluster()) is not None)
        found = ask(server.cluster())
        assert found is not None
        yield found


@pytest.fixture
def here(server: Server, cluster: KubernetesCluster) -> Iterator[Callable[..., Release]]:
    """Releases in the namespace of these tests; volumes, which have none, are removed afterwards."""
    made: list[Release] = []

    def of(*overrides: str) -> Release:
        made.append(release(f"metadata.namespace={server.namespace}", *overrides))
        return made[-1]

    yield of
    for one in made:
        objects = (record.record_ref(one.service), services.traffic_service_ref(one.service))
        for ref in (*objects, services.release_service_ref(one), volume.claim_ref(one), volume.volume_ref(one)):
            delete(cluster, ref)


def objects_of(made: Release, operator: GroupOperator) -> list[Manifest]:
    group, leads, traffic = (
        role_based_group(made, operator),
        services.release_service(made),
        services.traffic_service(made),
    )
    content = Record(Entry.of(made, [group, leads, traffic]))
    size = volume.capacity(made, None)
    return [
        volume.secret(made, KEY),
        volume.persistent_volume(made, size),
        volume.claim(made, size),
        *(group, leads, traffic, record.record(made.service, content)),
    ]


def said(found: ObjectObservation) -> list[str]:
    assert found.live is not None
    assert found.preview is not None
    return [str(difference) for difference in differences(found.live, found.preview)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_was_applied_is_found_as_wanted_with_the_defaults_of_the_server_in_it(
    cluster: KubernetesCluster, here: Callable[..., Release], operator: GroupOperator, document: str
) -> None:
    wanted = objects_of(here(*DOCUMENTS[document]), operator)
    for manifest in wanted:
        cluster.apply(manifest)
    for manifest in wanted:
        assert said(observe_object(ReadOnlyCluster(cluster), manifest)) == [], str(Ref.of(manifest))


def test_a_whole_step_that_has_nothing_to_do_is_at_rest_without_the_right_to_write(
    cluster: KubernetesCluster, here: Callable[..., Release]
) -> None:
    made = here()
    converge(CreateVolume(made, cluster, KEY, stored(made)), RecordingReport(), SystemClock())
    report = RecordingReport()
    check(CreateVolume(made, ReadOnlyCluster(cluster), KEY, stored(made)), report)
    assert report.of("changed") == report.of("waiting") == []
    rotated = RecordingReport()
    other = AccessKey("dummy-id", "rotated", "dummy-token")
    check(CreateVolume(made, ReadOnlyCluster(cluster), other, stored(made)), rotated)
    assert rotated.of("changed") == [
        f"update Secret/{made.service.namespace}/qwen3-32b-oss (data.akSecret: (hidden) -> another value)"
    ]


def _of_a_team(made: Release) -> Manifest:
    found = services.traffic_service(made)
    found["metadata"]["labels"]["team"] = "llm"
    return found


DRIFT: dict[str, tuple[Callable[[Release], Manifest], dict[str, Any]]] = {
    "another value": (services.traffic_service, {"spec": {"selector": {"slipway/release": "0ld"}}}),
    "a label": (_of_a_team, {"metadata": {"labels": {"team": None}}}),
    "a port": (services.traffic_service, {"spec": {"ports": [{"port": 9, "name": "more"}, {"port": 8000}]}}),
    "a key of a Secret": (lambda made: volume.secret(made, KEY), {"data": {"akId": None}}),
    "what somebody else added": (services.traffic_service, {"metadata": {"annotations": {"mine": "yes"}}}),
    "another selector beside ours": (services.traffic_service, {"spec": {"selector": {"track": "stable"}}}),
}


@pytest.mark.parametrize("drift", DRIFT)
def test_a_drift_is_foreseen_as_the_server_previews_it(
    cluster: KubernetesCluster, server: Server, here: Callable[..., Release], drift: str
) -> None:
    make, change = DRIFT[drift]
    wanted = make(here())
    cluster.apply(wanted)
    ref = Ref.of(wanted)
    with server.api() as api:
        path = f"/api/v1/namespaces/{ref.namespace}/{ref.kind.kind.lower()}s/{ref.name}"
        assert api("PATCH", path, change, kind=STRATEGIC).status == 200
    assert said(observe_object(ReadOnlyCluster(cluster), wanted)) == said(observe_object(cluster, wanted))


WITHOUT: dict[str, tuple[Manifest, Manifest]] = {
    "a field": (widget("one", size=2, mode="slow", code="abc"), widget("one", size=2, mode="slow")),
    "a label": (
        {**widget("two"), "metadata": {"name": "two", "labels": {"team": "search"}}},
        {**widget("two"), "metadata": {"name": "two"}},
    ),
    "an item": (
        widget("three", parts=[{"name": "a", "weight": 1}, {"name": "b"}]),
        widget("three", parts=[{"name": "a", "weight": 1}]),
    ),
    "a field of an item": (
        widget("four", parts=[{"name": "a", "weight": 1, "colour": "red"}]),
        widget("four", parts=[{"name": "a", "weight": 1}]),
    ),
    "nothing": (widget("five", parts=[{"name": "a"}]), widget("five", parts=[{"name": "a"}])),
}


@pytest.mark.parametrize("given_up", WITHOUT)
def test_what_we_declared_before_and_declare_no_more_is_foreseen_to_go(
    cluster: KubernetesCluster, server: Server, given_up: str
) -> None:
    before, wanted = (
        {**one, "metadata": {**one["metadata"], "namespace": server.namespace}} for one in WITHOUT[given_up]
    )
    cluster.apply(before)
    foreseen = said(observe_object(ReadOnlyCluster(cluster), wanted))
    assert foreseen == said(observe_object(cluster, wanted))
    assert bool(foreseen) == (given_up != "nothing")


def test_a_key_that_a_secret_must_not_have_any_more_is_foreseen_to_go(
    cluster: KubernetesCluster, here: Callable[..., Release]
) -> None:
    made = here()
    cluster.apply(volume.secret(made, KEY))
    permanent = volume.secret(made, AccessKey(KEY.id, KEY.secret))
    assert said(observe_object(ReadOnlyCluster(cluster), permanent)) == [
        "data.securityToken: (hidden) -> another value"
    ]


def test_items_that_others_put_beside_ours_stay(cluster: KubernetesCluster, server: Server) -> None:
    wanted = widget("six", parts=[{"name": "a", "weight": 1}])
    wanted["metadata"]["namespace"] = server.namespace
    cluster.apply(wanted)
    with server.api() as api:
        path = f"/apis/{GROUP}/v1/namespaces/{server.namespace}/widgets/six"
        mixed = {"spec": {"parts": [{"name": "z"}, {"name": "a", "weight": 1, "colour": "red"}]}}
        assert api("PATCH", path, mixed, kind=MERGE).status == 200
    assert said(observe_object(cluster, wanted)) == []
    assert said(observe_object(ReadOnlyCluster(cluster), wanted)) == []


def test_a_field_that_the_server_does_not_keep_is_no_change_and_one_that_somebody_removed_is() -> None:
    """RBG 0.8 stores v1alpha2, which has no restartPolicy of a plain role; we stay its owner in managedFields."""
    wanted = {"metadata": {"name": "a"}, "spec": {"mode": "fast", "size": 1}}
    entry = {"manager": "slipway", "operation": "Apply", "fieldsV1": {"f:spec": {"f:mode": {}, "f:size": {}}}}
    live = {"metadata": {"name": "a", "managedFields": [entry]}, "spec": {"size": 1}}
    assert "mode" not in predicted(live, wanted)["spec"]
    taken = {**entry, "fieldsV1": {"f:spec": {"f:size": {}}}}
    edited = {**live, "metadata": {"name": "a", "managedFields": [taken]}}
    assert predicted(edited, wanted)["spec"]["mode"] == "fast"


def test_a_field_that_somebody_removed_is_foreseen_to_come_back(cluster: KubernetesCluster, server: Server) -> None:
    wanted = widget("stripped", code="abc", parts=[{"name": "a", "colour": "red"}])
    wanted["metadata"]["namespace"] = server.namespace
    cluster.apply(wanted)
    with server.api() as api:
        path = f"/apis/{GROUP}/v1/namespaces/{server.namespace}/widgets/stripped"
        removed = {"spec": {"code": None, "parts": [{"name": "a"}]}}
        assert api("PATCH", path, removed, kind=MERGE).status == 200
    there = ReadOnlyCluster(cluster).preview(wanted)["spec"]
    assert (there["code"], there["parts"]) == ("abc", [{"name": "a", "colour": "red"}])
    assert there == cluster.preview(wanted)["spec"]


def test_an_absent_object_would_be_created_and_one_that_is_hidden_is_not_absent(
    cluster: KubernetesCluster, server: Server, here: Callable[..., Release]
) -> None:
    wanted = services.traffic_service(here())
    (change,) = plan_objects([observe_object(ReadOnlyCluster(cluster), wanted)]).changes
    assert (change.action, change.reason) == ("create", "absent")
    with pytest.raises(Blocked, match="not allowed to get"):
        ReadOnlyCluster(connect(server.powerless)).preview(wanted)


def test_nothing_is_ever_written(cluster: KubernetesCluster, here: Callable[..., Release]) -> None:
    wanted = services.traffic_service(here())
    view = ReadOnlyCluster(cluster)
    writes: tuple[Callable[[], None], ...] = (lambda: view.apply(wanted), lambda: view.delete(Ref.of(wanted), "uid"))
    for write in writes:
        with pytest.raises(Blocked, match="with a read-only client"):
            write()
    view.preview(wanted)
    assert cluster.get(Ref.of(wanted)) is None


NAMES = st.sampled_from("abc")
# Nothing of ours is empty: a real server keeps no empty map, so one would always look like a difference.
TEXTS = st.dictionaries(NAMES, st.sampled_from(["1", "2"]), min_size=1, max_size=2)
PARTS = st.lists(
    st.fixed_dictionaries({"name": NAMES}, optional={"colour": st.sampled_from(["red", "blue"]), "weight": st.just(1)}),
    min_size=1,
    max_size=3,
    unique_by=lambda part: part["name"],
)
SPECS = st.fixed_dictionaries(
    {"size": st.integers(1, 2)},
    optional={"mode": st.sampled_from(["fast", "slow"]), "replicas": st.just(1), "parts": PARTS},
)
PORTS = st.lists(
    # Kubernetes 1.20 applies no port that leaves its protocol out.
    st.fixed_dictionaries({"port": st.integers(1, 3), "name": NAMES, "protocol": st.just("TCP")}),
    min_size=1,
    max_size=2,
    unique_by=(lambda port: port["port"], lambda port: port["name"]),
)


def _widgets(metadata: dict[str, Any], spec: dict[str, Any]) -> Manifest:
    return {**widget("any"), "metadata": metadata, "spec": spec}


def _services(metadata: dict[str, Any], spec: dict[str, Any]) -> Manifest:
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


METADATA = st.fixed_dictionaries({"name": st.just("any")}, optional={"labels": TEXTS, "annotations": TEXTS})
OBJECTS = st.one_of(
    st.builds(_widgets, METADATA, SPECS),
    st.builds(_services, METADATA, st.fixed_dictionaries({"ports": PORTS}, optional={"selector": TEXTS})),
)
HISTORIES = st.tuples(OBJECTS, OBJECTS, OBJECTS).filter(lambda found: len({one["kind"] for one in found}) == 1)


def _selecting(**selector: str) -> Manifest:
    ports = {"ports": [{"port": 1, "name": "a", "protocol": "TCP"}]}
    return _services({"name": "any"}, ports | ({"selector": selector} if selector else {}))


@given(HISTORIES)
@example((_selecting(a="1", b="1"), _selecting(), _selecting(a="1")))  # one value, whose keys nobody owns
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_what_is_taken_for_as_wanted_is_never_something_that_the_server_would_change(
    server: Server, history: tuple[Manifest, Manifest, Manifest]
) -> None:
    """We applied one thing, somebody else wrote another over it, and now a third is wanted, or the first again."""
    cluster = server.cluster()
    before, foreign, other = (
        {**one, "metadata": {**one["metadata"], "namespace": server.namespace}} for one in history
    )
    group = "api/v1" if before["apiVersion"] == "v1" else f"apis/{before['apiVersion']}"
    path = f"/{group}/namespaces/{server.namespace}/{before['kind'].lower()}s/any"
    labels = {key: foreign["metadata"][key] for key in ("labels", "annotations") if key in foreign["metadata"]}
    with server.api() as api:
        try:
            cluster.apply(before)
            assert said(observe_object(ReadOnlyCluster(cluster), before)) == said(observe_object(cluster, before)) == []
            assert api("PATCH", path, {"metadata": labels, "spec": foreign["spec"]}, kind=MERGE).status == 200
            for wanted in (before, other):
                if not said(observe_object(ReadOnlyCluster(cluster), wanted)):
                    assert said(observe_object(cluster, wanted)) == []
        finally:
            assert api("DELETE", path).status == 200
            until(lambda: api("GET", path).status == 404)
