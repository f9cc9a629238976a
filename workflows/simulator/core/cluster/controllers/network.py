"""Cluster DNS and Services: from names and ports inside the cluster to real addresses on loopback.

https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
"""

import itertools
from collections.abc import Callable
from typing import Any

from workflows.simulator.core.cluster.controllers.view import ClusterView, is_going, is_true
from workflows.simulator.core.cluster.kubelet.probes import container_port
from workflows.simulator.core.cluster.resources import ENDPOINTS, PODS, SERVICES
from workflows.simulator.core.cluster.store import Manifest
from workflows.simulator.runtime import Address, Dial

REFUSING: Address = ("127.0.0.1", 1)  # a closed port: the connection is refused, as in a cluster
_DOMAIN = ["svc", "cluster", "local"]
_SERVICE_RANGE = "10.96"


class Network:
    """Thread-safe: it reads the store, and asks the kubelet where a port listens."""

    def __init__(self, view: ClusterView, listens: Callable[[str, int], Address | None]) -> None:
        """`listens` takes the uid of a pod and a port."""
        self._view = view
        self._listens = listens
        self._turn = itertools.count()

    def dial(self, namespace: str) -> Dial:
        """How pods of a namespace reach others."""
        return lambda host, port: self._dial(host, port, namespace)

    def pod_address(self, namespace: str, name: str, port: int) -> Address | None:
        """The real address of a pod's port; None without such a pod, or while the port is closed."""
        pod = self._view.get(PODS, name, namespace)
        return self._listens(pod["metadata"]["uid"], port) if pod else None

    def service_address(self, namespace: str, name: str, port: int | str) -> Address | None:
        """A ready pod behind a Service, in turn; None without one. `port` is number or name of the Service's port."""
        service = self._view.get(SERVICES, name, namespace)
        return self._through(service, port) if service else None

    def _dial(self, host: str, port: int, namespace: str) -> Address:
        for pod in self._view.all(PODS):
            if (pod.get("status") or {}).get("podIP") == host:
                return self._listens(pod["metadata"]["uid"], port) or REFUSING
        for service in self._view.all(SERVICES):
            if service["spec"].get("clusterIP") == host:
                return self._through(service, port) or REFUSING
        return self._by_name(host, port, namespace)

    def _by_name(self, host: str, port: int, namespace: str) -> Address:
        labels = host.rstrip(".").split(".")
        for length in (3, 2, 1):
            if len(labels) > length and labels[-length:] == _DOMAIN[:length]:
                labels = labels[:-length]
                break
        for pod, name, place in _readings(labels, namespace):
            service = self._view.get(SERVICES, name, place)
            if service is None:
                continue
            pods = self._resolved(service, pod)
            if pods:
                chosen = pods[next(self._turn) % len(pods)]
                return self._listens(chosen["metadata"]["uid"], port) or REFUSING
            if not pod and service["spec"].get("clusterIP") != "None":
                return self._through(service, port) or REFUSING
        raise LookupError(f"no such host: {host} (asked in namespace {namespace})")

    def _resolved(self, service: Manifest, pod: str) -> list[Manifest]:
        """The pods to which DNS resolves a headless Service, or one pod behind it."""
        if service["spec"].get("clusterIP") != "None":
            return []
        name = service["metadata"]["name"]
        found = backends(self._view, service)
        if not service["spec"].get("publishNotReadyAddresses"):
            found = [one for one in found if is_ready(one)]
        if not pod:
            return found
        return [one for one in found if (one["spec"].get("hostname"), one["spec"].get("subdomain")) == (pod, name)]

    def _through(self, service: Manifest, port: int | str) -> Address | None:
        if service["spec"].get("clusterIP") == "None":
            ports = [{"port": port, "targetPort": port}]
        else:
            ports = [one for one in service["spec"].get("ports") or [] if port in (one["port"], one.get("name"))]
        pods = [pod for pod in backends(self._view, service) if is_ready(pod)]
        if not ports or not pods:
            return None
        pod = pods[next(self._turn) % len(pods)]
        return self._listens(pod["metadata"]["uid"], target_port(pod, ports[0]))


class ServiceController:
    """Gives Services their address and keeps their Endpoints."""

    def reconcile(self, view: ClusterView) -> float | None:
        services = view.all(SERVICES)
        for service in services:
            if "clusterIP" not in service["spec"] and service["spec"].get("type") != "ExternalName":
                address = _free_address(services)
                spec = {**service["spec"], "clusterIP": address, "clusterIPs": [address]}
                view.write(SERVICES, {**service, "spec": spec})
                return 0.0
        for service in services:
            if service["spec"].get("selector"):
                _write_endpoints(view, service)
        named = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in services}
        for endpoints in view.all(ENDPOINTS):
            if (endpoints["metadata"]["namespace"], endpoints["metadata"]["name"]) not in named:
                view.delete(ENDPOINTS, endpoints)
        return None


def backends(view: ClusterView, service: Manifest) -> list[Manifest]:
    """The pods with an address that a Service selects, ready or not."""
    selector = service["spec"].get("selector")
    if not selector:
        return []
    pods = view.all(PODS, service["metadata"]["namespace"], selector)
    return [pod for pod in pods if (pod.get("status") or {}).get("podIP")]


def is_ready(pod: Manifest) -> bool:
    return is_true(pod, "Ready") and not is_going(pod)


def target_port(pod: Manifest, port: dict[str, Any]) -> int:
    target = port.get("targetPort", port["port"])
    found = (container_port(container, target) for container in pod["spec"]["containers"])
    return next((number for number in found if number), 0)


def _readings(labels: list[str], namespace: str) -> list[tuple[str, str, str]]:
    """The possible readings of a name, as pod, Service and namespace, in the order of the search path."""
    if len(labels) == 1:
        return [("", labels[0], namespace)]
    if len(labels) == 2:  # noqa: PLR2004  # <pod>.<service> or <service>.<namespace>
        return [(labels[0], labels[1], namespace), ("", labels[0], labels[1])]
    return [(labels[0], labels[1], ".".join(labels[2:]))]


def _write_endpoints(view: ClusterView, service: Manifest) -> None:
    metadata = service["metadata"]
    found = backends(view, service)
    published = bool(service["spec"].get("publishNotReadyAddresses"))
    ready = [_endpoint(pod) for pod in found if published or is_ready(pod)]
    unready = [_endpoint(pod) for pod in found if not published and not is_ready(pod) and not is_going(pod)]
    subset: Manifest = {"addresses": ready} if ready else {}
    subset |= {"notReadyAddresses": unready} if unready else {}
    if subset and service["spec"].get("ports"):
        subset["ports"] = [
            {"port": target_port(found[0], port), "protocol": port.get("protocol", "TCP")}
            | ({"name": port["name"]} if "name" in port else {})
            for port in service["spec"]["ports"]
        ]
    subsets = [subset] if subset else []
    live = view.get(ENDPOINTS, metadata["name"], metadata["namespace"])
    if live is None:
        about = {"name": metadata["name"], "namespace": metadata["namespace"], "labels": metadata.get("labels") or {}}
        view.create(ENDPOINTS, {"metadata": about, "subsets": subsets})
    elif live.get("subsets") != subsets:
        view.write(ENDPOINTS, {**live, "subsets": subsets})


def _endpoint(pod: Manifest) -> Manifest:
    metadata = pod["metadata"]
    reference = {"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
    hostname = {"hostname": pod["spec"]["hostname"]} if "hostname" in pod["spec"] else {}
    return {
        "ip": pod["status"]["podIP"],
        "nodeName": pod["spec"].get("nodeName", ""),
        "targetRef": reference,
    } | hostname


def _free_address(services: list[Manifest]) -> str:
    taken = {service["spec"].get("clusterIP") for service in services}
    candidates = (f"{_SERVICE_RANGE}.{high}.{low}" for high in range(256) for low in range(1, 255))
    return next(address for address in candidates if address not in taken)
