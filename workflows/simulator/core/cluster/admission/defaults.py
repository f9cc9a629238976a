"""Defaults of the API server for the built-in kinds that the pipeline uses.

https://github.com/kubernetes/kubernetes/tree/master/pkg/apis (`defaults.go` of each group)
"""

import base64
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

from workflows.simulator.core.cluster import resources as kinds
from workflows.simulator.core.cluster.manifests import Manifest
from workflows.simulator.core.cluster.resources import Resource

_SERVICE_NETWORK = ipaddress.ip_network("10.96.0.0/16")


def default(resource: Resource, content: Manifest, live: Manifest | None) -> None:
    """Fill in `content`, which replaces `live`."""
    fill = _DEFAULTS.get(resource.key)
    if fill:
        fill(content, live)


def _secret(content: Manifest, live: Manifest | None) -> None:
    content.setdefault("type", live["type"] if live else "Opaque")
    plain = content.pop("stringData", None) or {}
    if plain:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        content["data"] = {**(content.get("data") or {}), **encoded}


def _namespace(content: Manifest, live: Manifest | None) -> None:
    content.setdefault("metadata", {}).setdefault("labels", {}).setdefault(
        "kubernetes.io/metadata.name", content["metadata"]["name"]
    )
    content["spec"] = live.get("spec", {}) if live else {"finalizers": ["kubernetes"]}
    content.setdefault("status", {"phase": "Active"})


def _volume(content: Manifest, live: Manifest | None) -> None:
    spec = content.setdefault("spec", {})
    _fill(spec, {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"})
    if spec.get("claimRef"):
        _fill(spec["claimRef"], {"apiVersion": "v1", "kind": "PersistentVolumeClaim"})
    if live is None:
        content["status"] = {"phase": "Pending"}


def _claim(content: Manifest, live: Manifest | None) -> None:
    _fill(content.setdefault("spec", {}), {"volumeMode": "Filesystem"})
    if live is None:
        content["status"] = {"phase": "Pending"}
    elif live["spec"].get("volumeName"):
        content["spec"].setdefault("volumeName", live["spec"]["volumeName"])


def _service(content: Manifest, live: Manifest | None) -> None:
    spec = content.setdefault("spec", {})
    _fill(spec, {"sessionAffinity": "None", "type": "ClusterIP"})
    for port in spec.get("ports") or []:
        _fill(port, {"protocol": "TCP", "targetPort": port.get("port")})
    content.setdefault("status", {"loadBalancer": {}})
    if spec["type"] == "ExternalName":
        return
    if live and not spec.get("clusterIP"):
        spec["clusterIP"] = live["spec"].get("clusterIP", "")
    spec["clusterIP"] = spec.get("clusterIP") or _cluster_ip(content)
    spec["clusterIPs"] = [spec["clusterIP"]]
    _fill(spec, {"internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})


def _cluster_ip(content: Manifest) -> str:
    """An address by name: the same Service gets the same one again, and a dry run the one that it will get."""
    name = f"{content['metadata'].get('namespace')}/{content['metadata'].get('name')}"
    return str(_SERVICE_NETWORK[crc32(name.encode()) % (_SERVICE_NETWORK.num_addresses - 512) + 256])


def _pod(content: Manifest, live: Manifest | None) -> None:
    spec = content.setdefault("spec", {})
    pod_spec(spec)
    _fill(
        spec, {"serviceAccountName": "default", "serviceAccount": "default", "preemptionPolicy": "PreemptLowerPriority"}
    )
    if live is None:
        content["status"] = {"phase": "Pending", "qosClass": "Burstable"}


def pod_spec(spec: Manifest) -> None:
    """Defaults of a pod, and of a pod template."""
    _fill(
        spec,
        {
            "dnsPolicy": "ClusterFirst",
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
        },
    )
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        _container(container)
    for volume in spec.get("volumes") or []:
        if volume.keys() == {"name"}:
            volume["emptyDir"] = {}
        for kind in ("secret", "configMap", "projected", "downwardAPI"):
            if kind in volume:
                _fill(volume[kind], {"defaultMode": 420})


def _container(container: Manifest) -> None:
    untagged = "@" not in container.get("image", "") and ":" not in container.get("image", "").rpartition("/")[2]
    latest = untagged or container.get("image", "").endswith(":latest")
    _fill(
        container,
        {
            "imagePullPolicy": "Always" if latest else "IfNotPresent",
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
        },
    )
    for port in container.get("ports") or []:
        _fill(port, {"protocol": "TCP"})
    for variable in container.get("env") or []:
        if "fieldRef" in (variable.get("valueFrom") or {}):
            _fill(variable["valueFrom"]["fieldRef"], {"apiVersion": "v1"})
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _probe(container[name])


def _probe(probe: Manifest) -> None:
    _fill(probe, {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1})
    if "httpGet" in probe:
        _fill(probe["httpGet"], {"path": "/", "scheme": "HTTP"})


def _stateful_set(content: Manifest, _live: Manifest | None) -> None:
    spec = content.setdefault("spec", {})
    _fill(spec, {"podManagementPolicy": "OrderedReady", "replicas": 1, "revisionHistoryLimit": 10})
    _fill(spec.setdefault("updateStrategy", {}), {"type": "RollingUpdate"})
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _fill(spec["updateStrategy"].setdefault("rollingUpdate", {}), {"partition": 0})
    pod_spec(spec.setdefault("template", {}).setdefault("spec", {}))


def _deployment(content: Manifest, _live: Manifest | None) -> None:
    spec = content.setdefault("spec", {})
    _fill(spec, {"progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10})
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    spec.setdefault("strategy", rolling)
    pod_spec(spec.setdefault("template", {}).setdefault("spec", {}))


def _storage_class(content: Manifest, _live: Manifest | None) -> None:
    _fill(content, {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"})


def _fill(section: Manifest, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        section.setdefault(key, value)


_DEFAULTS: Mapping[tuple[str, str], Callable[[Manifest, Manifest | None], None]] = {
    kinds.DEPLOYMENTS.key: _deployment,
    kinds.NAMESPACES.key: _namespace,
    kinds.PERSISTENT_VOLUMES.key: _volume,
    kinds.PERSISTENT_VOLUME_CLAIMS.key: _claim,
    kinds.PODS.key: _pod,
    kinds.SECRETS.key: _secret,
    kinds.SERVICES.key: _service,
    kinds.STATEFUL_SETS.key: _stateful_set,
    kinds.STORAGE_CLASSES.key: _storage_class,
}
