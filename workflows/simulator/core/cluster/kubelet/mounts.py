"""Volumes of a pod as folders of this machine.

A volume of the OSS CSI driver is the folder in which the embedded bucket keeps the objects of that prefix; the driver
is https://github.com/kubernetes-sigs/alibaba-cloud-csi-driver.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workflows.simulator.core.cluster.controllers.view import ClusterView
from workflows.simulator.core.cluster.resources import (
    CONFIG_MAPS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    SECRETS,
)
from workflows.simulator.core.cluster.store import Manifest

OSS_DRIVER = "ossplugin.csi.alibabacloud.com"
_SECRET_KEYS = ("akId", "akSecret")


class MountError(Exception):
    """A volume cannot be mounted now: the pod stays in ContainerCreating, with a FailedMount event."""


def mounted(view: ClusterView, pod: Manifest, buckets: Path, folder: Path) -> dict[str, Path]:
    """The folder of each volume of a pod, by the volume's name; `folder` is the pod's own. Raises MountError."""
    return {
        volume["name"]: _mount(view, pod, volume, buckets, folder / volume["name"])
        for volume in pod["spec"].get("volumes") or []
    }


def of_container(container: Mapping[str, Any], volumes: Mapping[str, Path]) -> dict[str, Path]:
    """Path in the container -> folder on this machine."""
    return {
        mount["mountPath"]: volumes[mount["name"]] / mount.get("subPath", "")
        for mount in container.get("volumeMounts") or []
        if mount["name"] in volumes
    }


def _mount(view: ClusterView, pod: Manifest, volume: Mapping[str, Any], buckets: Path, folder: Path) -> Path:
    if "persistentVolumeClaim" in volume:
        return _claim(view, pod, volume["persistentVolumeClaim"]["claimName"], buckets)
    folder.mkdir(parents=True, exist_ok=True)
    for field, resource in (("configMap", CONFIG_MAPS), ("secret", SECRETS)):
        if field in volume:
            source = volume[field]
            name = source.get("name") or source.get("secretName")
            holder = view.get(resource, name, pod["metadata"]["namespace"])
            if holder is None and not source.get("optional"):
                raise MountError(_failed(volume["name"], f'{resource.kind.lower()} "{name}" not found'))
            _write_files(folder, holder or {}, source, secret=field == "secret")
    return folder


def _write_files(folder: Path, holder: Manifest, source: Mapping[str, Any], *, secret: bool) -> None:
    names = {item["key"]: item["path"] for item in source.get("items") or []}
    for key, value in (holder.get("data") or {}).items():
        if not names or key in names:
            content = base64.b64decode(value) if secret else str(value).encode()
            (folder / names.get(key, key)).write_bytes(content)


def _claim(view: ClusterView, pod: Manifest, name: str, buckets: Path) -> Path:
    claim = view.get(PERSISTENT_VOLUME_CLAIMS, name, pod["metadata"]["namespace"])
    volume_name = ((claim or {}).get("spec") or {}).get("volumeName", "")
    volume = view.get(PERSISTENT_VOLUMES, volume_name)
    if volume is None:
        raise MountError(f'Unable to attach or mount volumes: persistentvolumeclaim "{name}" is not bound to a volume')
    source = volume["spec"].get("csi") or {}
    if source.get("driver") != OSS_DRIVER:
        driver = source.get("driver", "")
        raise MountError(_failed(volume_name, f"driver name {driver} not found in the list of registered CSI drivers"))
    attributes = source.get("volumeAttributes") or {}
    if attributes.get("authType") != "rrsa":
        _check_secret(view, volume_name, source.get("nodePublishSecretRef"))
    folder: Path = buckets / "objects" / attributes.get("bucket", "") / attributes.get("path", "").strip("/")
    if not folder.is_dir():
        where = f"{attributes.get('bucket')}:{attributes.get('path')}"
        reason = f"rpc error: code = Internal desc = mount {where} failed: the bucket or path does not exist"
        raise MountError(_failed(volume_name, reason))
    return folder


def _check_secret(view: ClusterView, volume: str, reference: Mapping[str, str] | None) -> None:
    if not reference:
        raise MountError(
            _failed(volume, "rpc error: code = InvalidArgument desc = Oss parameters error: no access key")
        )
    name, namespace = reference["name"], reference["namespace"]
    secret = view.get(SECRETS, name, namespace)
    if secret is None:
        raise MountError(
            _failed(volume, f'fetching NodePublishSecretRef {namespace}/{name} failed: secrets "{name}" not found')
        )
    missing = [key for key in _SECRET_KEYS if not (secret.get("data") or {}).get(key)]
    if missing:
        reason = f"the Secret {namespace}/{name} lacks {' and '.join(missing)}"
        raise MountError(_failed(volume, f"rpc error: code = InvalidArgument desc = {reason}"))


def _failed(volume: str, reason: str) -> str:
    return f'MountVolume.SetUp failed for volume "{volume}" : {reason}'
