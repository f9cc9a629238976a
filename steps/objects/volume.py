"""Secret, PersistentVolume and PersistentVolumeClaim over the immutable prefix of a model, and their binding.

The names of volume and claim are content-addressed: a PV's source is immutable and the CSI driver keys its mounts by
volumeHandle, so a reused name would serve the old model.
https://github.com/kubernetes-sigs/alibaba-cloud-csi-driver/blob/master/docs/oss.md
"""

import base64

from steps.kinds import OSS_DRIVER, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, SECRET, SERVICE_LABEL, Manifest, Ref
from steps.objects.metadata import being_deleted, owned_metadata
from steps.objects.ownership import is_ours
from steps.ports.oss import AccessKey
from steps.reconcile.plan import Plan
from steps.release import Release

# Nominal: the driver enforces no size, and a bound claim cannot change its request.
NOMINAL_CAPACITY = "1Ti"


def volume_attributes(release: Release) -> dict[str, str]:
    """Attributes for the CSI driver.

    https://github.com/kubernetes-sigs/alibaba-cloud-csi-driver/blob/master/docs/oss.md
    """
    service = release.service
    attributes = {
        "bucket": service.store.bucket,
        "url": service.store_endpoint,
        "path": f"/{release.prefix}",
        "fuseType": service.volume.client,
        "otherOpts": service.volume.mount_options,
    }
    if service.store.credentials.role:
        attributes |= {"authType": "rrsa", "roleName": service.store.credentials.role}
    return attributes


def volume_ref(release: Release) -> Ref:
    return Ref(PERSISTENT_VOLUME, release.volume_name)


def claim_ref(release: Release) -> Ref:
    return Ref(PERSISTENT_VOLUME_CLAIM, release.volume_name, release.service.namespace)


def secret(release: Release, key: AccessKey) -> Manifest:
    """The access key as the CSI driver reads it."""
    values = {"akId": key.id, "akSecret": key.secret, **({"securityToken": key.token} if key.token else {})}
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": owned_metadata(release.service, release.volume_secret, release.service.namespace),
        "type": "Opaque",
        # `stringData` is write-only, so it could not be compared with the live object.
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in sorted(values.items())},
    }


def persistent_volume(release: Release, capacity: str) -> Manifest:
    service = release.service
    source = {
        "driver": OSS_DRIVER,
        "volumeHandle": release.volume_name,
        "volumeAttributes": volume_attributes(release),
    }
    if service.store.credentials.secret:
        source["nodePublishSecretRef"] = {"name": release.volume_secret, "namespace": service.namespace}
    return {
        "apiVersion": PERSISTENT_VOLUME.api_version,
        "kind": PERSISTENT_VOLUME.kind,
        # No release label: releases of the same model with other flags share one volume.
        "metadata": owned_metadata(service, release.volume_name),
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "capacity": {"storage": capacity},
            "persistentVolumeReclaimPolicy": "Retain",
            # No storageClassName: absent means the empty class, which the claim requests. The API server does not keep
            # an empty text, so it would always appear as a difference.
            "volumeMode": "Filesystem",
            # Reserves the volume: without it, any pending claim of another namespace could take it first.
            "claimRef": {
                "apiVersion": PERSISTENT_VOLUME_CLAIM.api_version,
                "kind": PERSISTENT_VOLUME_CLAIM.kind,
                "name": release.volume_name,
                "namespace": service.namespace,
            },
            "csi": source,
        },
    }


def claim(release: Release, capacity: str) -> Manifest:
    return {
        "apiVersion": PERSISTENT_VOLUME_CLAIM.api_version,
        "kind": PERSISTENT_VOLUME_CLAIM.kind,
        "metadata": owned_metadata(release.service, release.volume_name, release.service.namespace),
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "resources": {"requests": {"storage": capacity}},
            "storageClassName": "",
            "volumeMode": "Filesystem",
            "volumeName": release.volume_name,
        },
    }


def capacity(release: Release, live_claim: Manifest | None) -> str:
    """The size of the live claim, else that of the document, else a nominal one.

    The request of a claim is immutable and has no meaning for an OSS volume, so another number in the document must not
    fail a run.
    """
    requested = (live_claim or {}).get("spec", {}).get("resources", {}).get("requests", {}).get("storage")
    return str(requested or release.service.volume.capacity or NOMINAL_CAPACITY)


def conflicts(release: Release, claim: Manifest | None) -> list[str]:
    """Conflicts that neither an apply nor time resolves, each with the command that does."""
    found = []
    name, namespace = release.volume_name, release.service.namespace
    if claim is not None and not being_deleted(claim):
        bound_to = claim["spec"].get("volumeName", "")
        phase = claim.get("status", {}).get("phase", "")
        if bound_to and bound_to != name:
            found.append(
                f"{claim_ref(release)} is bound to the volume {bound_to}, expected {name}. Next: find its creator "
                f"(kubectl get pvc {name} -n {namespace} -o yaml), delete it, run again"
            )
        elif phase == "Lost":
            found.append(
                f"{claim_ref(release)} is Lost: its volume was deleted. Next: kubectl delete pvc {name} "
                f"-n {namespace} (this removes no file from the bucket), run again"
            )
    return found


def stale(release: Release, volume: Manifest | None) -> str:
    """Why this volume can never bind again and must be replaced; empty if it can.

    Kubernetes leaves a retained volume Released, with the uid of the claim that is gone, and binds it to no other
    claim. A volume object holds no bytes and cannot be mounted without its claim, so deleting it is safe.
    https://kubernetes.io/docs/concepts/storage/persistent-volumes/#retain
    """
    if volume is None or being_deleted(volume) or not is_ours(volume, release.service):
        return ""
    phase = volume.get("status", {}).get("phase")
    if phase not in ("Released", "Failed") or volume["spec"].get("persistentVolumeReclaimPolicy") != "Retain":
        return ""
    return f"{phase}: its claim is gone, and a {phase} volume never binds again; the files stay in the bucket"


def binding(release: Release, volume: Manifest | None, claim: Manifest | None) -> Plan:
    """Waits until claim and volume are bound to each other."""
    if volume is None or claim is None:
        return Plan()  # they are about to be created
    phase = claim.get("status", {}).get("phase", "Pending")
    taken_by = volume["spec"].get("claimRef", {}).get("uid", "")
    volume_phase = volume.get("status", {}).get("phase", "Pending")
    if phase == "Bound" and volume_phase == "Bound" and taken_by == claim["metadata"]["uid"]:
        return Plan(ok=(f"{claim_ref(release)} is Bound to {volume_ref(release)}",))
    return Plan(waiting=(f"{claim_ref(release)} is {phase}, its volume is {volume_phase}, both must be Bound",))


def unready(release: Release, claim: Manifest | None) -> str:
    """Why pods of the release could not read its files through this claim; empty if they can.

    A pod with an absent or Pending claim waits without an end, in a group that holds GPUs.
    """
    service, ref = release.service, claim_ref(release)
    if claim is None:
        found = "does not exist"
    elif being_deleted(claim):
        found = "is being deleted"
    elif not is_ours(claim, service):
        found = f"has no label {SERVICE_LABEL}={service.name}"
    elif claim["spec"].get("volumeName") != release.volume_name:
        found = f"is bound to the volume {claim['spec'].get('volumeName') or '(none)'}"
    elif claim.get("status", {}).get("phase") != "Bound":
        found = f"is {claim.get('status', {}).get('phase', 'Pending')}"
    else:
        return ""
    return (
        f"{ref} {found}, expected the claim of {service.name}, Bound to {volume_ref(release)}; create-volume makes it. "
        "Next: submit a new run, or run create-volume with the same --model-digest, then run this step again"
    )
