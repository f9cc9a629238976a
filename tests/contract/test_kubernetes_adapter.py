"""How the Kubernetes adapter bears a server that stumbles, lies or is not there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiException
from kubernetes.config import incluster_config

from steps.adapters.kubernetes import cluster as kubernetes_cluster
from steps.adapters.kubernetes.access import api_access
from steps.adapters.kubernetes.cluster import KubernetesCluster, connect
from steps.adapters.kubernetes.errors import ApiRequest, refusal
from steps.errors import Blocked, TransientError
from steps.kinds import Kind, Ref
from steps.reconcile.retry_policy import RetryPolicy
from tests.support.api_servers import config_map
from workflows.simulator.core.cluster.resources import CONFIG_MAPS, NAMESPACES
from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.faults import request_faults
from workflows.simulator.faults.request_faults import RequestFaults
from workflows.simulator.http.api_server import ApiServer
from workflows.simulator.http.server import LoopbackServer, text

REF = Ref(Kind("v1", "ConfigMap"), "a", "default")
WANTED = {**config_map("a", {"n": "1"}), "metadata": {"name": "a", "namespace": "default"}}


@contextmanager
def stumbling(
    folder: Path, *script: tuple[str, str]
) -> Iterator[tuple[KubernetesCluster, RequestFaults, ClusterStore]]:
    store, plan = ClusterStore(), RequestFaults(planned=script)
    server = ApiServer(store, faults=plan)
    server.start()
    server.write_kubeconfig(folder / "kubeconfig")
    yield connect(folder / "kubeconfig"), plan, store
    server.stop()


@pytest.mark.parametrize(
    "kind", [request_faults.SERVER_ERROR, request_faults.UNAVAILABLE, request_faults.THROTTLED, request_faults.DROP]
)
def test_a_read_outlives_answers_that_do_not_come(tmp_path: Path, kind: str) -> None:
    with stumbling(tmp_path, *[("GET /api/v1/namespaces", kind)] * 2) as (cluster, plan, store):
        store.create(CONFIG_MAPS, WANTED)
        live = cluster.get(REF)
        assert live is not None
        assert live["data"] == {"n": "1"}
        assert len(plan.injected) == 2


def test_an_apply_whose_answer_is_lost_is_done_once(tmp_path: Path) -> None:
    with stumbling(tmp_path, ("PATCH", request_faults.LOST_ANSWER)) as (cluster, plan, store):
        cluster.apply(WANTED)
        assert len(plan.injected) == 1
        # One change, although it was asked for twice.
        assert store.get(CONFIG_MAPS, "a", "default")["metadata"]["resourceVersion"] == str(store.revision)  # type: ignore[index]


def test_a_delete_whose_answer_is_lost_is_done(tmp_path: Path) -> None:
    with stumbling(tmp_path, ("DELETE", request_faults.LOST_ANSWER)) as (cluster, plan, store):
        uid = store.create(CONFIG_MAPS, WANTED)["metadata"]["uid"]
        cluster.delete(REF, uid)
        assert cluster.get(REF) is None
        assert len(plan.injected) == 1


def test_a_server_that_never_answers_is_no_answer_after_some_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_cluster, "RETRIES", RetryPolicy(attempts=3))
    always = [("/configmaps", request_faults.UNAVAILABLE)] * 50
    with stumbling(tmp_path, *always) as (cluster, plan, _):
        with pytest.raises(TransientError, match="no answer from the API server when asked to get configmaps a in"):
            cluster.get(REF)
        assert len(plan.injected) == 3


def test_a_refusal_is_not_asked_again(tmp_path: Path) -> None:
    with stumbling(tmp_path, ("/configmaps", request_faults.FORBIDDEN)) as (cluster, plan, _):
        with pytest.raises(Blocked, match="not allowed to get configmaps a in namespace default"):
            cluster.get(REF)
        assert len(plan.injected) == 1


def test_a_rule_of_the_cluster_is_not_taken_for_a_missing_right(tmp_path: Path) -> None:
    with stumbling(tmp_path) as (cluster, _, store):
        store.create(NAMESPACES, {"metadata": {"name": "ending"}, "spec": {"finalizers": ["kubernetes"]}})
        store.delete(NAMESPACES, "ending")
        with pytest.raises(Blocked, match=r"refuses to patch configmaps a in namespace ending: .*being terminated"):
            cluster.apply({**WANTED, "metadata": {"name": "a", "namespace": "ending"}})


@pytest.mark.parametrize(
    "words",
    [
        'secrets "a" is forbidden: User "system:serviceaccount:s:b" cannot create resource "secrets" in API group ""',
        'secrets "a" is forbidden: ',
        'secrets "a" is forbidden: RBAC: role.rbac.authorization.k8s.io "b" not found',
    ],
    ids=["1.33", "1.20", "a role is gone"],
)
def test_an_apply_that_may_not_create_names_create_however_the_server_puts_it(words: str) -> None:
    answer = ApiException(status=403)
    answer.body = json.dumps({"kind": "Status", "message": words})
    assert "grant `create` on `secrets`" in str(refusal(ApiRequest("patch", "secrets", "s", "a"), answer))


def test_a_server_that_is_down_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_cluster, "RETRIES", RetryPolicy(attempts=2))
    with stumbling(tmp_path) as (cluster, _, _):
        pass
    with pytest.raises(TransientError, match="no answer from the API server"):
        cluster.get(REF)


def test_a_page_instead_of_json_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_cluster, "RETRIES", RetryPolicy(attempts=1))
    # A portal in front of the cluster while the VPN is off: every page is HTML.
    portal = LoopbackServer(lambda _request: text("<html>please log in</html>", content_type="text/html"))
    portal.start()
    kubeconfig(tmp_path / "kubeconfig", portal.url)
    with pytest.raises(TransientError, match="not JSON"):
        connect(tmp_path / "kubeconfig").get(REF)
    portal.stop()


def kubeconfig(path: Path, url: str, **user: Any) -> Path:
    lines = [
        "clusters: [{name: a, cluster: {server: '" + url + "'}}]",
        f"users: [{{name: a, user: {user or '{}'}}}]",
        "contexts: [{name: a, context: {cluster: a, user: a}}]",
        "current-context: a",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_an_absent_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(Blocked, match=r"there is no kubeconfig at .*absent") as caught:
        connect(tmp_path / "absent")
    assert "KUBECONFIG" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    ["", "clusters: 5", "just words", "a: [", "current-context: nowhere\nclusters: []\ncontexts: []\nusers: []"],
)
def test_an_unusable_kubeconfig_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(Blocked, match=r"kubeconfig .* is unusable"):
        connect(path)


def test_outside_a_cluster_there_is_no_service_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Blocked, match="cannot use the service account of this pod") as caught:
        connect(None)
    assert "KUBECONFIG" in caught.value.hint


def test_inside_a_cluster_the_service_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text(f"dummy-{name}", encoding="utf-8")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    access = api_access(None)
    assert (access.url, access.verify, access.cert) == ("https://10.96.0.1:443", str(tmp_path / "ca.crt"), None)
    assert access.headers == {"Authorization": "bearer dummy-token"}


def test_access_carries_the_token_and_never_shows_it(tmp_path: Path) -> None:
    access = api_access(kubeconfig(tmp_path / "kubeconfig", "https://example.test:6443/", token="dummy-token"))
    assert (access.url, access.verify, access.cert) == ("https://example.test:6443", True, None)
    assert access.headers == {"Authorization": "Bearer dummy-token"}
    assert "dummy-token" not in repr(access)


def test_access_without_a_token_sends_none(tmp_path: Path) -> None:
    assert api_access(kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")).headers == {}
