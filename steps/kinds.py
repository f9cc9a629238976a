"""Names that several rooms share: kinds, resources, labels, variables."""

from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]  # a Kubernetes object


@dataclass(frozen=True)
class Kind:
    api_version: str
    kind: str

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    def __str__(self) -> str:
        return self.kind


@dataclass(frozen=True)
class Ref:
    """Names one Kubernetes object; `namespace` is empty for cluster-scoped kinds."""

    kind: Kind
    name: str
    namespace: str = ""

    @classmethod
    def of(cls, manifest: Manifest) -> "Ref":
        metadata = manifest["metadata"]
        kind = Kind(manifest["apiVersion"], manifest["kind"])
        return cls(kind, metadata["name"], metadata.get("namespace", ""))

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind.kind, self.namespace, self.name) if part)


CONFIG_MAP = Kind("v1", "ConfigMap")
EVENT = Kind("v1", "Event")
NAMESPACE = Kind("v1", "Namespace")
NODE = Kind("v1", "Node")
PERSISTENT_VOLUME = Kind("v1", "PersistentVolume")
PERSISTENT_VOLUME_CLAIM = Kind("v1", "PersistentVolumeClaim")
POD = Kind("v1", "Pod")
RESOURCE_QUOTA = Kind("v1", "ResourceQuota")
SECRET = Kind("v1", "Secret")
SERVICE = Kind("v1", "Service")
DAEMON_SET = Kind("apps/v1", "DaemonSet")
DEPLOYMENT = Kind("apps/v1", "Deployment")
STATEFUL_SET = Kind("apps/v1", "StatefulSet")
LEASE = Kind("coordination.k8s.io/v1", "Lease")
CSI_DRIVER = Kind("storage.k8s.io/v1", "CSIDriver")

ARGO = "argoproj.io"
WORKFLOW = Kind(f"{ARGO}/v1alpha1", "Workflow")
WORKFLOW_TEMPLATE = Kind(f"{ARGO}/v1alpha1", "WorkflowTemplate")

RBG = "workloads.x-k8s.io"
V1ALPHA1 = f"{RBG}/v1alpha1"
V1ALPHA2 = f"{RBG}/v1alpha2"
ROLE_BASED_GROUP = "RoleBasedGroup"
RBG_KINDS = (Kind(V1ALPHA1, ROLE_BASED_GROUP), Kind(V1ALPHA2, ROLE_BASED_GROUP))
INSTANCE = Kind(V1ALPHA1, "Instance")
ROLE_INSTANCE_SET = Kind(V1ALPHA2, "RoleInstanceSet")

ERDMA_DEVICE = Kind("network.alibabacloud.com/v1", "ERdmaDevice")
OSS_DRIVER = "ossplugin.csi.alibabacloud.com"
GPU = "nvidia.com/gpu"
ERDMA = "aliyun/erdma"

FIELD_MANAGER = "slipway"
OWN_LABELS = "slipway/"
SERVICE_LABEL = "slipway/service"
RELEASE_LABEL = "slipway/release"
ROLE_LABEL = "slipway/role"
HASH_LABEL = "slipway/spec-hash"
TRIGGER_LABEL = "slipway/trigger"  # of a run: manual, schedule or ci

# Environment variables of a step. In the cluster, the kubelet fills the first five from Secrets.
ACCESS_KEY_ID = "OSS_ACCESS_KEY_ID"
ACCESS_KEY_SECRET = "OSS_ACCESS_KEY_SECRET"  # noqa: S105  # a name, not a secret
SESSION_TOKEN = "OSS_SESSION_TOKEN"  # noqa: S105  # a name, not a secret
HUB_TOKEN = "MODELSCOPE_API_TOKEN"  # noqa: S105  # a name, not a secret
NOTIFICATION = "SLIPWAY_NOTIFICATION_{index}"  # the address of a webhook, one variable for each target
# Set by local runs and tests, to reach embedded services with the document as it is.
HUB_ENDPOINT = "SLIPWAY_MODELSCOPE_ENDPOINT"
STORE_ENDPOINT = "SLIPWAY_OSS_ENDPOINT"
REGISTRY = "SLIPWAY_REGISTRY"  # "none": do not query the registry of the image
RUN_FILE = "SLIPWAY_RUN_FILE"  # of a local run: its Workflow object, in JSON
TERMINATION_LOG = "SLIPWAY_TERMINATION_LOG"
KUBECONFIG = "KUBECONFIG"
