"""`kubectl delete -k` of a rendered folder takes its own objects away, and no object of other people.

With the very commands that `render` prints, on a real API server: the embedded one has no schema for `kubectl apply`.
All kinds that it can list are compared. tests/argo/test_install.py compares the folders, which needs no server.
"""

import json
import re
import shutil
import subprocess  # noqa: TID251  # what a person types is kubectl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from steps.catalogue import permissions_of_accounts
from steps.document.schema import ModelService
from steps.kinds import PERSISTENT_VOLUME, Manifest, Ref
from steps.objects import record, services, volume
from steps.objects.record import Record
from steps.ports.oss import AccessKey
from steps.release import Release
from steps.wiring import ENVIRONMENT
from tests.support.api_servers import REAL, Api, Server, config_map, real, until
from tests.support.argo_cluster import definition
from tests.support.custom_kinds import custom_kinds
from tests.support.folders import Identity, built, document, identity
from tests.support.samples import release
from workflows.argo.bundle import bundle, commands, write

KUBECTL = shutil.which("kubectl")

pytestmark = [
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),  # of a test server
    pytest.mark.cluster,
    pytest.mark.skipif(not REAL, reason="SLIPWAY_TEST_KUBECONFIG names no real API server"),
    pytest.mark.skipif(KUBECTL is None, reason="this machine has no kubectl, whose delete is looked at"),
    pytest.mark.timeout(300),
]

# https://kubernetes.io/releases/version-skew-policy/#kubectl
SUPPORTED_SKEW = 1
ARGO = ("Workflow", "WorkflowTemplate", "CronWorkflow", "WorkflowEventBinding")
KEY = AccessKey("dummy-id", "dummy-secret")
# What controllers of a server write by themselves.
NOISE = {"Event", "Lease", "EndpointSlice", "Endpoints"}


@dataclass(frozen=True)
class Cluster:
    """A server with two services of one workflow namespace, one of which serves, and things of other people."""

    server: Server
    folder: Path
    chat: Release
    code: Release

    def kubectl(self, *words: str) -> None:
        # A home of its own: the cache of discovery in the person's may be of another server.
        environment = {**ENVIRONMENT, "HOME": str(self.folder), "KUBECONFIG": str(self.server.kubeconfig)}
        ended = subprocess.run(
            [str(KUBECTL), *words], env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert ended.returncode == 0, f"kubectl {' '.join(words)}: {ended.stderr}"

    @property
    def namespaces(self) -> set[str]:
        return {self.chat.service.namespace, self.chat.service.workflow.namespace}

    def objects(self) -> set[Identity]:
        """All in both namespaces, and all without a namespace that name one of them."""
        with self.server.api() as api:
            return {one for path, kind in _listable(api) for one in self._listed(api, path, kind)}

    def _listed(self, api: Api, path: str, kind: str) -> Iterator[Identity]:
        answer = api("GET", path)
        for found in answer.content.get("items") or () if answer.status == 200 else ():
            space, name = found["metadata"].get("namespace", ""), found["metadata"]["name"]
            mine = space in self.namespaces or (not space and any(one in json.dumps(found) for one in self.namespaces))
            of_token = found.get("type") == "kubernetes.io/service-account-token"  # 1.20 makes one for each account
            if mine and not of_token:
                yield kind, space, name


def _listable(api: Api) -> Iterator[tuple[str, str]]:
    """(path, kind) of everything that the server can list, in the version that it prefers."""
    groups = [group["preferredVersion"]["groupVersion"] for group in api("GET", "/apis").content["groups"]]
    for prefix in ("/api/v1", *(f"/apis/{group}" for group in groups)):
        answer = api("GET", prefix)
        for resource in answer.content["resources"] if answer.status == 200 else ():
            if "list" in resource["verbs"] and resource["kind"] not in NOISE:
                yield f"{prefix}/{resource['name']}", resource["kind"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with real(tmp_path_factory.mktemp("api-server")) as started:
        skew = _minors_apart(started)
        if skew > SUPPORTED_SKEW:
            pytest.skip(f"kubectl and server are {skew} minor versions apart, supported is {SUPPORTED_SKEW}")
        yield started


def _minors_apart(server: Server) -> int:
    words = [str(KUBECTL), "version", "--output=json", f"--kubeconfig={server.kubeconfig}"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(ended.stdout)
    client, api = (int(re.sub("[^0-9]", "", found[side]["minor"])) for side in ("clientVersion", "serverVersion"))
    return abs(client - api)


@pytest.fixture
def cluster(server: Server, tmp_path: Path) -> Iterator[Cluster]:
    sets = (f"metadata.namespace={server.namespace}", f"workflow.namespace={server.namespace}-runs")
    chat, code = (release(*sets, f"metadata.name={name}", f"endpoint.service={name}") for name in ("chat", "code"))
    found = Cluster(server, tmp_path, chat, code)
    with custom_kinds(server, *map(definition, ARGO)), _workflow_namespace(found):
        for one in (chat.service, code.service):
            _apply(found, one)
        _serve(found)
        yield found


@contextmanager
def _workflow_namespace(cluster: Cluster) -> Iterator[None]:
    name = cluster.chat.service.workflow.namespace
    with cluster.server.api() as api:
        assert api("POST", "/api/v1/namespaces", {"metadata": {"name": name}}).status == 201
        try:
            yield
        finally:
            api("DELETE", f"/api/v1/namespaces/{name}")
            cluster_roles = "/apis/rbac.authorization.k8s.io/v1/clusterrole"
            for one in (one for one in built(cluster.folder / "install") if one["kind"] == "ClusterRole"):
                for plural in ("s", "bindings"):
                    api("DELETE", f"{cluster_roles}{plural}/{one['metadata']['name']}")
            for live in cluster.server.cluster().select(PERSISTENT_VOLUME, "", cluster.chat.labels):
                cluster.server.cluster().delete(Ref.of(live), live["metadata"]["uid"])
            until(lambda: api("GET", f"/api/v1/namespaces/{name}").status == 404)


def _apply(cluster: Cluster, service: ModelService) -> None:
    """What `render` tells to type; the namespaces are there, and not every server has admission policies."""
    write(bundle(document(cluster.folder, service), "4.1"), cluster.folder)
    typed = [line.partition("#")[0].split() for line in commands(service, cluster.folder)]
    applied = [words[1:] for words in typed if words[1] == "apply" and not words[-1].endswith("/policy")]
    assert len(applied) == 2
    for words in applied:
        cluster.kubectl(*words)


def _serve(cluster: Cluster) -> None:
    """What the steps of `chat` made, a run of each, and things of other people in both namespaces."""
    made, connected = cluster.chat, cluster.server.cluster()
    for one in (
        volume.secret(made, KEY),
        volume.persistent_volume(made, "1Ti"),
        volume.claim(made, "1Ti"),
        services.traffic_service(made),
        services.release_service(made),
        record.record(made.service, Record()),
        *(_foreign(space) for space in cluster.namespaces),
        *(_run(of.service) for of in (cluster.chat, cluster.code)),
    ):
        connected.apply(one)


def _foreign(namespace: str) -> Manifest:
    found = config_map("of-another-team", {"a": "b"})
    return {**found, "metadata": {**found["metadata"], "namespace": namespace}}


def _run(service: ModelService) -> Manifest:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": f"{service.name}-1", "namespace": service.workflow.namespace},
        "spec": {"workflowTemplateRef": {"name": service.name}},
    }


def _of(folder: Path) -> set[Identity]:
    return {identity(one) for one in built(folder)}


def test_deleting_a_service_takes_its_doors_and_leaves_everything_else(cluster: Cluster) -> None:
    before = cluster.objects()
    own = _of(cluster.folder / "service" / "chat")
    assert own <= before
    assert {("PersistentVolume", "", cluster.chat.volume_name), ("Namespace", "", cluster.server.namespace)} <= before
    cluster.kubectl("delete", "-k", str(cluster.folder / "service" / "chat"))
    until(lambda: cluster.objects() == before - own)
    assert _denied(cluster, cluster.code.service) == []


def test_deleting_the_installation_takes_no_namespace_and_applying_it_again_gives_all_rights_back(
    cluster: Cluster,
) -> None:
    before = cluster.objects()
    own = _of(cluster.folder / "install")
    assert own <= before
    cluster.kubectl("delete", "-k", str(cluster.folder / "install"))
    until(lambda: cluster.objects() == before - own)
    cluster.kubectl("apply", "-k", str(cluster.folder / "install"))
    assert cluster.objects() == before
    for of in (cluster.chat, cluster.code):
        until(lambda service=of.service: _denied(cluster, service) == [])  # type: ignore[misc]


def test_pruning_by_the_label_of_a_service_removes_what_left_its_folder_and_nothing_that_serves(
    cluster: Cluster,
) -> None:
    """The steps write server-side as a manager of their own, and kubectl prunes only what it applied itself."""
    before = cluster.objects()
    folder = cluster.folder / "service" / "chat"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    kustomization["resources"].remove("cron-workflow.yaml")
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    kinds = ("ConfigMap", "Secret", "Service", "PersistentVolume", "PersistentVolumeClaim")
    pruned = ("argoproj.io/v1alpha1/CronWorkflow", *(f"core/v1/{kind}" for kind in kinds))
    allowed = (f"--prune-allowlist={kind}" for kind in pruned)
    cluster.kubectl("apply", "-k", str(folder), "--prune", "--selector=slipway/service=chat", *allowed)
    until(lambda: cluster.objects() == before - {("CronWorkflow", f"{cluster.server.namespace}-runs", "chat")})


def _denied(cluster: Cluster, service: ModelService) -> list[Any]:
    """What the accounts of the steps lack."""
    connected = cluster.server.cluster()
    return [right for right in permissions_of_accounts(service) if not connected.allows(right)]
