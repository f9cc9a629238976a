"""The objects that the RBG operator makes of one role: workload, headless Service, ConfigMap.

https://github.com/sgl-project/rbg/tree/v0.6.0/pkg/reconciler and .../pkg/discovery
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from workflows.simulator.core.cluster.controllers.operator_style import OperatorStyle
from workflows.simulator.core.cluster.controllers.ordered import template_hash
from workflows.simulator.core.cluster.controllers.view import ClusterView, owner
from workflows.simulator.core.cluster.resources import SERVICES
from workflows.simulator.core.cluster.store import Manifest, copied

MAX_NAME = 63
_CONFIG_VOLUME = "rbg-cluster-config"
_POD_INDEX = "apps.kubernetes.io/pod-index"
_INSTANCE = "rbg.workloads.x-k8s.io/role-instance-"
_COMPONENT = "rbg.workloads.x-k8s.io/component-"


@dataclass(frozen=True)
class GroupRole:
    """One role of one group, as one release of the operator reads it."""

    group: Manifest
    spec: Manifest
    style: OperatorStyle

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def namespace(self) -> str:
        return str(self.group["metadata"]["namespace"])

    @property
    def replicas(self) -> int:
        return int(self.spec.get("replicas", 1))

    @property
    def workload_name(self) -> str:
        return workload_name(self.group, self.name)

    @property
    def workload_kind(self) -> tuple[str, str]:
        """The workload's apiVersion and kind."""
        if "standalonePattern" in self.spec:
            kind = "workloads.x-k8s.io/v1alpha2", "RoleInstanceSet"
            given = (self.spec.get("annotations") or {}).get("rbg.workloads.x-k8s.io/role-workload-type", "")
            return (given.rpartition("/")[0], given.rpartition("/")[2]) if given else kind
        workload = self.spec.get("workload") or {}
        return workload.get("apiVersion", "apps/v1"), workload.get("kind", "StatefulSet")

    @property
    def labels(self) -> dict[str, str]:
        metadata = self.group["metadata"]
        unique = hashlib.sha1(f"{metadata['namespace']}/{metadata['name']}".encode(), usedforsecurity=False)
        return {
            self.style.group_label: metadata["name"],
            self.style.role_label: self.name,
            self.style.unique_label: unique.hexdigest(),
        }

    @property
    def revision(self) -> str:
        """Hash of the role without its replicas."""
        return template_hash({key: value for key, value in self.spec.items() if key != "replicas"})

    def service_name(self, view: ClusterView) -> str:
        """An existing Service of the workload's name is taken for the one that an older operator made."""
        if view.get(SERVICES, self.workload_name, self.namespace):
            return self.workload_name
        return f"{self.style.service_prefix}{self.workload_name}"[:MAX_NAME].rstrip("-")

    def template(self) -> Manifest:
        """The pod template with the additions of the operator: labels, environment and the file that names all pods."""
        template: Manifest = copied(self._own_template())
        metadata = template.setdefault("metadata", {})
        metadata["labels"] = {**(metadata.get("labels") or {}), **self.labels}
        spec = template["spec"]
        if all(volume["name"] != _CONFIG_VOLUME for volume in spec.get("volumes") or []):
            item = {"key": "config.yaml", "path": "config.yaml"}
            volume = {"name": _CONFIG_VOLUME, "configMap": {"name": self.config_name, "items": [item]}}
            spec["volumes"] = [*(spec.get("volumes") or []), volume]
        for container in spec["containers"]:
            mounts = [one for one in container.get("volumeMounts") or [] if one["name"] != _CONFIG_VOLUME]
            mount = {"name": _CONFIG_VOLUME, "mountPath": "/etc/rbg", "readOnly": True}
            container["volumeMounts"] = [*mounts, mount]
            given = {one["name"] for one in container.get("env") or []}
            added = [one for one in self._environment() if one["name"] not in given]
            container["env"] = [*added, *(container.get("env") or [])]
        return template

    def manifest(self, view: ClusterView, *, replicas: int, partition: int) -> Manifest:
        api_version, kind = self.workload_kind
        revision = self.style.revision_label.format(role=self.name)
        metadata = {
            "name": self.workload_name,
            "namespace": self.namespace,
            "labels": {**(self.spec.get("labels") or {}), **self.labels, revision: self.revision},
            "annotations": {**(self.spec.get("annotations") or {}), self.style.size_annotation: str(self.replicas)},
            "ownerReferences": [owner(self.group)],
        }
        service = self.service_name(view)
        spec = _SPECS[kind](self, service, replicas, partition)
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}

    def service(self, name: str, workload: Manifest) -> Manifest:
        return {
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": self.labels,
                "annotations": {self.style.size_annotation: str(self.replicas)},
                "ownerReferences": [owner(workload, controller=False)],
            },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": "None",
                "clusterIPs": ["None"],
                "selector": {key: self.labels[key] for key in (self.style.group_label, self.style.role_label)},
                "publishNotReadyAddresses": True,
            },
        }

    @property
    def config_name(self) -> str:
        return self.workload_name if self.style.config_of_role else str(self.group["metadata"]["name"])

    def config(self, services: Mapping[str, str]) -> Manifest:
        """The ConfigMap; `services` names the headless Service of each role."""
        roles = {
            spec["name"]: {
                "size": int(spec.get("replicas", 1)),
                "instances": [
                    {"address": f"{workload_name(self.group, spec['name'])}-{index}.{services[spec['name']]}"}
                    for index in range(int(spec.get("replicas", 1)))
                ],
            }
            for spec in self.group["spec"]["roles"]
        }
        names = [spec["name"] for spec in self.group["spec"]["roles"]]
        group = {"name": self.group["metadata"]["name"], "size": len(names), "roles": names}
        return {
            "metadata": {
                "name": self.config_name,
                "namespace": self.namespace,
                "ownerReferences": [owner(self.group)],
            },
            "data": {"config.yaml": _as_yaml(json.dumps({"group": group, "roles": roles}))},
        }

    def _own_template(self) -> Manifest:
        source = self.spec.get("standalonePattern") or self.spec
        if "template" in source:
            return dict(source["template"])
        name = (source.get("templateRef") or {}).get("name")
        found = [one for one in self.group["spec"].get("roleTemplates") or [] if one["name"] == name]
        if not found:
            raise LookupError(f'roleTemplate "{name}" not found in spec.roleTemplates')
        return dict(found[0]["template"])

    def _environment(self) -> list[Manifest]:
        prefix = self.style.environment_prefix
        kind = self.workload_kind[1]
        variables = {
            f"{prefix}GROUP_NAME": self.group["metadata"]["name"],
            f"{prefix}ROLE_NAME": self.name,
        }
        fields = {}
        if kind == "StatefulSet":
            fields[f"{prefix}ROLE_INDEX"] = _POD_INDEX
        if kind == "RoleInstanceSet":
            fields = {
                f"{prefix}ROLE_INDEX": _INSTANCE + "index",
                f"{prefix}ROLE_INSTANCE_NAME": _INSTANCE + "name",
                f"{prefix}COMPONENT_NAME": _COMPONENT + "name",
                f"{prefix}COMPONENT_INDEX": _COMPONENT + "id",
            }
        plain: list[Manifest] = [{"name": name, "value": value} for name, value in variables.items()]
        return sorted(
            plain
            + [
                {
                    "name": name,
                    "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{label}']"}},
                }
                for name, label in fields.items()
            ],
            key=lambda variable: str(variable["name"]),
        )


@lru_cache(maxsize=64)
def _as_yaml(text: str) -> str:
    """YAML from JSON; cached, since writing YAML is slow and the operator runs often."""
    return yaml.safe_dump(json.loads(text))


def workload_name(group: Mapping[str, Any], role: str) -> str:
    return f"{group['metadata']['name']}-{role}"[:MAX_NAME].rstrip("-")


def _stateful_set(role: GroupRole, service: str, replicas: int, partition: int) -> Manifest:
    return {
        "serviceName": service,
        "replicas": replicas,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": role.labels},
        "template": role.template(),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}},
        "minReadySeconds": role.spec.get("minReadySeconds", 0),
        "revisionHistoryLimit": 10,
    }


def _deployment(role: GroupRole, _service: str, replicas: int, _partition: int) -> Manifest:
    return {
        "replicas": replicas,
        "selector": {"matchLabels": role.labels},
        "template": role.template(),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
    }


def _role_instance_set(role: GroupRole, service: str, replicas: int, _partition: int) -> Manifest:
    template = role.template()
    template["metadata"]["labels"] |= {_COMPONENT + "name": role.name, _COMPONENT + "size": "1"}
    rolling = dict((role.spec.get("rolloutStrategy") or {}).get("rollingUpdate") or {})
    strategy = {"type": "InPlaceIfPossible", "maxUnavailable": 1, "paused": False} | rolling
    return {
        "replicas": replicas,
        "podManagementPolicy": role.spec.get("podManagementPolicy", "Parallel"),
        "selector": {"matchLabels": role.labels},
        "roleInstanceTemplate": {
            "components": [{"name": role.name, "size": 1, "serviceName": service, "template": template}]
        },
        "updateStrategy": strategy,
        "minReadySeconds": role.spec.get("minReadySeconds", 0),
    }


_SPECS = {"StatefulSet": _stateful_set, "Deployment": _deployment, "RoleInstanceSet": _role_instance_set}
