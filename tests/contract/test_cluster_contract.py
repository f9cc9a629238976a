"""What the steps may rely on from a cluster, through the adapter: the embedded one and a real one alike."""

from collections.abc import Callable
from pathlib import Path

import pytest

from steps.adapters.kubernetes import cluster as kubernetes_cluster
from steps.adapters.kubernetes.cluster import KubernetesCluster, connect
from steps.errors import Blocked, TransientError
from steps.kinds import FIELD_MANAGER, Kind, Manifest, Ref
from steps.ports.kubernetes import Permission
from tests.support.api_servers import (
    DEFINITIONS,
    GROUP,
    MERGE,
    WIDGET_DEFINITION,
    Api,
    Server,
    config_map,
    until,
    widget,
    with_token,
)

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")  # of a test server

CONFIG_MAP = Kind("v1", "ConfigMap")
MAPS = "/api/v1/namespaces/{namespace}/configmaps"


def placed(server: Server, manifest: Manifest) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": server.namespace}}


def present(cluster: KubernetesCluster, manifest: Manifest) -> Manifest:
    found = cluster.get(Ref.of(manifest))
    assert found is not None
    return found


def test_an_absent_object_is_none_also_in_an_absent_namespace(server: Server, cluster: KubernetesCluster) -> None:
    assert cluster.get(Ref(CONFIG_MAP, "absent", server.namespace)) is None
    assert cluster.get(Ref(CONFIG_MAP, "absent", "no-such-namespace")) is None


def test_a_preview_shows_what_apply_would_make_and_makes_nothing(server: Server, cluster: KubernetesCluster) -> None:
    service = placed(
        server,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "previewed"},
            "spec": {"selector": {"app": "a"}, "ports": [{"port": 80, "protocol": "TCP"}]},
        },
    )
    preview = cluster.preview(service)
    assert preview["spec"]["sessionAffinity"] == "None"
    assert preview["spec"]["ports"][0]["targetPort"] == 80
    assert cluster.get(Ref.of(service)) is None


def test_an_applied_object_is_there_with_everything_the_server_adds(server: Server, cluster: KubernetesCluster) -> None:
    wanted = placed(server, config_map("applied", {"a": "1"}, app="x"))
    cluster.apply(wanted)
    live = present(cluster, wanted)
    assert (live["apiVersion"], live["kind"], live["data"]) == ("v1", "ConfigMap", {"a": "1"})
    assert all(live["metadata"][field] for field in ("uid", "resourceVersion", "creationTimestamp"))
    entries = [(entry["manager"], entry["operation"]) for entry in live["metadata"]["managedFields"]]
    assert entries == [(FIELD_MANAGER, "Apply")]


def test_applying_the_same_twice_is_no_change(server: Server, cluster: KubernetesCluster) -> None:
    wanted = placed(server, config_map("twice", {"a": "1"}))
    cluster.apply(wanted)
    first = present(cluster, wanted)
    cluster.apply(wanted)
    assert present(cluster, wanted) == first
    assert cluster.preview(wanted)["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_field_no_longer_declared_is_removed_and_a_foreign_one_stays(
    server: Server, cluster: KubernetesCluster, api: Api
) -> None:
    cluster.apply(placed(server, config_map("fields", {"ours": "1", "dropped": "2"})))
    api("PATCH", f"{MAPS}/fields", {"data": {"foreign": "3"}}, kind=MERGE)
    wanted = placed(server, config_map("fields", {"ours": "1"}))
    assert cluster.preview(wanted)["data"] == {"ours": "1", "foreign": "3"}
    cluster.apply(wanted)
    assert present(cluster, wanted)["data"] == {"ours": "1", "foreign": "3"}


def test_the_document_wins_over_a_manual_edit(server: Server, cluster: KubernetesCluster, api: Api) -> None:
    wanted = placed(server, config_map("edited", {"a": "ours"}))
    cluster.apply(wanted)
    api("PATCH", f"{MAPS}/edited", {"data": {"a": "theirs"}}, kind=MERGE)
    assert cluster.preview(wanted)["data"] == {"a": "ours"}
    cluster.apply(wanted)
    assert present(cluster, wanted)["data"] == {"a": "ours"}


def test_an_apply_that_names_a_version_replaces_no_other(server: Server, cluster: KubernetesCluster, api: Api) -> None:
    wanted = placed(server, config_map("pinned", {"a": "1"}))
    cluster.apply(wanted)
    read = present(cluster, wanted)["metadata"]["resourceVersion"]

    def pinned(value: str) -> Manifest:
        return {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": read}, "data": {"a": value}}

    cluster.apply(pinned("2"))
    assert present(cluster, wanted)["data"] == {"a": "2"}
    with pytest.raises(TransientError, match="pinned was written by another client since it was read"):
        cluster.apply(pinned("3"))
    assert present(cluster, wanted)["data"] == {"a": "2"}
    api("DELETE", f"{MAPS}/pinned")
    cluster.apply(pinned("4"))  # an object that is absent has no version to compare
    assert present(cluster, wanted)["data"] == {"a": "4"}


def test_a_missing_namespace_blocks_and_is_named(cluster: KubernetesCluster) -> None:
    lost = {**config_map("lost"), "metadata": {"name": "lost", "namespace": "no-such-namespace"}}
    for write in (cluster.preview, cluster.apply):
        with pytest.raises(Blocked, match="namespace no-such-namespace does not exist"):
            write(lost)


def test_a_kind_that_is_not_served_blocks_with_what_to_install(server: Server, cluster: KubernetesCluster) -> None:
    kind = Kind("absent.slipway.test/v1", "Gadget")
    assert not cluster.serves(kind)
    with pytest.raises(Blocked, match="does not serve Gadget") as caught:
        cluster.get(Ref(kind, "a", server.namespace))
    assert "CRD" in caught.value.hint


def test_another_version_of_a_served_kind_is_not_served(cluster: KubernetesCluster) -> None:
    assert cluster.serves(Kind(f"{GROUP}/v1", "Widget"))
    assert not cluster.serves(Kind(f"{GROUP}/v2", "Widget"))
    assert not cluster.serves(Kind("apps/v1", "Widget"))


def test_a_kind_installed_meanwhile_is_served_at_once(cluster: KubernetesCluster, api: Api) -> None:
    group = f"late.{GROUP}"
    definition = {
        **WIDGET_DEFINITION,
        "metadata": {"name": f"widgets.{group}"},
        "spec": {**WIDGET_DEFINITION["spec"], "group": group},
    }
    kind = Kind(f"{group}/v1", "Widget")
    assert not cluster.serves(kind)
    api("POST", DEFINITIONS, definition)
    until(lambda: cluster.serves(kind))
    api("DELETE", f"{DEFINITIONS}/widgets.{group}")


def test_a_field_the_kind_does_not_have_blocks(server: Server, cluster: KubernetesCluster) -> None:
    typo = placed(server, {**config_map("typo"), "dta": {"a": "1"}})
    with pytest.raises(Blocked, match="dta"):
        cluster.preview(typo)


def test_an_immutable_field_blocks_with_the_words_of_the_server(server: Server, cluster: KubernetesCluster) -> None:
    volume: Manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"immutable-{server.namespace}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadOnlyMany"],
            "csi": {"driver": "a.test", "volumeHandle": "one"},
        },
    }
    cluster.apply(volume)
    live = present(cluster, volume)
    changed = {**volume, "spec": {**volume["spec"], "csi": {"driver": "a.test", "volumeHandle": "two"}}}
    with pytest.raises(Blocked, match="immutable after creation"):
        cluster.preview(changed)
    cluster.delete(Ref.of(volume), live["metadata"]["uid"])


def test_select_finds_by_labels_in_one_namespace_or_in_all(server: Server, cluster: KubernetesCluster) -> None:
    blue = f"blue-{server.namespace}"  # in no other namespace of this server
    for name, colour in (("sel-b", "red"), ("sel-a", "red"), ("sel-c", blue)):
        cluster.apply(placed(server, config_map(name, {}, colour=colour)))
    found = cluster.select(CONFIG_MAP, server.namespace, {"colour": "red"})
    assert [one["metadata"]["name"] for one in found] == ["sel-a", "sel-b"]
    assert {(one["apiVersion"], one["kind"]) for one in found} == {("v1", "ConfigMap")}
    assert cluster.select(CONFIG_MAP, labels={"colour": blue})[0]["metadata"]["namespace"] == server.namespace
    assert cluster.select(CONFIG_MAP, server.namespace, {"colour": "green"}) == []


def test_select_reads_every_page(server: Server, cluster: KubernetesCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        cluster.apply(placed(server, config_map(f"page-{number}", {}, book="one")))
    monkeypatch.setattr(kubernetes_cluster, "PAGE", 2)
    found = cluster.select(CONFIG_MAP, server.namespace, {"book": "one"})
    assert [one["metadata"]["name"] for one in found] == [f"page-{number}" for number in range(5)]


def test_delete_removes_that_very_object_and_spares_its_namesake(server: Server, cluster: KubernetesCluster) -> None:
    wanted = placed(server, config_map("deleted"))
    cluster.apply(wanted)
    live = present(cluster, wanted)
    cluster.delete(Ref.of(wanted), "00000000-0000-0000-0000-000000000000")
    assert present(cluster, wanted) == live
    cluster.delete(Ref.of(wanted), live["metadata"]["uid"])
    assert cluster.get(Ref.of(wanted)) is None
    cluster.delete(Ref.of(wanted), live["metadata"]["uid"])


def test_dependants_follow_their_owner(server: Server, cluster: KubernetesCluster) -> None:
    owner = placed(server, config_map("owner"))
    cluster.apply(owner)
    uid = present(cluster, owner)["metadata"]["uid"]
    dependant = placed(server, config_map("dependant"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    dependant["metadata"]["ownerReferences"] = [reference]
    cluster.apply(dependant)
    cluster.delete(Ref.of(owner), uid)
    until(lambda: cluster.get(Ref.of(dependant)) is None)


def test_a_claim_and_the_volume_that_names_it_are_bound(server: Server, cluster: KubernetesCluster) -> None:
    name = f"bound-{server.namespace}"
    volume: Manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "name": "bound",
                "namespace": server.namespace,
            },
            "csi": {"driver": "a.test", "volumeHandle": name},
        },
    }
    claim = placed(
        server,
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "bound"},
            "spec": {
                "accessModes": ["ReadOnlyMany"],
                "storageClassName": "",
                "volumeName": name,
                "resources": {"requests": {"storage": "5Gi"}},
            },
        },
    )
    cluster.apply(volume)
    cluster.apply(claim)
    until(lambda: present(cluster, claim)["status"]["phase"] == "Bound")
    until(lambda: present(cluster, volume)["status"]["phase"] == "Bound")
    assert present(cluster, volume)["spec"]["claimRef"]["uid"] == present(cluster, claim)["metadata"]["uid"]
    # What the binder wrote is not ours to undo: the plan of the next run stays empty.
    for wanted in (volume, claim):
        assert cluster.preview(wanted)["spec"] == present(cluster, wanted)["spec"]
        cluster.delete(Ref.of(wanted), present(cluster, wanted)["metadata"]["uid"])
    until(lambda: cluster.get(Ref.of(claim)) is None)


def test_what_a_caller_may_do_can_be_asked(server: Server, cluster: KubernetesCluster) -> None:
    rights = [
        Permission("create", "", "secrets", server.namespace),
        Permission("get", "", "pods/log", server.namespace),
        Permission("patch", "workloads.x-k8s.io", "rolebasedgroups", server.namespace, "a"),
        Permission("create", "", "persistentvolumes"),
    ]
    assert all(cluster.allows(right) for right in rights)
    powerless = connect(server.powerless)
    assert not any(powerless.allows(right) for right in rights)


def test_a_forbidden_request_blocks_and_names_verb_resource_and_namespace(server: Server) -> None:
    powerless = connect(server.powerless)
    ref = Ref(CONFIG_MAP, "secret-thing", server.namespace)
    wanted = placed(server, config_map("secret-thing"))
    attempts: dict[str, Callable[[], object]] = {
        "get": lambda: powerless.get(ref),
        "list": lambda: powerless.select(CONFIG_MAP, server.namespace),
        "patch": lambda: powerless.apply(wanted),
        "delete": lambda: powerless.delete(ref, "any"),
    }
    for verb, attempt in attempts.items():
        with pytest.raises(Blocked, match=f"not allowed to {verb} configmaps.* in namespace {server.namespace}"):
            attempt()


def test_credentials_that_are_not_accepted_block(server: Server, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.write_text(with_token(server.kubeconfig, "nobody-knows-this"), encoding="utf-8")
    with pytest.raises(Blocked, match="does not accept our credentials"):
        connect(stranger).get(Ref(CONFIG_MAP, "a", server.namespace))


def test_the_log_of_what_never_ran_is_empty(server: Server, cluster: KubernetesCluster, api: Api) -> None:
    pod = {
        "metadata": {"name": "idle"},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}], "automountServiceAccountToken": False},
    }
    until(lambda: api("POST", "/api/v1/namespaces/{namespace}/pods", pod).status in (201, 409))
    assert cluster.pod_log(server.namespace, "idle", "main") == ""
    assert cluster.pod_log(server.namespace, "idle", "main", previous=True) == ""
    assert cluster.pod_log(server.namespace, "absent", "main") == ""


def test_a_custom_object_is_applied_like_any_other(server: Server, cluster: KubernetesCluster) -> None:
    wanted = placed(server, widget("custom", size=2, code="a", parts=[{"name": "a", "colour": "red"}]))
    assert cluster.preview(wanted)["spec"]["mode"] == "fast"
    cluster.apply(wanted)
    live = present(cluster, wanted)
    assert live["metadata"]["generation"] == 1
    assert live["spec"]["parts"] == [{"name": "a", "colour": "red"}]
    cluster.apply(placed(server, widget("custom", size=3, parts=[{"name": "b"}])))
    assert present(cluster, wanted)["spec"] == {"size": 3, "mode": "fast", "replicas": 1, "parts": [{"name": "b"}]}
    assert present(cluster, wanted)["metadata"]["generation"] == 2
