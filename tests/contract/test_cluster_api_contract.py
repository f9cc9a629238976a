"""What the API itself promises, on the wire: the embedded one and a real one alike."""

from itertools import islice
from typing import Any

import pytest
from kubernetes.client import ApiClient, CoreV1Api
from kubernetes.dynamic import DynamicClient
from kubernetes.watch import Watch

from steps.adapters.kubernetes.access import client_configuration
from steps.adapters.kubernetes.discovery import Discovery
from tests.support.api_servers import (
    GROUP,
    MERGE,
    STRATEGIC,
    WIDGETS,
    Api,
    Server,
    config_map,
    until,
    widget,
)

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")  # of a test server

MAPS = "/api/v1/namespaces/{namespace}/configmaps"
SECRETS = "/api/v1/namespaces/{namespace}/secrets"
SERVICES = "/api/v1/namespaces/{namespace}/services"
CLAIMS = "/api/v1/namespaces/{namespace}/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
WATCHING = 30  # seconds; only a change that does not come takes them


def service(name: str, *ports: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "a"}, "ports": list(ports)},
    }


def port(number: int, name: str, **fields: Any) -> dict[str, Any]:
    return {"port": number, "name": name, "protocol": "TCP", **fields}


class TestCreate:
    def test_a_second_object_of_a_name_is_refused(self, api: Api) -> None:
        assert api("POST", MAPS, config_map("first")).status == 201
        answer = api("POST", MAPS, config_map("first"))
        assert (answer.status, answer.reason) == (409, "AlreadyExists")
        assert answer.content["details"] == {"name": "first", "kind": "configmaps"}

    def test_a_namespace_has_to_be_there_first(self, api: Api) -> None:
        answer = api("POST", "/api/v1/namespaces/nowhere/configmaps", config_map("a"))
        assert (answer.status, answer.message) == (404, 'namespaces "nowhere" not found')

    def test_a_prefix_becomes_a_name_of_its_own(self, api: Api) -> None:
        sent = {"metadata": {"generateName": "made-"}}
        names = {api("POST", MAPS, sent).content["metadata"]["name"] for _ in range(2)}
        assert len(names) == 2
        assert all(name.startswith("made-") and len(name) == 10 for name in names)

    @pytest.mark.parametrize(
        "metadata",
        [{"name": "Not_A_Name"}, {"name": "ok", "labels": {"a b": "c"}}, {"name": "ok", "labels": {"a": "c d"}}, {}],
    )
    def test_metadata_that_breaks_the_rules_is_invalid(self, api: Api, metadata: dict[str, Any]) -> None:
        answer = api("POST", MAPS, {"metadata": metadata})
        assert (answer.status, answer.reason) == (422, "Invalid")
        assert answer.content["details"]["causes"][0]["field"].startswith("metadata.")

    def test_text_is_encoded_and_the_type_filled_in(self, api: Api) -> None:
        answer = api("POST", SECRETS, {"metadata": {"name": "text"}, "stringData": {"a": "b"}})
        assert (answer.content["data"], answer.content["type"]) == ({"a": "Yg=="}, "Opaque")
        assert "stringData" not in answer.content

    def test_what_is_not_base64_is_a_bad_request(self, api: Api) -> None:
        answer = api("POST", SECRETS, {"metadata": {"name": "broken"}, "data": {"a": "%%"}})
        assert (answer.status, answer.reason) == (400, "BadRequest")

    def test_a_wrong_type_is_a_bad_request(self, api: Api) -> None:
        answer = api("POST", MAPS, {"metadata": {"name": "typed"}, "data": {"a": 5}})
        assert (answer.status, answer.reason) == (400, "BadRequest")

    def test_an_unknown_field_of_a_built_in_kind_is_dropped(self, api: Api) -> None:
        answer = api("POST", MAPS, {**config_map("unknown"), "dta": {"a": "b"}})
        assert answer.status == 201
        assert "dta" not in answer.content

    def test_a_rehearsal_leaves_nothing(self, api: Api) -> None:
        answer = api("POST", MAPS, config_map("rehearsed"), dryRun="All")
        assert (answer.status, bool(answer.content["metadata"]["uid"])) == (201, True)
        assert api("GET", f"{MAPS}/rehearsed").status == 404

    def test_a_volume_without_a_source_is_invalid(self, api: Api) -> None:
        answer = api("POST", VOLUMES, {"metadata": {"name": "empty"}, "spec": {}})
        assert (answer.status, answer.reason) == (422, "Invalid")
        assert {"spec.accessModes", "spec.capacity", "spec"} <= {
            cause["field"] for cause in answer.content["details"]["causes"]
        }

    def test_a_claim_starts_pending(self, api: Api) -> None:
        spec = {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "none",
            "resources": {"requests": {"storage": "1"}},
        }
        answer = api("POST", CLAIMS, {"metadata": {"name": "pending"}, "spec": spec, "status": {"phase": "Bound"}})
        assert answer.content["status"]["phase"] == "Pending"
        assert answer.content["spec"]["volumeMode"] == "Filesystem"
        assert api("DELETE", f"{CLAIMS}/pending").status == 200

    def test_a_service_gets_an_address_and_its_ports_a_target(self, api: Api) -> None:
        answer = api("POST", SERVICES, service("defaults", {"port": 80}))
        spec = answer.content["spec"]
        assert (spec["type"], spec["sessionAffinity"], spec["clusterIP"].count(".")) == ("ClusterIP", "None", 3)
        assert (spec["ports"][0]["protocol"], spec["ports"][0]["targetPort"]) == ("TCP", 80)


class TestReplace:
    def test_what_is_not_sent_is_gone(self, api: Api) -> None:
        api("POST", MAPS, config_map("whole", {"a": "1", "b": "2"}))
        assert api("PUT", f"{MAPS}/whole", config_map("whole", {"a": "1"})).content["data"] == {"a": "1"}

    def test_a_stale_version_is_a_conflict(self, api: Api) -> None:
        first = api("POST", MAPS, config_map("stale")).content
        api("PUT", f"{MAPS}/stale", config_map("stale", {"a": "1"}))
        answer = api("PUT", f"{MAPS}/stale", first)
        assert (answer.status, answer.reason) == (409, "Conflict")

    def test_another_uid_is_a_conflict(self, api: Api) -> None:
        api("POST", MAPS, config_map("namesake"))
        sent = config_map("namesake")
        sent["metadata"]["uid"] = "another"
        assert api("PUT", f"{MAPS}/namesake", sent).reason == "Conflict"

    def test_a_write_that_changes_nothing_makes_no_version(self, api: Api) -> None:
        first = api("POST", MAPS, config_map("same", {"a": "1"}))
        assert api("PUT", f"{MAPS}/same", config_map("same", {"a": "1"})).revision == first.revision

    def test_versions_rise_across_kinds(self, api: Api) -> None:
        first = api("POST", MAPS, config_map("rise-1"))
        second = api("POST", SECRETS, {"metadata": {"name": "rise-2"}})
        assert int(second.revision) > int(first.revision)

    def test_an_absent_object_is_not_made(self, api: Api) -> None:
        assert api("PUT", f"{MAPS}/absent", config_map("absent")).reason == "NotFound"

    def test_a_name_that_contradicts_the_path_is_a_bad_request(self, api: Api) -> None:
        assert api("PUT", f"{MAPS}/one", config_map("two")).reason == "BadRequest"

    def test_an_immutable_secret_keeps_its_data(self, api: Api) -> None:
        sent = {"metadata": {"name": "fixed"}, "data": {"a": "Yg=="}, "immutable": True}
        api("POST", SECRETS, sent)
        answer = api("PATCH", f"{SECRETS}/fixed", {"data": {"a": "Yw=="}}, kind=MERGE)
        assert (answer.status, answer.reason) == (422, "Invalid")

    def test_the_address_of_a_service_stays(self, api: Api) -> None:
        first = api("POST", SERVICES, service("address", port(80, "a"))).content["spec"]["clusterIP"]
        # Without an address, a PUT is refused or, by newer servers, understood as keeping it.
        put = api("PUT", f"{SERVICES}/address", service("address", port(81, "a")))
        assert put.status == 422 or put.content["spec"]["clusterIP"] == first
        assert api.apply(f"{SERVICES}/address", service("address", port(82, "b"))).content["spec"]["clusterIP"] == first
        answer = api("PATCH", f"{SERVICES}/address", {"spec": {"clusterIP": "10.96.0.77"}}, kind=MERGE)
        assert answer.reason == "Invalid"


class TestPatch:
    def test_a_merge_patch_replaces_lists_and_null_removes(self, api: Api) -> None:
        api("POST", MAPS, config_map("merged", {"a": "1", "b": "2"}))
        answer = api("PATCH", f"{MAPS}/merged", {"data": {"a": None, "c": "3"}}, kind=MERGE)
        assert answer.content["data"] == {"b": "2", "c": "3"}

    def test_a_strategic_patch_merges_ports_by_number(self, api: Api) -> None:
        api("POST", SERVICES, service("strategic", port(80, "a"), port(81, "b")))
        change = {"spec": {"ports": [{"port": 81, "targetPort": 9}, port(82, "c")]}}
        found = api("PATCH", f"{SERVICES}/strategic", change, kind=STRATEGIC).content["spec"]["ports"]
        assert {one["port"]: one["targetPort"] for one in found} == {80: 80, 81: 9, 82: 82}
        gone = {"spec": {"ports": [{"port": 81, "$patch": "delete"}]}}
        found = api("PATCH", f"{SERVICES}/strategic", gone, kind=STRATEGIC).content["spec"]["ports"]
        assert sorted(one["port"] for one in found) == [80, 82]

    def test_a_patch_that_names_a_stale_version_is_a_conflict(self, api: Api) -> None:
        api("POST", MAPS, config_map("versioned"))
        answer = api("PATCH", f"{MAPS}/versioned", {"metadata": {"resourceVersion": "1"}}, kind=MERGE)
        assert (answer.status, answer.reason) == (409, "Conflict")

    def test_a_uid_never_changes(self, api: Api) -> None:
        api("POST", MAPS, config_map("born"))
        assert api("PATCH", f"{MAPS}/born", {"metadata": {"uid": "a"}}, kind=MERGE).reason == "Invalid"

    def test_custom_objects_know_no_strategic_patch(self, api: Api) -> None:
        api("POST", WIDGETS, widget("plain"))
        answer = api("PATCH", f"{WIDGETS}/plain", {"spec": {"size": 2}}, kind=STRATEGIC)
        assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")


class TestApply:
    def test_a_conflict_names_the_other_manager_and_the_field(self, api: Api) -> None:
        assert api.apply(f"{MAPS}/shared", config_map("shared", {"a": "1"})).status == 201
        answer = api.apply(f"{MAPS}/shared", config_map("shared", {"a": "2"}), manager="two")
        assert (answer.status, answer.reason) == (409, "Conflict")
        assert answer.message == 'Apply failed with 1 conflict: conflict with "one": .data.a'
        cause = {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}
        assert answer.content["details"]["causes"] == [cause]

    def test_the_same_value_is_shared_without_conflict(self, api: Api) -> None:
        api.apply(f"{MAPS}/agreed", config_map("agreed", {"a": "1"}))
        assert api.apply(f"{MAPS}/agreed", config_map("agreed", {"a": "1"}), manager="two").status == 200
        # Only the last owner takes it away.
        assert api.apply(f"{MAPS}/agreed", config_map("agreed", {"b": "1"})).content["data"] == {"a": "1", "b": "1"}
        answer = api.apply(f"{MAPS}/agreed", config_map("agreed"), manager="two")
        assert answer.content["data"] == {"b": "1"}

    def test_force_takes_the_field_over(self, api: Api) -> None:
        api.apply(f"{MAPS}/taken", config_map("taken", {"a": "1"}))
        api.apply(f"{MAPS}/taken", config_map("taken", {"a": "2"}), manager="two", force="true")
        answer = api.apply(f"{MAPS}/taken", config_map("taken", {"a": "1"}))
        assert answer.message == 'Apply failed with 1 conflict: conflict with "two": .data.a'

    def test_an_edit_by_hand_is_a_conflict_too(self, api: Api) -> None:
        api.apply(f"{MAPS}/by-hand", config_map("by-hand", {"a": "1"}))
        api("PATCH", f"{MAPS}/by-hand", {"data": {"a": "2"}}, kind=MERGE)
        answer = api.apply(f"{MAPS}/by-hand", config_map("by-hand", {"a": "1"}))
        assert answer.status == 409
        assert 'conflict with "contract-test" using v1' in answer.message

    def test_items_of_keyed_lists_belong_to_those_who_declare_them(self, api: Api) -> None:
        api.apply(f"{SERVICES}/keyed", service("keyed", port(80, "a")))
        sent = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "keyed"}}
        theirs = {**sent, "spec": {"ports": [port(81, "b")]}}
        found = api.apply(f"{SERVICES}/keyed", theirs, manager="two").content["spec"]["ports"]
        assert [one["port"] for one in found] == [80, 81]
        found = api.apply(f"{SERVICES}/keyed", service("keyed", port(82, "c"))).content["spec"]["ports"]
        assert sorted(one["port"] for one in found) == [81, 82]

    def test_keyed_lists_of_custom_objects_merge_as_their_schema_says(self, api: Api) -> None:
        api.apply(f"{WIDGETS}/parts", widget("parts", parts=[{"name": "a", "colour": "red"}]))
        theirs = widget("parts", parts=[{"name": "a", "weight": 5}, {"name": "b"}])
        found = api.apply(f"{WIDGETS}/parts", theirs, manager="two").content["spec"]["parts"]
        assert found == [{"name": "a", "colour": "red", "weight": 5}, {"name": "b"}]
        mine = widget("parts", parts=[{"name": "a", "colour": "blue"}])
        found = api.apply(f"{WIDGETS}/parts", mine).content["spec"]["parts"]
        assert found == [{"name": "a", "colour": "blue", "weight": 5}, {"name": "b"}]

    def test_owned_fields_are_written_down(self, api: Api) -> None:
        answer = api.apply(f"{SERVICES}/owned", service("owned", port(80, "a")))
        (entry,) = answer.content["metadata"]["managedFields"]
        assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("one", "Apply", "v1")
        item: dict[str, Any] = {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}}
        assert entry["fieldsV1"]["f:spec"]["f:ports"] == {'k:{"port":80,"protocol":"TCP"}': item}

    def test_applying_the_same_makes_no_version(self, api: Api) -> None:
        first = api.apply(f"{SERVICES}/still", service("still", port(80, "a")))
        assert api.apply(f"{SERVICES}/still", service("still", port(80, "a"))).revision == first.revision

    def test_a_rehearsal_shows_the_result_and_keeps_the_old(self, api: Api) -> None:
        api.apply(f"{MAPS}/dry", config_map("dry", {"a": "1"}))
        answer = api.apply(f"{MAPS}/dry", config_map("dry", {"b": "2"}), dryRun="All")
        assert answer.content["data"] == {"b": "2"}
        assert api("GET", f"{MAPS}/dry").content["data"] == {"a": "1"}
        assert api.apply(f"{MAPS}/never", config_map("never"), dryRun="All").status == 201
        assert api("GET", f"{MAPS}/never").status == 404

    def test_labels_no_longer_declared_go_and_those_of_others_stay(self, api: Api) -> None:
        api.apply(f"{MAPS}/labelled", config_map("labelled", {}, a="1", b="2"))
        api("PATCH", f"{MAPS}/labelled", {"metadata": {"labels": {"c": "3"}}}, kind=MERGE)
        answer = api.apply(f"{MAPS}/labelled", config_map("labelled", {}, a="1"))
        assert answer.content["metadata"]["labels"] == {"a": "1", "c": "3"}

    @pytest.mark.parametrize(
        ("sent", "query", "status"),
        [
            (config_map("refused"), {"fieldManager": ""}, 422),
            (config_map("other-name"), {}, 400),
            ({"data": {}}, {}, 400),
            ({**config_map("refused"), "dta": {}}, {}, 500),
        ],
    )
    def test_what_cannot_be_applied_is_refused(
        self, api: Api, sent: dict[str, Any], query: dict[str, str], status: int
    ) -> None:
        answer = api(
            "PATCH", f"{MAPS}/refused", sent, kind="application/apply-patch+yaml", **{"fieldManager": "a", **query}
        )
        assert answer.status == status

    def test_a_stale_version_is_a_conflict_even_by_force(self, api: Api) -> None:
        api.apply(f"{MAPS}/forced", config_map("forced"))
        sent = config_map("forced")
        sent["metadata"]["resourceVersion"] = "1"
        assert api.apply(f"{MAPS}/forced", sent, force="true").status == 409


class TestCustomObjects:
    def test_absent_fields_get_their_defaults_and_unknown_ones_go(self, api: Api) -> None:
        answer = api("POST", WIDGETS, widget("filled", unknown=5))
        assert answer.content["spec"] == {"size": 1, "mode": "fast", "replicas": 1}

    @pytest.mark.parametrize(
        ("spec", "field"),
        [
            ({"size": 0}, "spec.size"),
            ({"size": "one"}, "spec.size"),
            ({"size": 1, "mode": "lazy"}, "spec.mode"),
            ({"size": 1, "code": "A1"}, "spec.code"),
            ({"size": None}, "spec.size"),
            ({"size": 1, "parts": [{"name": "a"}, {"name": "a"}]}, "spec.parts[1]"),
        ],
    )
    def test_what_the_schema_forbids_is_invalid(self, api: Api, spec: dict[str, Any], field: str) -> None:
        answer = api("POST", WIDGETS, {**widget("wrong"), "spec": spec})
        assert (answer.status, answer.reason) == (422, "Invalid")
        assert field in [cause["field"] for cause in answer.content["details"]["causes"]]

    def test_a_generation_counts_changes_of_the_spec_alone(self, api: Api) -> None:
        def generation(answer: Any) -> int:
            return int(answer.content["metadata"]["generation"])

        assert generation(api("POST", WIDGETS, widget("counted"))) == 1
        label = {"metadata": {"labels": {"a": "b"}}}
        assert generation(api("PATCH", f"{WIDGETS}/counted", label, kind=MERGE)) == 1
        status = {"status": {"ready": True}}
        assert generation(api("PATCH", f"{WIDGETS}/counted/status", status, kind=MERGE)) == 1
        assert generation(api("PATCH", f"{WIDGETS}/counted", {"spec": {"size": 2}}, kind=MERGE)) == 2

    def test_status_and_spec_have_doors_of_their_own(self, api: Api) -> None:
        made = api("POST", WIDGETS, {**widget("doors"), "status": {"ready": True}})
        assert "status" not in made.content
        both: dict[str, Any] = {"spec": {"size": 7}, "status": {"ready": True}}
        after_status = api("PATCH", f"{WIDGETS}/doors/status", both, kind=MERGE)
        assert (after_status.content["spec"]["size"], after_status.content["status"]) == (1, {"ready": True})
        both["status"]["ready"] = False
        after_spec = api("PATCH", f"{WIDGETS}/doors", both, kind=MERGE)
        assert (after_spec.content["spec"]["size"], after_spec.content["status"]) == (7, {"ready": True})

    def test_an_update_has_to_say_what_it_saw(self, api: Api) -> None:
        made = api("POST", WIDGETS, widget("seen"))
        assert api("PUT", f"{WIDGETS}/seen", widget("seen", size=2)).status == 422
        assert api("PUT", f"{WIDGETS}/seen", {**made.content, "spec": {"size": 2}}).status == 200
        assert api("PUT", f"{WIDGETS}/seen", {**made.content, "spec": {"size": 3}}).reason == "Conflict"

    def test_replicas_can_be_scaled(self, api: Api) -> None:
        api("POST", WIDGETS, widget("scaled", replicas=2))
        assert api("GET", f"{WIDGETS}/scaled/scale").content["spec"] == {"replicas": 2}
        answer = api("PATCH", f"{WIDGETS}/scaled/scale", {"spec": {"replicas": 5}}, kind=MERGE)
        assert (answer.content["kind"], answer.content["spec"]) == ("Scale", {"replicas": 5})
        assert api("GET", f"{WIDGETS}/scaled").content["spec"]["replicas"] == 5

    def test_another_version_in_the_body_is_a_bad_request(self, api: Api) -> None:
        sent = {**widget("other"), "apiVersion": f"{GROUP}/v2"}
        assert api("POST", WIDGETS, sent).reason == "BadRequest"
        assert api("POST", WIDGETS, {"metadata": {"name": "bare"}, "spec": {"size": 1}}).reason == "BadRequest"


class TestDelete:
    def test_preconditions_protect_a_namesake(self, api: Api) -> None:
        made = api("POST", MAPS, config_map("guarded"))
        for wrong in ({"uid": "another"}, {"resourceVersion": "1"}):
            answer = api("DELETE", f"{MAPS}/guarded", {"preconditions": wrong})
            assert (answer.status, answer.reason) == (409, "Conflict")
        right = {"uid": made.content["metadata"]["uid"], "resourceVersion": made.revision}
        answer = api("DELETE", f"{MAPS}/guarded", {"preconditions": right})
        assert (answer.status, answer.content["status"]) == (200, "Success")
        assert api("DELETE", f"{MAPS}/guarded").reason == "NotFound"

    def test_a_finalizer_holds_an_object_until_it_is_taken_away(self, api: Api) -> None:
        sent = config_map("held")
        sent["metadata"]["finalizers"] = [f"{GROUP}/hold"]
        api("POST", MAPS, sent)
        assert api("DELETE", f"{MAPS}/held").status == 200
        assert api("GET", f"{MAPS}/held").content["metadata"]["deletionTimestamp"]
        api("PATCH", f"{MAPS}/held", {"metadata": {"finalizers": None}}, kind=MERGE)
        assert api("GET", f"{MAPS}/held").status == 404

    def test_a_collection_is_deleted_by_labels(self, api: Api) -> None:
        for name, crop in (("many-1", "a"), ("many-2", "a"), ("many-3", "b")):
            api("POST", MAPS, config_map(name, {}, crop=crop))
        assert api("DELETE", MAPS, labelSelector="crop=a").status == 200
        left = api("GET", MAPS, labelSelector="crop").content["items"]
        assert [one["metadata"]["name"] for one in left] == ["many-3"]

    def test_a_namespace_takes_its_content_along(self, api: Api) -> None:
        name = f"{api.namespace}-gone"
        api("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        api("POST", f"/api/v1/namespaces/{name}/configmaps", config_map("inside"))
        api("DELETE", f"/api/v1/namespaces/{name}")
        until(lambda: api("GET", f"/api/v1/namespaces/{name}").status == 404)
        api("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        assert api("GET", f"/api/v1/namespaces/{name}/configmaps/inside").status == 404
        api("DELETE", f"/api/v1/namespaces/{name}")


class TestList:
    @pytest.mark.parametrize(
        ("selector", "found"),
        [
            ("fruit=apple", ["l-1"]),
            ("fruit!=apple,fruit", ["l-2", "l-3"]),
            ("fruit in (apple, pear)", ["l-1", "l-2"]),
            ("fruit notin (apple,pear),basket", ["l-3"]),
            ("basket,!ripe", ["l-1", "l-2"]),
            ("fruit==plum,ripe", ["l-3"]),
        ],
    )
    def test_label_selectors_choose(self, api: Api, selector: str, found: list[str]) -> None:
        for name, labels in (
            ("l-1", {"fruit": "apple", "basket": "x"}),
            ("l-2", {"fruit": "pear", "basket": "x"}),
            ("l-3", {"fruit": "plum", "basket": "x", "ripe": "yes"}),
        ):
            api("POST", MAPS, config_map(name, {}, **labels))
        items = api("GET", MAPS, labelSelector=selector).content["items"]
        assert [one["metadata"]["name"] for one in items] == found

    def test_a_selector_that_cannot_be_read_is_a_bad_request(self, api: Api) -> None:
        assert api("GET", MAPS, labelSelector="a in b").reason == "BadRequest"
        assert api("GET", MAPS, fieldSelector="data.a=b").reason == "BadRequest"

    def test_a_field_selector_names_one_object(self, api: Api) -> None:
        api("POST", MAPS, config_map("by-name"))
        items = api("GET", MAPS, fieldSelector="metadata.name=by-name").content["items"]
        assert [one["metadata"]["name"] for one in items] == ["by-name"]

    def test_a_long_list_comes_in_pages(self, api: Api) -> None:
        for number in range(3):
            api("POST", MAPS, config_map(f"p-{number}", {}, paged="yes"))
        first = api("GET", MAPS, labelSelector="paged", limit=2).content
        second = api("GET", MAPS, labelSelector="paged", limit=2, **{"continue": first["metadata"]["continue"]}).content
        assert (len(first["items"]), len(second["items"])) == (2, 1)
        assert not second["metadata"].get("continue")

    def test_a_list_says_what_it_is(self, api: Api) -> None:
        for path, kind in ((MAPS, "ConfigMapList"), (WIDGETS, "WidgetList")):
            found = api("GET", path).content
            assert (found["kind"], found["metadata"]["resourceVersion"].isdigit()) == (kind, True)

    def test_nothing_of_a_kind_is_an_empty_list(self, api: Api) -> None:
        assert api("GET", "/apis/apps/v1/namespaces/{namespace}/statefulsets").content["items"] == []


class TestWatch:
    def test_changes_arrive_in_order_from_a_known_version_on(self, api: Api) -> None:
        start = api("GET", MAPS).revision
        api("POST", MAPS, config_map("w", {}, watched="yes"))
        api("POST", MAPS, config_map("unwatched"))
        api("PATCH", f"{MAPS}/w", {"data": {"a": "1"}}, kind=MERGE)
        api("DELETE", f"{MAPS}/w")
        assert seen(api, 3, resource_version=start, label_selector="watched") == [
            ("ADDED", "w"),
            ("MODIFIED", "w"),
            ("DELETED", "w"),
        ]

    def test_an_object_that_starts_or_ceases_to_match_comes_or_goes(self, api: Api) -> None:
        api("POST", MAPS, config_map("turn"))
        start = api("GET", MAPS).revision
        api("PATCH", f"{MAPS}/turn", {"metadata": {"labels": {"turned": "yes"}}}, kind=MERGE)
        api("PATCH", f"{MAPS}/turn", {"metadata": {"labels": {"turned": None}}}, kind=MERGE)
        assert seen(api, 2, resource_version=start, label_selector="turned") == [("ADDED", "turn"), ("DELETED", "turn")]

    def test_without_a_version_what_exists_comes_first(self, api: Api) -> None:
        api("POST", MAPS, config_map("there", {}, here="yes"))
        assert seen(api, 1, label_selector="here") == [("ADDED", "there")]

    def test_a_custom_kind_can_be_watched(self, api: Api) -> None:
        start = api("GET", WIDGETS).revision
        api("POST", WIDGETS, widget("in-sight"))
        client = DynamicClient(ApiClient(client_configuration(api.kubeconfig)), discoverer=Discovery)
        resource = client.resources.get(f"{GROUP}/v1", "Widget")
        event = next(resource.watch(namespace=api.namespace, resource_version=start, timeout=WATCHING))
        assert (event["type"], event["raw_object"]["metadata"]["name"]) == ("ADDED", "in-sight")


def seen(api: Api, count: int, **query: str) -> list[tuple[str, str]]:
    """The first so many changes that the official client hears."""
    core = CoreV1Api(ApiClient(client_configuration(api.kubeconfig)))
    events = Watch().stream(core.list_namespaced_config_map, api.namespace, timeout_seconds=WATCHING, **query)
    return [(event["type"], event["raw_object"]["metadata"]["name"]) for event in islice(events, count)]


class TestDiscovery:
    def test_the_official_client_finds_its_way(self, server: Server, tmp_path: Any) -> None:
        client = DynamicClient(ApiClient(client_configuration(server.kubeconfig)), cache_file=str(tmp_path / "cache"))
        assert client.version["kubernetes"]["major"] == "1"
        secrets = client.resources.get(api_version="v1", kind="Secret")
        widgets = client.resources.get(api_version=f"{GROUP}/v1", kind="Widget")
        assert (secrets.name, secrets.namespaced, widgets.name) == ("secrets", True, "widgets")
        assert {"status", "scale"} <= widgets.subresources.keys()

    def test_a_group_that_is_not_served_answers_in_plain_text(self, api: Api) -> None:
        answer = api("GET", "/apis/absent.slipway.test/v1")
        assert (answer.status, answer.content) == (404, "404 page not found\n")
        answer = api("GET", "/api/v1/namespaces/{namespace}/gadgets")
        assert (answer.status, answer.reason) == (404, "NotFound")

    def test_a_method_that_does_not_fit_is_not_allowed(self, api: Api) -> None:
        assert api("PUT", MAPS, config_map("a")).reason == "MethodNotAllowed"


class TestSubresources:
    def test_the_log_and_the_proxy_of_an_absent_pod_are_absent(self, api: Api) -> None:
        pod = "/api/v1/namespaces/{namespace}/pods/absent"
        assert api("GET", f"{pod}/log").reason == "NotFound"
        assert api("GET", f"{pod}:80/proxy/health").reason == "NotFound"
        assert api("GET", "/api/v1/namespaces/{namespace}/services/absent:80/proxy/").reason == "NotFound"

    def test_a_service_without_endpoints_is_unavailable(self, api: Api) -> None:
        api("POST", SERVICES, service("nobody", port(80, "a")))
        health = f"{SERVICES}/nobody:80/proxy/health"
        until(lambda: api("GET", health).status != 404)  # the proxy hears of a new Service a moment later
        answer = api("GET", health)
        assert (answer.status, answer.reason) == (503, "ServiceUnavailable")


class TestImmutability:
    def test_a_claim_may_grow_once_bound_and_change_in_nothing_else(self, api: Api) -> None:
        name = f"grow-{api.namespace}"
        csi = {"driver": "a.test", "volumeHandle": name}
        common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
        api(
            "POST",
            VOLUMES,
            {"metadata": {"name": name}, "spec": {**common, "capacity": {"storage": "9Gi"}, "csi": csi}},
        )
        spec = {**common, "volumeName": name, "resources": {"requests": {"storage": "5Gi"}}}
        api("POST", CLAIMS, {"metadata": {"name": "grow"}, "spec": spec})
        until(lambda: api("GET", f"{CLAIMS}/grow").content["status"]["phase"] == "Bound")
        for change in ({"accessModes": ["ReadWriteMany"]}, {"resources": {"requests": {"storage": "1Gi"}}}):
            answer = api("PATCH", f"{CLAIMS}/grow", {"spec": change}, kind=MERGE)
            assert (answer.status, answer.reason) in ((422, "Invalid"), (403, "Forbidden"))
        api("DELETE", f"{CLAIMS}/grow")
        api("DELETE", f"{VOLUMES}/{name}")
        until(lambda: api("GET", f"{VOLUMES}/{name}").status == 404)
