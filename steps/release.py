"""A release is the document plus the model digest; every name that a step uses is derived here.

Names are content-addressed. A PV spec is immutable and a CSI mount is keyed by its volumeHandle, so a reused name would
serve the old model. `model`, `volume` and `serving` make the release; replica counts, labels and fields at their
default do not: docs/decisions/0009-what-makes-a-release.md.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steps.document.schema import ModelService
from steps.kinds import RELEASE_LABEL, SERVICE_LABEL
from steps.model import ModelDigest

# Version of the rendering of a release, and of the defaults of its fields: another rendering is another release, never
# an edit of a live one.
RENDERING = 1
GPU_LEASE = "slipway-gpus"  # in the namespace of the workflow: one run at a time takes GPUs, whichever its service
VOLUME_PREFIX = "llm-model"  # of the names of PV and PVC
MANIFEST_NAME = ".slipway/manifest.json"


def content_hash(content: Any, length: int) -> str:
    """The first `length` hex digits of the SHA-256 of `content` as canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Release:
    service: ModelService
    model_digest: ModelDigest

    @property
    def prefix(self) -> str:
        """Folder of this model revision in the bucket, without a slash at its end. Immutable once it has a manifest."""
        return f"{self.service.store.prefix}/{self.service.model.id}/{self.model_digest.short}"

    @property
    def manifest_key(self) -> str:
        """Object that is written last: a prefix without it does not exist for any reader."""
        return f"{self.prefix}/{MANIFEST_NAME}"

    @property
    def volume_name(self) -> str:
        """Name of the PV, of the PVC and of the volumeHandle."""
        # The namespace is part of it: PVs are cluster-scoped, and one PV binds one claim.
        service = self.service
        content = {
            "bucket": service.store.bucket,
            "endpoint": service.store_endpoint,
            "role": service.store.credentials.role,
            "prefix": self.prefix,
            "client": service.volume.client,
            "options": service.volume.mount_options,
            "namespace": service.namespace,
            "of": service.name,
        }
        return f"{VOLUME_PREFIX}-{content_hash(content, 10)}"

    @property
    def volume_secret(self) -> str:
        """Secret that the CSI driver reads. Not named by content: a rotated key must not need a new volume."""
        return volume_secret_name(self.service)

    @property
    def id(self) -> str:
        """Eight hex digits: model bytes and flags of the workers. A prefill never feeds a decode of another id."""
        content = {
            "model": self.model_digest,
            "volume": self.volume_name,
            "serving": _decisions(self.service),
            "rendering": RENDERING,
        }
        return content_hash(content, 8)

    @property
    def group(self) -> str:
        """Name of the RoleBasedGroup, and of the Service that leads to this release alone."""
        return f"{self.service.name}-{self.id}"

    @property
    def labels(self) -> dict[str, str]:
        return {**self.service.metadata.labels, SERVICE_LABEL: self.service.name, RELEASE_LABEL: self.id}

    @property
    def replicas(self) -> dict[str, int]:
        serving = self.service.serving
        return {"prefill": serving.prefill.replicas, "decode": serving.decode.replicas, "router": 1}


def record_name(service: ModelService) -> str:
    """ConfigMap with the release that takes the traffic, as it was proved."""
    return f"{service.name}-release"


def volume_secret_name(service: ModelService) -> str:
    """Secret that the CSI driver reads."""
    return f"{service.name}-oss"


def writer_lease_name(service: ModelService) -> str:
    """Lease of the run that may change the service now."""
    return f"{service.name}-writer"


_ROLES = ("prefill", "decode")
_NO_RELEASE: Mapping[str, Any] = {role: {"replicas"} for role in _ROLES}


def _decisions(service: ModelService) -> dict[str, Any]:
    """Fields of `serving` beyond their defaults; a path or a name that is derived counts as if the document had it.

    A field that a later Slipway adds is at its default in every document of today, so it renames no release.
    """
    derived = {"model_path": service.model_path, "served_model_name": service.served_model_name}
    serving = service.serving.model_copy(update=derived)
    found = serving.model_dump(by_alias=True, exclude_defaults=True, exclude=_NO_RELEASE)
    # A variable may name those before it, $(NAME), so their order is kept in the pod and counts here.
    found["env"] = list(serving.env.items())
    for role in _ROLES:
        found[role] = {**found.get(role, {}), "env": list(getattr(serving, role).env.items())}
        found[role] = {name: value for name, value in found[role].items() if value}
    return {name: value for name, value in found.items() if value or name not in _ROLES}
