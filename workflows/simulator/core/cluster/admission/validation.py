"""Validation of the API server for the built-in kinds that the pipeline uses.

https://github.com/kubernetes/kubernetes/tree/master/pkg/apis (`validation.go` of each group)
"""

from collections.abc import Callable, Iterator, Mapping

from workflows.simulator.core.cluster import resources as kinds
from workflows.simulator.core.cluster.errors import Cause, forbidden_value, invalid_value, required
from workflows.simulator.core.cluster.manifests import Manifest
from workflows.simulator.core.cluster.quantities import quantity
from workflows.simulator.core.cluster.resources import Resource

VOLUME_SOURCES = frozenset(
    {
        *("awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc", "flexVolume", "flocker"),
        *("gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local", "nfs", "photonPersistentDisk"),
        *("portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume"),
    }
)
_POD_MAY_CHANGE = frozenset(
    {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"}
)


def rule_errors(resource: Resource, content: Manifest, live: Manifest | None) -> Iterator[Cause]:
    """Violations in `content`, which replaces `live`."""
    check = _RULES.get(resource.key)
    if check:
        yield from check(content, live)


def _immutable_data(content: Manifest, live: Manifest | None) -> Iterator[Cause]:
    """For Secret and ConfigMap."""
    if not (live and live.get("immutable")):
        return
    if not content.get("immutable"):
        yield forbidden_value("immutable", "field is immutable when `immutable` is set")
    for field in ("data", "binaryData"):
        if (content.get(field) or {}) != (live.get(field) or {}):
            yield forbidden_value(field, "field is immutable when `immutable` is set")


def _secret(content: Manifest, live: Manifest | None) -> Iterator[Cause]:
    yield from _immutable_data(content, live)
    if live and content.get("type") != live.get("type"):
        yield invalid_value("type", f'"{content.get("type")}"', "field is immutable")


def _volume(content: Manifest, live: Manifest | None) -> Iterator[Cause]:
    spec = content.get("spec") or {}
    if not spec.get("accessModes"):
        yield required("spec.accessModes")
    if "storage" not in (spec.get("capacity") or {}):
        yield required("spec.capacity", 'supported values: "storage"')
    sources = VOLUME_SOURCES & spec.keys()
    if not sources:
        yield required("spec", "must specify a volume type")
    if len(sources) > 1:
        yield forbidden_value(f"spec.{max(sources)}", "may not specify more than 1 volume type")
    if live:
        before = {key: live["spec"].get(key) for key in VOLUME_SOURCES if key in live["spec"]}
        if before != {key: spec[key] for key in sources}:
            yield forbidden_value(
                "spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation"
            )
        if spec.get("volumeMode") != live["spec"].get("volumeMode"):
            yield invalid_value("spec.volumeMode", f'"{spec.get("volumeMode")}"', "field is immutable")


def _claim(content: Manifest, live: Manifest | None) -> Iterator[Cause]:
    spec = content.get("spec") or {}
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    if storage is None:
        yield required("spec.resources[storage]")
    if live is None or storage is None:
        return
    bound = (live.get("status") or {}).get("phase") == "Bound"
    if _claim_identity(content, size=not bound) != _claim_identity(live, size=not bound) and not _binds(content, live):
        yield forbidden_value("spec", "spec is immutable after creation except resources.requests for bound claims")
    elif bound and quantity(storage) < quantity(live["spec"]["resources"]["requests"]["storage"]):
        yield forbidden_value("spec.resources.requests.storage", "field can not be less than previous value")


def _claim_identity(content: Manifest, *, size: bool) -> Manifest:
    spec = dict(content["spec"])
    if not size:
        spec["resources"] = {key: value for key, value in spec["resources"].items() if key != "requests"}
    return spec


def _binds(content: Manifest, live: Manifest) -> bool:
    """A claim takes its volume once."""
    return (
        not live["spec"].get("volumeName")
        and {**live["spec"], "volumeName": content["spec"].get("volumeName")} == (content["spec"])
    )


def _service(content: Manifest, live: Manifest | None) -> Iterator[Cause]:
    spec = content.get("spec") or {}
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield required("spec.ports")
    for number, port in enumerate(ports):
        if not 1 <= port.get("port", 0) <= 65535:  # noqa: PLR2004  # port numbers
            yield invalid_value(f"spec.ports[{number}].port", str(port.get("port")), "must be between 1 and 65535")
        if len(ports) > 1 and not port.get("name"):
            yield required(f"spec.ports[{number}].name")
    if live and live["spec"].get("clusterIP") and spec.get("clusterIP") != live["spec"]["clusterIP"]:
        yield invalid_value("spec.clusterIPs[0]", f'["{spec.get("clusterIP")}"]', "may not change once set")


def _pod(content: Manifest, live: Manifest | None) -> Iterator[Cause]:
    spec = content.get("spec") or {}
    yield from _pod_spec(spec, "spec")
    if live and _fixed(spec) != _fixed(live["spec"]):
        yield forbidden_value(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, "
            "`spec.activeDeadlineSeconds` or `spec.tolerations` (only additions to existing tolerations)",
        )


def _fixed(spec: Manifest) -> Manifest:
    fixed = {key: value for key, value in spec.items() if key not in _POD_MAY_CHANGE}
    for kind in ("containers", "initContainers"):
        fixed[kind] = [{**container, "image": ""} for container in spec.get(kind) or []]
    return fixed


def _pod_spec(spec: Manifest, path: str) -> Iterator[Cause]:
    containers = spec.get("containers") or []
    if not containers:
        yield required(f"{path}.containers")
    volumes = {volume.get("name") for volume in spec.get("volumes") or []}
    for number, container in enumerate(containers):
        place = f"{path}.containers[{number}]"
        for field in ("name", "image"):
            if not container.get(field):
                yield required(f"{place}.{field}")
        for index, mount in enumerate(container.get("volumeMounts") or []):
            if mount.get("name") not in volumes:
                yield Cause(
                    f"{place}.volumeMounts[{index}].name", f'Not found: "{mount.get("name")}"', "FieldValueNotFound"
                )


def _workload(content: Manifest, live: Manifest | None) -> Iterator[Cause]:
    """For StatefulSet and Deployment."""
    spec = content.get("spec") or {}
    template = spec.get("template") or {}
    wanted = (spec.get("selector") or {}).get("matchLabels")
    found = (template.get("metadata") or {}).get("labels") or {}
    if not spec.get("selector"):
        yield required("spec.selector")
    elif wanted and not wanted.items() <= found.items():
        yield invalid_value("spec.template.metadata.labels", str(found), "`selector` does not match template `labels`")
    yield from _pod_spec(template.get("spec") or {}, "spec.template.spec")
    if live and spec.get("selector") != live["spec"].get("selector"):
        yield invalid_value("spec.selector", str(spec.get("selector")), "field is immutable")


def _stateful_set(content: Manifest, live: Manifest | None) -> Iterator[Cause]:
    yield from _workload(content, live)
    free = {
        *("replicas", "template", "updateStrategy", "minReadySeconds", "selector"),
        *("persistentVolumeClaimRetentionPolicy", "ordinals", "revisionHistoryLimit"),
    }
    if live and _except(content["spec"], free) != _except(live["spec"], free):
        yield forbidden_value(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'template', 'updateStrategy' and "
            "'minReadySeconds' are forbidden",
        )


def _except(section: Manifest, names: set[str]) -> Manifest:
    return {key: value for key, value in section.items() if key not in names}


_RULES: Mapping[tuple[str, str], Callable[[Manifest, Manifest | None], Iterator[Cause]]] = {
    kinds.CONFIG_MAPS.key: _immutable_data,
    kinds.DEPLOYMENTS.key: _workload,
    kinds.STATEFUL_SETS.key: _stateful_set,
    kinds.PERSISTENT_VOLUMES.key: _volume,
    kinds.PERSISTENT_VOLUME_CLAIMS.key: _claim,
    kinds.PODS.key: _pod,
    kinds.SECRETS.key: _secret,
    kinds.SERVICES.key: _service,
}
