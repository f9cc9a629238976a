"""Refuse to start on a platform that cannot end well: in seconds, before a byte moves, and again before GPUs are taken.

Read-only. All findings come at once, each with a code, the value found, the need, and the next step.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypeVar

from steps import catalogue, kinds
from steps.checks import facts, hub, image, table
from steps.checks.facts import CodeOfModel, PlatformFacts
from steps.checks.findings import Refusal
from steps.checks.image import images_of_workers
from steps.document.image_name import ImageName
from steps.errors import Blocked, TransientError
from steps.kinds import OSS_DRIVER, Kind, Manifest, Ref
from steps.model import Listing, ModelDigest, ModelFile
from steps.objects import record, services
from steps.ports.kubernetes import Cluster, Permission
from steps.ports.modelscope import ModelSource
from steps.ports.oss import ModelStore
from steps.ports.registry import ImageRegistry
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.release import Release
from steps.report.run_end import workflow_of
from steps.transfer import manifest

Fact = TypeVar("Fact")

WRITE_PROBE = ".slipway/write-probe"


@dataclass(frozen=True)
class Outputs:
    checks: int  # number of checks


def plan(release: Release, found: PlatformFacts) -> Plan:
    return table.plan_of(release, found)


@dataclass(frozen=True)
class CheckPlatform:
    release: Release
    cluster: Cluster
    store: ModelStore
    source: ModelSource
    registry: ImageRegistry | None = None  # None: there is none to ask, as in a rehearsal
    run: str = ""  # name of the Workflow; empty outside of Argo
    # Each step has an account of its own, as in a pod; otherwise one account runs them all, as on a laptop.
    own_accounts: bool = False

    deadline: ClassVar[float] = 300.0  # seconds; a component that restarts gets the time to come back

    def observe(self, _past: Past[PlatformFacts]) -> PlatformFacts:
        namespace = self.release.service.namespace
        listing, bucket, stored = self._model()
        found = self._select(kinds.SERVICE, namespace)
        return PlatformFacts(
            namespace=self._get(Ref(kinds.NAMESPACE, namespace)),
            rbg_versions=_look(self._rbg_versions),
            deployments=self._select(kinds.DEPLOYMENT),
            daemon_sets=self._select(kinds.DAEMON_SET),
            nodes=self._select(kinds.NODE),
            pods=self._select(kinds.POD),
            erdma_devices=self._erdma_devices(),
            csi_driver=self._get(Ref(kinds.CSI_DRIVER, OSS_DRIVER)),
            secret=self._secret(),
            services=found,
            staying=self._staying(found),
            weight_bytes=listing if isinstance(listing, Refusal) else listing.weight_bytes,
            bucket=bucket,
            stored=stored,
            run=_look(lambda: workflow_of(self.cluster, self.release.service, self.run)),
            quotas=self._select(kinds.RESOURCE_QUOTA, namespace),
            quotas_of_runs=self._select(kinds.RESOURCE_QUOTA, self.release.service.workflow.namespace),
            code=_look(lambda: self._code(listing)),
            engines={image: self._engine(image) for image in images_of_workers(self.release)},
            rights={permission: self.cluster.allows(permission) for permission in self._permissions()},
            in_pods=self.own_accounts,
        )

    def plan(self, found: PlatformFacts) -> Plan:
        return plan(self.release, found)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        """Nothing: this step has no changes."""

    def outputs(self, _found: PlatformFacts) -> Outputs:
        return Outputs(checks=len(table.CHECKS))

    def _staying(self, found: facts.Objects | Refusal) -> frozenset[str] | None:
        """As roll-out-service decides it. Where one of both cannot be read, every release may be one that stays."""
        service = self.release.service
        recorded = _look(lambda: record.read(self.cluster.get(record.record_ref(service))))
        if isinstance(found, Refusal) or isinstance(recorded, Refusal) or recorded.broken:
            return None
        name = services.traffic_service_ref(service).name
        traffic = next((one for one in found if one["metadata"]["name"] == name), None)
        return frozenset({recorded.current.release if recorded.current else "", services.serving_release(traffic)})

    def _permissions(self) -> tuple[Permission, ...]:
        service = self.release.service
        found = catalogue.permissions_of_accounts if self.own_accounts else catalogue.permissions_of_one_account
        return found(service)

    def _get(self, ref: Ref) -> Manifest | Refusal | None:
        return _look(lambda: self.cluster.get(ref))

    def _select(self, kind: Kind, namespace: str = "") -> facts.Objects | Refusal:
        return _look(lambda: tuple(self.cluster.select(kind, namespace, part=facts.PARTS.get(kind))))

    def _rbg_versions(self) -> tuple[str, ...]:
        return tuple(kind.api_version.rpartition("/")[2] for kind in kinds.RBG_KINDS if self.cluster.serves(kind))

    def _erdma_devices(self) -> facts.Objects | Refusal | None:
        if self.release.service.serving.fabric != "erdma":
            return None
        served = _look(lambda: self.cluster.serves(kinds.ERDMA_DEVICE))
        if isinstance(served, Refusal):
            return served
        return self._select(kinds.ERDMA_DEVICE) if served else None

    def _secret(self) -> Manifest | Refusal | None:
        service = self.release.service
        name = service.store.credentials.secret
        if name is None:
            return None
        if self.own_accounts:
            return Refusal("the account of this step reads no Secret; the kubelet hands each step its keys")
        return self._get(Ref(kinds.SECRET, name, service.workflow.namespace))

    def _model(self) -> tuple[Listing | Refusal, str | Refusal, bool]:
        """The files, the answer of the bucket, and whether it holds them: then the hub is not queried."""
        stored = _look(lambda: manifest.read(self.store, self.release))
        where = f"oss://{self.release.service.store.bucket}/{self.release.prefix}"
        if isinstance(stored, Refusal):
            return _look(self.source.listing), stored, False
        if stored is not None:
            return stored.listing, f"{where} holds the model", True
        return _look(self.source.listing), _look(lambda: self._probe_write(where)), False

    def _code(self, listing: Listing | Refusal) -> CodeOfModel | Refusal:
        """Compared with the release that the record calls current: the files that its manifest lists."""
        service = self.release.service
        current = record.read(self.cluster.get(record.record_ref(service))).current
        if current is None:
            return CodeOfModel(known="no release serves yet whose code could be compared")
        if isinstance(listing, Refusal) or current.model_digest == self.release.model_digest:
            return listing if isinstance(listing, Refusal) else CodeOfModel()
        serving = Release(service, ModelDigest(current.model_digest))
        served = manifest.read(self.store, serving)
        if served is None:
            where = f"oss://{service.store.bucket}/{serving.prefix}"
            return CodeOfModel(known=f"{where} does not hold what serves: the document names another model or bucket")
        before = partial(self._stored, serving)
        return CodeOfModel(hub.changed_code(served.listing, listing, before, self._as_listed))

    def _engine(self, name: str) -> str | Refusal:
        """Version in the configuration of an image. A registry without an answer is no obstacle: the nodes pull."""
        if self.registry is None:
            return Refusal("there is no registry here")
        try:
            return image.version_of(self.registry.config(ImageName.of(name)))
        except TransientError as silent:
            return Refusal(silent.reason)

    def _stored(self, release: Release, file: ModelFile) -> bytes:
        return self.store.get(f"{release.prefix}/{file.path}") or b""

    def _as_listed(self, file: ModelFile) -> bytes:
        """The content in the bucket or at the hub; empty, which is no configuration, if it differs from the listing."""
        body = bytearray(self._stored(self.release, file))
        if not _is(file, body):
            body = bytearray(file.size)
            self.source.read(file, 0, memoryview(body))
        return bytes(body) if _is(file, body) else b""

    def _probe_write(self, where: str) -> str:
        """Starting an upload and forgetting it proves the right to write, and leaves nothing."""
        self.store.abort_upload(self.store.start_upload(f"{self.release.prefix}/{WRITE_PROBE}"))
        return f"{where} can be written"


def _is(file: ModelFile, body: bytearray) -> bool:
    return hashlib.sha256(body).hexdigest() == file.sha256


def _look(read: Callable[[], Fact]) -> Fact | Refusal:
    """A refusal is a finding among others; no answer still ends the step, to be tried again."""
    try:
        return read()
    except Blocked as refused:
        return Refusal(refused.reason)
