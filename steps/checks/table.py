"""The table of checks. Each code has an anchor in docs/reference/checks.md."""

from collections.abc import Callable
from dataclasses import dataclass

from steps.checks import argo, bucket, cluster, fabric, free_capacity, hub, image, nodes_for_steps, quotas
from steps.checks.facts import PlatformFacts
from steps.checks.findings import Finding, as_plan
from steps.reconcile.plan import Plan
from steps.release import Release


@dataclass(frozen=True)
class Check:
    code: str
    title: str
    hint: str  # next step after a failure
    evaluate: Callable[[Release, PlatformFacts], tuple[Finding, ...]]


CHECKS = (
    Check(
        "API01",
        "Permissions",
        "ask the owner of the cluster to apply both folders of `slipway render`, or use another kubeconfig",
        cluster.permissions,
    ),
    Check(
        "API02",
        "Namespace",
        "create it with `kubectl create namespace`, or correct metadata.namespace",
        cluster.namespace,
    ),
    Check(
        "API03",
        "Service names",
        "delete or rename that Service, or choose another endpoint.service",
        cluster.service_names,
    ),
    Check("RBG01", "RoleBasedGroup API", "install the ACK component ack-rbgs", cluster.rbg_api),
    Check(
        "RBG02",
        "RoleBasedGroup operator",
        "install the ACK component ack-rbgs, or read the events of its Deployment's pods",
        cluster.rbg_operator,
    ),
    Check(
        "FAB01",
        "eRDMA controller",
        "install the ACK component ack-erdma-controller, or set serving.fabric: tcp",
        fabric.erdma_controller,
    ),
    Check(
        "FAB02",
        "eRDMA devices",
        "use an instance type with eRDMA, read `kubectl get erdmadevices -o yaml`, or set serving.fabric: tcp",
        fabric.erdma_devices,
    ),
    Check("CSI01", "OSS CSI driver", "install the ACK component csi-plugin", cluster.csi_driver),
    Check(
        "CSI02", "CSI plugin on the nodes", "read the events of the pods of DaemonSet csi-plugin", cluster.csi_plugin
    ),
    Check(
        "KEY01",
        "Access key of OSS",
        "create it with `kubectl create secret generic`, with the literals akId and akSecret",
        bucket.access_key,
    ),
    Check(
        "OSS01",
        "Bucket",
        "create the bucket, or give the key or role the rights to read and write below store.prefix",
        bucket.bucket,
    ),
    Check(
        "MOD01",
        "Code of the model",
        "read those files at the hub; to approve them, set model.digest to that digest, and take it out again "
        "once the release is promoted, if later refreshes are wanted",
        hub.code_of_model,
    ),
    Check(
        "ENG01",
        "Version of the engine",
        "correct the tag of serving.image, or name the image by its digest alone and set serving.version; an image "
        "with another SGLang than its base names it in ENV SGLANG_VERSION",
        image.engine_version,
    ),
    Check(
        "NOD01",
        "Nodes for the steps",
        "add such a node, correct workflow.pod (nodeSelector, tolerations, affinity), or set workflow.gpuNodes: allow",
        nodes_for_steps.nodes_for_steps,
    ),
    Check(
        "ARG01",
        "Lock of the run",
        "render again for the version of the controller (`argo version`, `slipway render --argo`), and apply it",
        argo.lock_of_the_run,
    ),
    Check(
        "QUO01",
        "Quota for the scratch volume",
        "delete failed runs that keep one, ask the owner of the quota for room, or set a smaller transfer.scratch.size "
        "or transfer.mode: streamed",
        quotas.quotas_for_scratch,
    ),
    Check(
        "QUO02",
        "Quota for the workers",
        "ask the owner of the quota for room; rollout.strategy: Recreate needs it only once",
        quotas.quotas_for_workers,
    ),
    Check(
        "GPU01",
        "Free GPUs",
        "free GPUs, add nodes, or tolerate the taints of more nodes in serving.pod.tolerations; "
        "rollout.strategy: Recreate needs the GPUs only once",
        free_capacity.gpu_slots,
    ),
    Check(
        "GPU02",
        "GPU memory",
        "use larger GPUs, or a larger serving.tensorParallel",
        free_capacity.gpu_memory,
    ),
)


def plan_of(release: Release, facts: PlatformFacts) -> Plan:
    """All findings at once, so that one run names every failure."""
    plan = Plan()
    for check in CHECKS:
        plan += as_plan(check.code, check.title, check.hint, check.evaluate(release, facts))
    return plan
