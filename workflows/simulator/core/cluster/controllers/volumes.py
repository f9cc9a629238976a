"""Binds PersistentVolumes and claims, and protects those in use.

https://kubernetes.io/docs/concepts/storage/persistent-volumes/
"""

from collections.abc import Mapping
from typing import Any

from workflows.simulator.core.cluster.controllers.view import ClusterView, is_going
from workflows.simulator.core.cluster.labels import Selector
from workflows.simulator.core.cluster.quantities import quantity
from workflows.simulator.core.cluster.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS
from workflows.simulator.core.cluster.store import Manifest, copied

_SOURCE = "persistentvolume-controller"
_PVC_PROTECTION = "kubernetes.io/pvc-protection"
_PV_PROTECTION = "kubernetes.io/pv-protection"
_BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
_BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"


class VolumeBinder:
    def reconcile(self, view: ClusterView) -> float | None:
        for claim in view.all(PERSISTENT_VOLUME_CLAIMS):
            _reconcile_claim(view, claim)
        claims = {claim["metadata"]["uid"]: claim for claim in view.all(PERSISTENT_VOLUME_CLAIMS)}
        for volume in view.all(PERSISTENT_VOLUMES):
            _reconcile_volume(view, volume, claims)
        return None


def _reconcile_claim(view: ClusterView, claim: Manifest) -> None:
    if is_going(claim):
        if not _is_used(view, claim):
            _release(view, claim, _PVC_PROTECTION)
        return
    if _protect(view, claim, _PVC_PROTECTION):
        return
    if _is_bound(claim):
        _watch_over(view, claim)
        return
    volume = _find_volume(view, claim)
    if volume is None:
        view.write_status(PERSISTENT_VOLUME_CLAIMS, claim, {"phase": "Pending"})
        return
    why_not = mismatch(volume, claim)
    if why_not:
        view.write_status(PERSISTENT_VOLUME_CLAIMS, claim, {"phase": "Pending"})
        view.event(claim, *why_not, source=_SOURCE)
        return
    _bind(view, volume, claim)


def _watch_over(view: ClusterView, claim: Manifest) -> None:
    name = claim["spec"]["volumeName"]
    volume = view.get(PERSISTENT_VOLUMES, name)
    if volume is None:
        view.write_status(PERSISTENT_VOLUME_CLAIMS, claim, {**claim.get("status", {}), "phase": "Lost"})
        view.event(
            claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!", source=_SOURCE
        )
        return
    view.write_status(PERSISTENT_VOLUME_CLAIMS, claim, _bound_status(volume))


def _find_volume(view: ClusterView, claim: Manifest) -> Manifest | None:
    wanted = claim["spec"].get("volumeName")
    if wanted:
        return view.get(PERSISTENT_VOLUMES, wanted)
    volumes = [volume for volume in view.all(PERSISTENT_VOLUMES) if not is_going(volume)]
    reserved = [volume for volume in volumes if _is_for(volume, claim)]
    selector = Selector.equal((claim["spec"].get("selector") or {}).get("matchLabels") or {})
    free = [
        volume
        for volume in volumes
        if not volume["spec"].get("claimRef") and selector.matches(volume["metadata"].get("labels"))
    ]
    candidates = reserved + sorted(free, key=_capacity)
    return next((volume for volume in candidates if mismatch(volume, claim) is None), None)


def mismatch(volume: Mapping[str, Any], claim: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why a volume cannot be bound to a claim, as reason and message of an event; None if it can."""
    name = volume["metadata"]["name"]
    if volume["spec"].get("claimRef") and not _is_for(volume, claim):
        return "FailedBinding", f'volume "{name}" already bound to a different claim.'
    wanted = quantity(claim["spec"]["resources"]["requests"]["storage"])
    if _capacity(volume) < wanted:
        return "VolumeMismatch", f'Cannot bind to requested volume "{name}": requested PV is too small'
    if (volume["spec"].get("storageClassName") or "") != (claim["spec"].get("storageClassName") or ""):
        return "VolumeMismatch", f'Cannot bind to requested volume "{name}": storageClassName does not match'
    if not set(claim["spec"]["accessModes"]) <= set(volume["spec"]["accessModes"]):
        return "VolumeMismatch", f'Cannot bind to requested volume "{name}": incompatible accessMode'
    return None


def _is_for(volume: Mapping[str, Any], claim: Mapping[str, Any]) -> bool:
    reference = volume["spec"].get("claimRef") or {}
    metadata = claim["metadata"]
    same = (reference.get("namespace"), reference.get("name")) == (metadata["namespace"], metadata["name"])
    # The uid of a claim that is gone keeps a volume Released for ever, also for a new claim of the same name.
    return same and reference.get("uid", metadata["uid"]) == metadata["uid"]


def _bind(view: ClusterView, volume: Manifest, claim: Manifest) -> None:
    metadata = claim["metadata"]
    reference = volume["spec"].get("claimRef") or {}
    if "uid" not in reference:
        bound = copied(volume)
        bound["spec"]["claimRef"] = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        }
        if not reference:
            bound["metadata"].setdefault("annotations", {})[_BOUND_BY_CONTROLLER] = "yes"
        view.write(PERSISTENT_VOLUMES, bound)
    mine = copied(claim)
    annotations = mine["metadata"].setdefault("annotations", {})
    annotations[_BIND_COMPLETED] = "yes"
    if not mine["spec"].get("volumeName"):
        annotations[_BOUND_BY_CONTROLLER] = "yes"
        mine["spec"]["volumeName"] = volume["metadata"]["name"]
    view.write_status(PERSISTENT_VOLUME_CLAIMS, view.write(PERSISTENT_VOLUME_CLAIMS, mine), _bound_status(volume))


def _bound_status(volume: Mapping[str, Any]) -> Manifest:
    spec = volume["spec"]
    return {"phase": "Bound", "accessModes": spec["accessModes"], "capacity": {"storage": spec["capacity"]["storage"]}}


def _reconcile_volume(view: ClusterView, volume: Manifest, claims: Mapping[str, Manifest]) -> None:
    phase = _volume_phase(volume, claims)
    if is_going(volume):
        if phase != "Bound":
            _release(view, volume, _PV_PROTECTION)
        return
    if not _protect(view, volume, _PV_PROTECTION):
        view.write_status(PERSISTENT_VOLUMES, volume, {"phase": phase})


def _volume_phase(volume: Mapping[str, Any], claims: Mapping[str, Manifest]) -> str:
    uid = (volume["spec"].get("claimRef") or {}).get("uid")
    if not uid:
        return "Available"
    return "Bound" if uid in claims else "Released"


def _is_bound(claim: Mapping[str, Any]) -> bool:
    return _BIND_COMPLETED in (claim["metadata"].get("annotations") or {})


def _is_used(view: ClusterView, claim: Mapping[str, Any]) -> bool:
    metadata = claim["metadata"]
    return any(
        (volume.get("persistentVolumeClaim") or {}).get("claimName") == metadata["name"]
        for pod in view.all(PODS, metadata["namespace"])
        for volume in pod["spec"].get("volumes") or []
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    )


def _capacity(volume: Mapping[str, Any]) -> Any:
    return quantity(volume["spec"]["capacity"]["storage"])


def _protect(view: ClusterView, manifest: Manifest, finalizer: str) -> bool:
    """True if the protection had to be added, so that the copy in hand is stale."""
    finalizers = manifest["metadata"].get("finalizers") or []
    if finalizer in finalizers:
        return False
    _write_finalizers(view, manifest, [*finalizers, finalizer])
    return True


def _release(view: ClusterView, manifest: Manifest, finalizer: str) -> None:
    finalizers = manifest["metadata"].get("finalizers") or []
    if finalizer in finalizers:
        _write_finalizers(view, manifest, [one for one in finalizers if one != finalizer])


def _write_finalizers(view: ClusterView, manifest: Manifest, finalizers: list[str]) -> None:
    resource = PERSISTENT_VOLUMES if manifest["kind"] == "PersistentVolume" else PERSISTENT_VOLUME_CLAIMS
    changed = copied(manifest)
    changed["metadata"]["finalizers"] = finalizers
    view.write(resource, changed)
