"""Kubernetes API servers for contract tests: the embedded one, and a real one where there is one."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import requests
import yaml

from steps.adapters.kubernetes.access import api_access
from steps.adapters.kubernetes.cluster import KubernetesCluster, connect
from steps.kinds import Manifest, Ref
from steps.wiring import ENVIRONMENT
from workflows.simulator.core.cluster.controllers.garbage import GarbageCollector
from workflows.simulator.core.cluster.controllers.loop import Loop
from workflows.simulator.core.cluster.controllers.view import ClusterView
from workflows.simulator.core.cluster.controllers.volumes import VolumeBinder
from workflows.simulator.core.cluster.store import ClusterStore
from workflows.simulator.http.api_server import ApiServer

REAL = ENVIRONMENT.get("SLIPWAY_TEST_KUBECONFIG", "")
# Seconds. A real garbage collector stands still for 30 of them if a kind goes while it starts to watch that kind, and
# tests in another process take kinds away. pkg/controller/garbagecollector/garbagecollector.go, Sync
PATIENCE = 90.0
LOOK = 0.05  # seconds between two polls of asynchronous controllers

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
# A definition has no namespace: each test process has a kind of its own, which no other takes away.
GROUP = f"contract-{os.getpid()}.slipway.test"
WIDGETS = f"/apis/{GROUP}/v1/namespaces/{{namespace}}/widgets"

WIDGET_DEFINITION: Manifest = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"widgets.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "properties": {
                                    "size": {"type": "integer", "minimum": 1},
                                    "replicas": {"type": "integer", "default": 1},
                                    "mode": {"type": "string", "default": "fast", "enum": ["fast", "slow"]},
                                    "code": {"type": "string", "pattern": "^[a-z]+$"},
                                    "parts": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["name"],
                                        "items": {
                                            "type": "object",
                                            "required": ["name"],
                                            "properties": {
                                                "name": {"type": "string"},
                                                "colour": {"type": "string"},
                                                "weight": {"type": "integer"},
                                            },
                                        },
                                    },
                                },
                            },
                            "status": {
                                "type": "object",
                                "properties": {"ready": {"type": "boolean"}, "replicas": {"type": "integer"}},
                            },
                        },
                    }
                },
            }
        ],
    },
}


@dataclass(frozen=True)
class Answer:
    status: int
    content: Any

    @property
    def reason(self) -> str:
        return str(self.content["reason"])

    @property
    def message(self) -> str:
        return str(self.content["message"])

    @property
    def revision(self) -> str:
        return str(self.content["metadata"]["resourceVersion"])


class Api:
    """The API as bytes on the wire, without the abstractions of a client library."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self._access = api_access(kubeconfig)
        self._session = requests.Session()
        self._session.trust_env = False

    def __call__(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", **query: Any
    ) -> Answer:
        """`{namespace}` in `path` is the namespace of these tests."""
        response = self._session.request(
            method,
            self._access.url + path.format(namespace=self.namespace),
            params=query,
            data=None if body is None else json.dumps(body),
            headers={**self._access.headers, "Content-Type": kind, "User-Agent": "contract-test/1"},
            verify=self._access.verify,
            timeout=30,
        )
        is_json = response.headers.get("Content-Type", "").startswith("application/json")
        return Answer(response.status_code, response.json() if is_json and response.text else response.text)

    def apply(self, path: str, content: Manifest, *, manager: str = "one", **query: Any) -> Answer:
        return self("PATCH", path, content, kind=APPLY, fieldManager=manager, **query)

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Server:
    """A running API server with a volume binder and a garbage collector."""

    kubeconfig: Path  # may do everything
    powerless: Path  # may do nothing, except ask what it may do
    namespace: str
    lock: Path  # an existing file, the same for every process that uses this server

    def api(self) -> Api:
        return Api(self.kubeconfig, self.namespace)

    def cluster(self) -> KubernetesCluster:
        return connect(self.kubeconfig)


@contextmanager
def embedded(folder: Path) -> Iterator[Server]:
    store = ClusterStore(folder / "objects.db")
    everything = ApiServer(store, token="all")
    nothing = ApiServer(store, token="none", denied=lambda _verb, rule, *_: rule != "selfsubjectaccessreviews")
    view = ClusterView(store)
    controllers = Loop(view, store.subscribe(), (VolumeBinder(), GarbageCollector()))
    for started in (controllers, everything, nothing):
        started.start()
    everything.write_kubeconfig(folder / "kubeconfig")
    nothing.write_kubeconfig(folder / "powerless")
    try:
        with _furnished(folder) as namespace:
            yield Server(folder / "kubeconfig", folder / "powerless", namespace, folder / "kubeconfig")
    finally:
        for started in (nothing, everything, controllers):
            started.stop()
        store.close()


@contextmanager
def real(folder: Path) -> Iterator[Server]:
    """The server of SLIPWAY_TEST_KUBECONFIG; the objects of the tests are deleted afterwards."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(Path(REAL).read_text(encoding="utf-8"), encoding="utf-8")
    with _furnished(folder) as namespace:
        (folder / "powerless").write_text(_powerless(kubeconfig, namespace), encoding="utf-8")
        yield Server(kubeconfig, folder / "powerless", namespace, Path(REAL))


@contextmanager
def _furnished(folder: Path) -> Iterator[str]:
    """A namespace and the Widget kind."""
    definition = f"{DEFINITIONS}/{WIDGET_DEFINITION['metadata']['name']}"
    namespace = f"contract-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
    with Api(folder / "kubeconfig", namespace) as api:
        assert api("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}}).status == 201
        assert api("POST", DEFINITIONS, WIDGET_DEFINITION).status == 201
        until(lambda: is_served(api, WIDGET_DEFINITION))
        until(lambda: api("GET", WIDGETS).status == 200)
        # Such a list comes from the watch cache and waits for it; a watch from before it would be of too old a version.
        until(lambda: api("GET", WIDGETS, resourceVersion="1").status == 200)
        try:
            yield namespace
        finally:
            api("DELETE", definition)
            api("DELETE", f"/api/v1/namespaces/{namespace}")
            # The next module makes it again, and must not take remains of this one for its own.
            until(lambda: api("GET", definition).status == 404)
            until(lambda: not is_known(api, WIDGET_DEFINITION))


def _powerless(kubeconfig: Path, namespace: str) -> str:
    """The kubeconfig of a service account without any rights."""
    with Api(kubeconfig, namespace) as api:
        accounts = "/api/v1/namespaces/{namespace}/serviceaccounts"
        assert api("POST", accounts, {"metadata": {"name": "powerless"}}).status == 201
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
        answer = api("POST", f"{accounts}/powerless/token", request)
        assert answer.status == 201, answer
    return with_token(kubeconfig, answer.content["status"]["token"])


def with_token(kubeconfig: Path, token: str) -> str:
    """The same kubeconfig with another token."""
    config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    config["users"][0]["user"] = {"token": token}
    return yaml.safe_dump(config)


def is_served(api: Api, definition: Manifest) -> bool:
    """Whether discovery lists a custom kind, which it does a moment after the definition is Established."""
    versions = {version["name"] for version in definition["spec"]["versions"] if version["served"]}
    return _in_groups(api, definition) and _listed(api, definition) == versions


def is_known(api: Api, definition: Manifest) -> bool:
    """Whether discovery still lists anything of a custom kind, which it does for a moment after its definition."""
    return bool(_listed(api, definition))


def _in_groups(api: Api, definition: Manifest) -> bool:
    return definition["spec"]["group"] in {group["name"] for group in api("GET", "/apis").content["groups"]}


def _listed(api: Api, definition: Manifest) -> set[str]:
    """The versions of a custom kind that discovery lists."""
    spec, found = definition["spec"], set()
    for version in spec["versions"]:
        answer = api("GET", f"/apis/{spec['group']}/{version['name']}")
        kinds = {resource["kind"] for resource in answer.content["resources"]} if answer.status == 200 else ()
        found |= {version["name"]} if spec["names"]["kind"] in kinds else set()
    return found


def until(holds: Callable[[], bool]) -> None:
    """Wait for an asynchronous controller."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(LOOK)


def delete(cluster: KubernetesCluster, ref: Ref) -> None:
    """And wait until it is gone: finalizers may hold it, and an object applied meanwhile would go with it."""
    live = cluster.get(ref)
    if live is not None:
        cluster.delete(ref, live["metadata"]["uid"])
        until(lambda: cluster.get(ref) is None)


def config_map(name: str, data: Mapping[str, str] | None = None, **labels: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels} if labels else {"name": name},
        "data": dict(data or {}),
    }


def widget(name: str, **spec: Any) -> Manifest:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"size": 1, **spec},
    }
