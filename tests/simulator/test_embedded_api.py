"""Promises of the embedded API alone: survival of kill -9, forgotten history, proxies, logs, faults."""

import contextlib
import json
import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes.client import ApiClient, CoreV1Api
from kubernetes.watch import Watch
from werkzeug import Request, Response

from steps.adapters.kubernetes.access import client_configuration
from steps.adapters.kubernetes.cluster import connect
from steps.kinds import Kind, Ref
from tests.support.api_servers import MERGE, Api, config_map
from workflows.simulator.core.cluster.errors import ApiError
from workflows.simulator.core.cluster.journal import JournalError
from workflows.simulator.core.cluster.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    PODS,
    SERVICES,
    Resource,
)
from workflows.simulator.core.cluster.seed import CRDS
from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.http import server
from workflows.simulator.http.api_server import ApiServer
from workflows.simulator.http.server import App, LoopbackServer, PortInUseError, json_reply, target_of

MAPS = "/api/v1/namespaces/{namespace}/configmaps"
POD_PATH = "/api/v1/namespaces/{namespace}/pods/worker"
POD = {
    "metadata": {"name": "worker", "namespace": "default"},
    "spec": {
        "containers": [
            {"name": "engine", "image": "a", "ports": [{"name": "http", "containerPort": 8000}]},
            {"name": "side", "image": "b"},
        ]
    },
}
GROUPS = Resource("workloads.x-k8s.io", "v1alpha1", "rolebasedgroups", "RoleBasedGroup", namespaced=True)


@contextmanager
def serving(folder: Path, store: ClusterStore | None = None, **options: Any) -> Iterator[Api]:
    server = ApiServer(store or ClusterStore(), **options)
    server.start()
    server.write_kubeconfig(folder / "kubeconfig")
    with Api(folder / "kubeconfig", "default") as api:
        yield api
    server.stop()


def planted(*folders: str) -> ClusterStore:
    store = ClusterStore()
    for folder in folders:
        for path in sorted((CRDS / folder).glob("*.yaml")):
            store.create(CUSTOM_RESOURCE_DEFINITIONS, yaml.safe_load(path.read_text(encoding="utf-8")))
    return store


class TestSurvival:
    def test_objects_versions_and_kinds_are_there_after_kill_9(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=write_until_killed, args=(tmp_path / "objects.db", there), daemon=True)
        process.start()
        last, revision = here.recv()
        process.kill()
        process.join()
        store = ClusterStore(tmp_path / "objects.db")
        assert store.get(CONFIG_MAPS, "a", "default") == last
        assert store.revision >= revision
        assert store.registry.kind("workloads.x-k8s.io/v1alpha1", "RoleBasedGroup") is not None
        changed = store.replace(CONFIG_MAPS, {**last, "data": {"n": "after"}})
        assert int(changed["metadata"]["resourceVersion"]) > revision
        store.close()

    def test_a_file_of_another_kind_is_refused_with_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "objects.db").write_text("this is no journal " * 100, encoding="utf-8")
        with pytest.raises(JournalError, match=r"cannot use .*objects\.db.*Next: "):
            ClusterStore(tmp_path / "objects.db")

    def test_a_port_in_use_is_refused_with_what_to_do(self, tmp_path: Path) -> None:
        with serving(tmp_path) as api:
            taken = urlsplit(client_configuration(api.kubeconfig).host).port or 0
            with pytest.raises(PortInUseError, match="Next: stop the program"):
                ApiServer(ClusterStore(), port=taken)


def write_until_killed(path: Path, channel: Connection) -> None:
    store = ClusterStore(path)
    definition = (CRDS / "rbg-v0.6.0" / "workloads.x-k8s.io_rolebasedgroups.yaml").read_text(encoding="utf-8")
    store.create(CUSTOM_RESOURCE_DEFINITIONS, yaml.safe_load(definition))
    written = store.create(CONFIG_MAPS, config_map("a"))
    for number in range(20):
        written = store.replace(CONFIG_MAPS, {**written, "data": {"n": str(number)}})
    channel.send((written, store.revision))
    threading.Event().wait()


class TestStore:
    def test_versions_of_a_kind_share_their_objects(self) -> None:
        store = planted("rbg-v0.8.0-alpha.5")
        first = store.registry.kind("workloads.x-k8s.io/v1alpha1", "RoleBasedGroup")
        second = store.registry.kind("workloads.x-k8s.io/v1alpha2", "RoleBasedGroup")
        assert first is not None
        assert second is not None
        made = store.create(first, {"metadata": {"name": "a", "namespace": "default"}, "spec": {"roles": []}})
        seen = store.get(second, "a", "default")
        assert seen == {**made, "apiVersion": "workloads.x-k8s.io/v1alpha2"}
        store.delete(second, "a", "default")
        assert store.get(first, "a", "default") is None

    def test_what_a_caller_does_to_its_copy_stays_there(self) -> None:
        store = ClusterStore()
        sent = config_map("mine", {"a": "1"})
        made = store.create(CONFIG_MAPS, sent)
        sent["data"]["a"] = made["data"]["a"] = "2"
        found = store.get(CONFIG_MAPS, "mine", "default")
        assert found is not None
        assert found["data"] == {"a": "1"}
        found["data"]["a"] = "3"
        assert store.select(CONFIG_MAPS, "default")[0]["data"] == {"a": "1"}

    def test_every_change_wakes_those_who_subscribed_and_no_change_does_not(self) -> None:
        store = ClusterStore()
        bell = store.subscribe()
        made = store.create(CONFIG_MAPS, config_map("bell"))
        assert bell.wait(30)
        store.replace(CONFIG_MAPS, made)
        assert not bell.wait(0)

    def test_writers_at_the_same_time_lose_nothing(self) -> None:
        store = ClusterStore()
        store.create(CONFIG_MAPS, config_map("counter", {"n": "0"}))

        def count() -> None:
            for _ in range(50):
                increase(store)

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = store.get(CONFIG_MAPS, "counter", "default")
        assert found is not None
        assert found["data"] == {"n": "200"}

    def test_a_definition_is_established_and_its_kind_goes_with_it(self) -> None:
        store = planted("rbg-v0.6.0")
        definition = store.get(CUSTOM_RESOURCE_DEFINITIONS, "rolebasedgroups.workloads.x-k8s.io")
        assert definition is not None
        conditions = {one["type"]: one["status"] for one in definition["status"]["conditions"]}
        assert conditions == {"NamesAccepted": "True", "Established": "True"}
        store.delete(CUSTOM_RESOURCE_DEFINITIONS, "rolebasedgroups.workloads.x-k8s.io")
        assert store.registry.kind("workloads.x-k8s.io/v1alpha1", "RoleBasedGroup") is None


def increase(store: ClusterStore) -> None:
    """Read, change, write; start again after a conflict."""
    written = False
    while not written:
        live = store.get(CONFIG_MAPS, "counter", "default")
        assert live is not None
        with contextlib.suppress(ApiError):
            store.replace(CONFIG_MAPS, {**live, "data": {"n": str(int(live["data"]["n"]) + 1)}})
            written = True


class TestHistory:
    def test_a_watch_from_a_forgotten_version_is_expired(self, tmp_path: Path) -> None:
        store = ClusterStore()
        with serving(tmp_path, store) as api:
            start = api("POST", MAPS, config_map("a")).revision
            api("PATCH", f"{MAPS}/a", {"data": {"b": "1"}}, kind=MERGE)
            store.log.compact(store.revision)
            (event,) = lines(api("GET", MAPS, watch="1", resourceVersion=start, timeoutSeconds=60).content)
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")

    def test_a_watch_goes_on_over_a_restart_only_if_nothing_was_missed(self, tmp_path: Path) -> None:
        store = ClusterStore(tmp_path / "objects.db")
        old = store.create(CONFIG_MAPS, config_map("a"))["metadata"]["resourceVersion"]
        store.create(CONFIG_MAPS, config_map("b"))
        store.close()
        with serving(tmp_path, ClusterStore(tmp_path / "objects.db")) as api:
            (event,) = lines(api("GET", MAPS, watch="1", resourceVersion=old, timeoutSeconds=60).content)
            newest = api("GET", MAPS).revision
            quiet = api("GET", MAPS, watch="1", resourceVersion=newest, timeoutSeconds=0.05)
        assert event["object"]["code"] == 410
        assert (quiet.status, quiet.content) == (200, "")

    def test_a_watch_that_asked_for_it_ends_with_a_bookmark(self, tmp_path: Path) -> None:
        with serving(tmp_path) as api:
            newest = api("POST", "/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "s"}}).revision
            query: dict[str, Any] = {"resourceVersion": newest, "timeoutSeconds": 0.05, "allowWatchBookmarks": "true"}
            (event,) = lines(api("GET", MAPS, watch="1", **query).content)
        assert event == {
            "type": "BOOKMARK",
            "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": newest}},
        }

    def test_a_watch_hears_of_a_change_while_it_waits(self, tmp_path: Path) -> None:
        store = ClusterStore()
        with serving(tmp_path, store) as api:
            core = CoreV1Api(ApiClient(client_configuration(api.kubeconfig)))
            stream = Watch().stream(core.list_namespaced_config_map, "default", timeout_seconds=30)
            store.create(CONFIG_MAPS, config_map("first"))
            assert next(stream)["raw_object"]["metadata"]["name"] == "first"
            store.create(CONFIG_MAPS, config_map("second"))
            assert next(stream)["raw_object"]["metadata"]["name"] == "second"
            stream.close()

    def test_a_stopped_server_ends_its_watches(self, tmp_path: Path) -> None:
        store = ClusterStore()
        store.create(CONFIG_MAPS, config_map("first"))
        server = ApiServer(store)
        server.start()
        server.write_kubeconfig(tmp_path / "kubeconfig")
        connection = HTTPConnection(urlsplit(server.url).netloc, timeout=30)
        connection.request("GET", "/api/v1/configmaps?watch=1&timeoutSeconds=60")
        response = connection.getresponse()
        assert b"first" in response.read1()
        server.stop()
        assert response.read1() == b""
        response.close()
        connection.close()

    def test_a_stopped_server_lets_its_watches_say_that_they_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cut_off, was_cut_off = threading.Event(), []
        end, close = server._Connection.end_chunks, LoopbackServer.stop

        def end_late(connection: Any) -> None:
            was_cut_off.append(cut_off.wait(0.2))
            end(connection)

        def close_all(closing: LoopbackServer) -> None:
            cut_off.set()
            close(closing)

        monkeypatch.setattr(server._Connection, "end_chunks", end_late)
        monkeypatch.setattr(LoopbackServer, "stop", close_all)
        api = ApiServer(ClusterStore())
        api.start()
        connection = HTTPConnection(urlsplit(api.url).netloc, timeout=30)
        connection.request("GET", "/api/v1/configmaps?watch=1&timeoutSeconds=60")
        response = connection.getresponse()
        api.stop()
        assert response.read() == b""
        assert was_cut_off == [False]
        connection.close()


def lines(text: Any) -> list[dict[str, Any]]:
    """A watch is lines of JSON; the test client parses a single line by itself."""
    return [text] if isinstance(text, dict) else [json.loads(line) for line in text.splitlines()]


def echo_app(go: threading.Event) -> App:
    """A pod that returns what it received; `/stream` sends its second half only after `go` is set."""

    def halves() -> Iterator[bytes]:
        for part in (b"data: 1\n\n", b"data: 2\n\n"):
            yield part
            go.wait(60)

    def serve(request: Request) -> Response:
        if request.path == "/stream":
            return Response(halves(), content_type="text/event-stream")
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = {"method": request.method, "path": target_of(request), "body": request.get_data(as_text=True)}
        return json_reply({**seen, "headers": headers}, 418)

    return serve


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[tuple[Api, threading.Event]]:
    """The API in front of a pod that echoes, and the event that lets its stream go on."""
    go = threading.Event()
    echo = LoopbackServer(echo_app(go))
    echo.start()
    asked = {("pods", "default", "worker", 8000), ("services", "default", "front", 80)}

    def target(*asking: Any) -> tuple[str, int] | None:
        return ("127.0.0.1", echo.port) if asking in asked else None

    store = ClusterStore()
    store.create(PODS, POD)
    spec = {"ports": [{"name": "web", "port": 80}, {"name": "other", "port": 81}]}
    store.create(SERVICES, {"metadata": {"name": "front", "namespace": "default"}, "spec": spec})
    with serving(tmp_path, store, proxy_target=target, token="for-the-api-only") as api:
        yield api, go
    go.set()
    echo.stop()


class TestProxy:
    @pytest.mark.parametrize(
        "place",
        ["pods/worker:8000", "pods/worker:http", "pods/http:worker:8000", "services/front:web", "services/front:80"],
    )
    def test_a_request_arrives_as_it_was_sent_without_our_credentials(
        self, pod: tuple[Api, threading.Event], place: str
    ) -> None:
        api, _ = pod
        path = "/api/v1/namespaces/{namespace}/" + place + "/proxy/v1/chat%20x"
        answer = api("POST", path, {"a": 1}, kind="application/x-own", stream="true")
        assert answer.status == 418
        heard = answer.content
        assert (heard["method"], heard["path"]) == ("POST", "/v1/chat%20x?stream=true")
        assert (heard["body"], heard["headers"]["content-type"]) == ('{"a": 1}', "application/x-own")
        assert "authorization" not in heard["headers"]

    def test_a_body_without_length_arrives_too(self, pod: tuple[Api, threading.Event]) -> None:
        connection, path, headers = direct(pod[0], "/proxy/upload")
        connection.request("POST", path, iter([b"one", b"two"]), headers, encode_chunked=True)
        assert json.loads(connection.getresponse().read())["body"] == "onetwo"
        connection.close()

    def test_a_stream_arrives_piece_by_piece(self, pod: tuple[Api, threading.Event]) -> None:
        api, go = pod
        connection, path, headers = direct(api, "/proxy/stream")
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        # The second piece is held back until the first one was read here.
        assert response.read1() == b"data: 1\n\n"
        go.set()
        assert response.read() == b"data: 2\n\n"
        connection.close()

    def test_where_nothing_listens_the_service_is_unavailable(self, pod: tuple[Api, threading.Event]) -> None:
        api, _ = pod
        for place in ("pods/worker:9999", "services/front:other", "services/front:none"):
            answer = api("GET", f"/api/v1/namespaces/default/{place}/proxy/health")
            assert (answer.status, answer.reason) == (503, "ServiceUnavailable")

    def test_a_pod_that_hangs_up_is_unavailable(self, tmp_path: Path) -> None:
        gone = LoopbackServer(echo_app(threading.Event()))
        port = gone.port
        gone.stop()
        store = ClusterStore()
        store.create(PODS, POD)
        with serving(tmp_path, store, proxy_target=lambda *_: ("127.0.0.1", port)) as api:
            answer = api("GET", f"{POD_PATH}:8000/proxy/health")
        assert (answer.status, answer.reason) == (503, "ServiceUnavailable")
        assert "error trying to reach service" in answer.message

    def test_a_refused_post_leaves_the_connection_usable(self, pod: tuple[Api, threading.Event]) -> None:
        api, _ = pod
        assert api("POST", "/api/v1/namespaces/default/pods/absent:80/proxy/", {"a": "b" * 10_000}).status == 404
        assert api("GET", POD_PATH).status == 200


def direct(api: Api, below: str) -> tuple[HTTPConnection, str, dict[str, str]]:
    configuration = client_configuration(api.kubeconfig)
    parts = urlsplit(configuration.host)
    headers = {"Authorization": str(configuration.get_api_key_with_prefix("BearerToken"))}
    path = POD_PATH.format(namespace="default") + ":8000" + below
    return HTTPConnection(parts.hostname or "", parts.port, timeout=30), path, headers


class TestLogs:
    @pytest.fixture
    def api(self, tmp_path: Path) -> Iterator[Api]:
        store = ClusterStore()
        store.create(PODS, POD)
        logs = {("engine", False): "one\ntwo\nthree\n", ("engine", True): "it died\n"}

        def log(namespace: str, name: str, container: str, previous: bool) -> str | None:
            assert (namespace, name) == ("default", "worker")
            return logs.get((container, previous))

        with serving(tmp_path, store, pod_log=log) as api:
            yield api

    def test_the_last_lines_are_read_also_of_the_container_before(self, api: Api) -> None:
        cluster = connect(api.kubeconfig)
        assert cluster.pod_log("default", "worker", "engine", lines=2) == "two\nthree\n"
        assert cluster.pod_log("default", "worker", "engine", previous=True) == "it died\n"

    def test_what_has_not_started_has_no_log(self, api: Api) -> None:
        assert connect(api.kubeconfig).pod_log("default", "worker", "side") == ""
        answer = api("GET", f"{POD_PATH}/log", container="side")
        assert (answer.status, answer.reason) == (400, "BadRequest")
        assert answer.message == 'container "side" in pod "worker" is waiting to start: ContainerCreating'

    @pytest.mark.parametrize(
        ("query", "words"),
        [({"container": "absent"}, "container absent is not valid"), ({}, "choose one of: [engine side]")],
    )
    def test_the_container_has_to_be_one_of_the_pod(self, api: Api, query: dict[str, str], words: str) -> None:
        answer = api("GET", f"{POD_PATH}/log", **query)
        assert answer.status == 400
        assert words in answer.message


def test_an_object_of_an_unforeseen_shape_is_answered_and_nothing_is_stored(tmp_path: Path) -> None:
    store = planted("rbg-v0.6.0")
    groups = "/apis/workloads.x-k8s.io/v1alpha1/namespaces/{namespace}/rolebasedgroups"
    head = {"apiVersion": GROUPS.api_version, "kind": GROUPS.kind, "metadata": {"name": "odd"}}
    with serving(tmp_path, store) as api:
        odd: tuple[Any, ...] = ([], {"roles": "many"}, {"roles": ["one"]}, {"roles": [{"no": "name"}]}, "words")
        for spec in odd:
            assert api.apply(f"{groups}/odd", {**head, "spec": spec}).status in (422, 500)
            assert api("POST", groups, {**head, "spec": spec}).status == 422
        assert api("GET", f"{groups}/odd").status == 404


class TestRights:
    def test_a_script_decides_by_verb_resource_namespace_and_name(self, tmp_path: Path) -> None:
        asked: list[tuple[str, ...]] = []

        def denied(*what: str) -> bool:
            asked.append(what)
            return what[:2] == ("patch", "secrets")

        with serving(tmp_path, denied=denied) as api:
            answer = api("PATCH", "/api/v1/namespaces/default/secrets/s", {}, kind=MERGE)
            api("GET", MAPS)
            api("GET", "/api/v1/nodes/n")
        assert (answer.status, answer.reason) == (403, "Forbidden")
        assert answer.message == (
            'secrets "s" is forbidden: User "slipway-embedded" cannot patch resource "secrets" in API group "" '
            'in the namespace "default"'
        )
        assert asked[1:] == [("list", "configmaps", "default", ""), ("get", "nodes", "", "n")]

    def test_without_the_token_nobody_is_served(self, tmp_path: Path) -> None:
        with serving(tmp_path, token="expected") as api:
            assert api("GET", MAPS).status == 200
            config = yaml.safe_load(api.kubeconfig.read_text(encoding="utf-8"))
            config["users"][0]["user"] = {}
            api.kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
            with Api(api.kubeconfig, "default") as stranger:
                answer = stranger("GET", MAPS)
        assert (answer.status, answer.reason) == (401, "Unauthorized")


def test_upstream_groups_are_accepted_and_their_typos_inside_a_role_too(tmp_path: Path) -> None:
    template = {"spec": {"containers": [{"name": "engine", "image": "sglang"}]}}
    role = {
        "name": "prefill",
        "replicas": 2,
        "template": template,
        "workload": {"apiVersion": "apps/v1", "kind": "StatefulSet"},
    }
    group = {
        "apiVersion": GROUPS.api_version,
        "kind": GROUPS.kind,
        "metadata": {"name": "pd", "namespace": "default"},
        "spec": {"roles": [{**role, "replicsa": 3}]},
    }
    with serving(tmp_path, planted("rbg-v0.6.0")) as api:
        cluster = connect(api.kubeconfig)
        cluster.apply(group)
        live = cluster.get(Ref(Kind(GROUPS.api_version, GROUPS.kind), "pd", "default"))
        assert live is not None
        # Upstream's schema keeps unknown fields of a role: the code that renders roles has to check them.
        assert live["spec"]["roles"][0]["replicsa"] == 3
        assert live["spec"]["roles"][0]["template"] == template
