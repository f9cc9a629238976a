"""The claim of the scratch volume of one run, in the namespace of the workflow.

It is created right before a transfer, and deleted when no Retry of the run needs it any more.
"""

from steps.document.schema import ModelService
from steps.kinds import PERSISTENT_VOLUME_CLAIM, POD, WORKFLOW, Manifest, Ref
from steps.ports.kubernetes import Cluster

# Argo's own label on the objects of a run. https://argo-workflows.readthedocs.io/en/latest/workflow-creator/
RUN_LABEL = "workflows.argoproj.io/workflow"


def claim_name(run: str) -> str:
    return f"{run}-scratch"


def claim_ref(service: ModelService, run: str) -> Ref:
    return Ref(PERSISTENT_VOLUME_CLAIM, claim_name(run), service.workflow.namespace)


def claim(service: ModelService, run: str, uid: str) -> Manifest:
    """The claim, owned by the Workflow: it ends with its run, also without an exit handler.

    It has no label of the service, so the garbage collection of claims over models leaves it alone.
    """
    scratch = service.transfer.scratch
    owner = {"apiVersion": WORKFLOW.api_version, "kind": WORKFLOW.kind, "name": run, "uid": uid}
    storage_class = {"storageClassName": scratch.storage_class_name} if scratch.storage_class_name else {}
    return {
        "apiVersion": PERSISTENT_VOLUME_CLAIM.api_version,
        "kind": PERSISTENT_VOLUME_CLAIM.kind,
        "metadata": {
            "name": claim_name(run),
            "namespace": service.workflow.namespace,
            "labels": {RUN_LABEL: run},
            "ownerReferences": [owner],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": scratch.size}},
            **storage_class,
        },
    }


def owned_by(live: Manifest, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in live["metadata"].get("ownerReferences") or ())


def of_run(live: Manifest, run: str) -> bool:
    """Whether the claim belongs to a Workflow of this name."""
    owners = live["metadata"].get("ownerReferences") or ()
    return any((owner.get("kind"), owner.get("name")) == (WORKFLOW.kind, run) for owner in owners)


def pods_of(cluster: Cluster, service: ModelService, run: str) -> tuple[Manifest, ...]:
    """The pods of the run that mount the claim. An ended one still blocks the deletion of the claim.

    https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection
    """
    found = cluster.select(POD, service.workflow.namespace, {RUN_LABEL: run})
    return tuple(pod for pod in found if _mounts(pod, claim_name(run)))


def _mounts(pod: Manifest, name: str) -> bool:
    volumes = pod["spec"].get("volumes") or ()
    return any((volume.get("persistentVolumeClaim") or {}).get("claimName") == name for volume in volumes)
