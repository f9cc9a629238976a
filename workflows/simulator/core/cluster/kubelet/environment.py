"""The environment and the command line of a container.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

from workflows.simulator.core.cluster.controllers.view import ClusterView
from workflows.simulator.core.cluster.resources import CONFIG_MAPS, SECRETS
from workflows.simulator.core.cluster.store import Manifest

_REFERENCE = re.compile(r"\$(?:\$|\((?P<name>[^()\s]+)\))")
_BY_KEY = re.compile(r"^metadata\.(?P<field>labels|annotations)\['(?P<key>[^']+)'\]$")


class ConfigError(Exception):
    """The container cannot be made as its pod specifies it: CreateContainerConfigError."""


def variables(view: ClusterView, pod: Manifest, container: Mapping[str, Any], pod_ip: str) -> dict[str, str]:
    """The environment of one container. Raises ConfigError for a Secret or ConfigMap that is not there."""
    found: dict[str, str] = {}
    for entry in container.get("env") or []:
        source = entry.get("valueFrom")
        value = expand(entry.get("value") or "", found) if source is None else _from(view, pod, source, pod_ip)
        if value is not None:
            found[entry["name"]] = value
    return found


def expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value, an unknown one stays as it is, and `$$` is one dollar sign."""

    def value(match: re.Match[str]) -> str:
        return "$" if match["name"] is None else known.get(match["name"], match[0])

    return _REFERENCE.sub(value, text)


def expand_all(texts: Iterable[str] | None, known: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(expand(text, known) for text in texts or ())


def _from(view: ClusterView, pod: Manifest, source: Mapping[str, Any], pod_ip: str) -> str | None:
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"], pod_ip)
    if "secretKeyRef" in source:
        return _key(view, pod, source["secretKeyRef"], secret=True)
    if "configMapKeyRef" in source:
        return _key(view, pod, source["configMapKeyRef"], secret=False)
    raise ConfigError(f"unsupported source of an environment variable: {', '.join(source)}")


def _field(pod: Manifest, path: str, pod_ip: str) -> str:
    metadata = pod["metadata"]
    by_key = _BY_KEY.match(path)
    if by_key:
        return str((metadata.get(by_key["field"]) or {}).get(by_key["key"], ""))
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": pod_ip,
        "status.podIPs": pod_ip,
        "status.hostIP": (pod.get("status") or {}).get("hostIP", ""),
    }
    if path not in fields:
        raise ConfigError(f'unsupported fieldPath "{path}"')
    return str(fields[path])


def _key(view: ClusterView, pod: Manifest, reference: Mapping[str, Any], *, secret: bool) -> str | None:
    namespace = pod["metadata"]["namespace"]
    resource, what = (SECRETS, "secret") if secret else (CONFIG_MAPS, "configmap")
    holder = view.get(resource, reference["name"], namespace)
    optional = bool(reference.get("optional"))
    if holder is None:
        if optional:
            return None
        raise ConfigError(f'{what} "{reference["name"]}" not found')
    data = holder.get("data") or {}
    if reference["key"] not in data:
        if optional:
            return None
        name = f"{namespace}/{reference['name']}"
        raise ConfigError(f"couldn't find key {reference['key']} in {what.capitalize()} {name}")
    value = str(data[reference["key"]])
    return base64.b64decode(value).decode() if secret else value
