"""Which adapters a step gets. The only reader of the environment.

Adapters and steps are imported inside the functions, so that a step loads no SDK but its own.
"""
# ruff: noqa: PLC0415

import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from steps.catalogue import CATALOGUE
from steps.document.overrides import InForce, Wanted
from steps.document.schema import Document, ModelService
from steps.errors import Blocked
from steps.kinds import (
    ACCESS_KEY_ID,
    ACCESS_KEY_SECRET,
    HUB_ENDPOINT,
    HUB_TOKEN,
    NOTIFICATION,
    REGISTRY,
    RUN_FILE,
    SESSION_TOKEN,
    STORE_ENDPOINT,
    TERMINATION_LOG,
)
from steps.model import ModelDigest
from steps.ports.kubernetes import Locks
from steps.ports.modelscope import ModelSource
from steps.ports.notify import Notifier
from steps.ports.oss import AccessKey, ModelStore
from steps.reconcile.clock import SystemClock
from steps.reconcile.converge import Step
from steps.release import Release

if TYPE_CHECKING:
    from steps.adapters.kubernetes.cluster import KubernetesCluster
    from steps.ports.kubernetes import Cluster
    from steps.ports.registry import ImageRegistry
    from steps.ports.sglang import Inference
    from steps.report.run_end import ReadWorkflow
    from steps.rollout.intent import Intent
    from steps.rollout.writer_lease import WriterLease
    from steps.transfer.manifest import ModelManifest
    from steps.transfer.shards import Shard

Facts = TypeVar("Facts")

log = logging.getLogger("steps")

ENVIRONMENT = os.environ  # noqa: TID251  # this module is the one place that reads it

# Between two steps of a run that hold the Lease of the writer, pods start and are tried again, and a smoke test runs.
BETWEEN_STEPS = 30 * 60  # seconds, beside the deadline of the smoke test
WITHIN_A_STEP = 120  # seconds; the loop of a step renews it every few
# Of check-release, for the counters of the engines, which follow an answer: with the pauses of the loop, some 18 s.
LOOKS_AT_ANSWERS = 8
_LAST_OF_TRANSFER = {"staged": "upload-model", "streamed": "mirror-model"}  # by transfer.mode


@dataclass(frozen=True)
class Invocation:
    """The arguments of the command line."""

    service: ModelService
    model_digest: ModelDigest | None = None  # None: the digest that the document expects, else that of the hub now
    proved_release: str = ""  # id of the release that smoke-test proved in this run
    scratch: Path = Path("/scratch")
    run_name: str = ""
    run_status: str = ""
    run_uid: str = ""
    record_counter: int | None = None  # of the release record when the run began; None: a step by hand
    shard: int | None = None  # of the transfer, from 0; None: all files and the manifest
    check: bool = False  # no change will be made
    wanted: Wanted = field(default_factory=lambda: Wanted(Document("", "the document")))  # what `service` is made of
    overrides: tuple[InForce, ...] = ()  # in force in `service`
    inherits: bool = False  # a step by hand: the overrides of the release record are in force as well


def progress_file() -> Path | None:
    """Where Argo reads progress. https://argo-workflows.readthedocs.io/en/latest/progress/"""
    name = ENVIRONMENT.get("ARGO_PROGRESS_FILE")
    return Path(name) if name else None


def termination_log() -> Path:
    """Where Kubernetes reads the one-line reason of a container's end."""
    return Path(ENVIRONMENT.get(TERMINATION_LOG, "/dev/termination-log"))


def build(step: str, invocation: Invocation) -> Step[Any]:
    """The step with its adapters.

    Raises KeyError for an unknown step, Blocked for a missing credential and for two digests that differ.
    """
    expected = invocation.service.model.digest
    if invocation.model_digest and expected not in (None, invocation.model_digest):
        raise Blocked(
            f"--model-digest is {invocation.model_digest}, but model.digest of the document is {expected}",
            "submit a new run, which pins the digest of the document; by hand, leave the option out",
        )
    return STEPS[step](invocation)


def _inherits(build: Callable[[Invocation], Step[Any]]) -> Callable[[Invocation], Step[Any]]:
    """A step by hand that works on the release that overrides name: those of the release record are in force for it.

    Of the other steps, resolve-model asks the record itself, those of a transfer go by the model digest, and those of
    the exit handler by the record.
    """

    def inheriting(invocation: Invocation) -> Step[Any]:
        from steps.objects import record
        from steps.rollout import inherited_overrides

        if not invocation.inherits:
            return build(invocation)
        found = record.read(_cluster().get(record.record_ref(invocation.service)))
        resolved = inherited_overrides.resolve(invocation.wanted, found)
        for sentence in inherited_overrides.explained(invocation.wanted, found):
            log.warning("%s", sentence)
        return build(replace(invocation, service=resolved.service, overrides=resolved.overrides))

    return inheriting


def _resolve_model(invocation: Invocation) -> Step[Any]:
    from steps.resolve_model import ResolveModel

    return ResolveModel(invocation.wanted, _source, _cluster())


def _check_release(invocation: Invocation) -> Step[Any]:
    """The steps of the pipeline as they are wired here, save that none of them may write and none takes the Lease."""
    from steps.check_release import CheckRelease, Part
    from steps.create_volume import CreateVolume
    from steps.mirror_model import MirrorModel
    from steps.objects import record
    from steps.objects.read_only import ReadOnlyCluster
    from steps.roll_out_service import RollOutService
    from steps.smoke_test import SmokeTest

    service, release = invocation.service, _release(invocation)
    cluster, intent = ReadOnlyCluster(_cluster()), _intent(invocation)
    parts = (
        # Both ways leave the same files behind, and with their manifest in the bucket no other system is queried.
        Part(_LAST_OF_TRANSFER[service.transfer.mode], lambda: MirrorModel(release, _source(service), _store(service))),
        Part("create-volume", lambda: CreateVolume(release, cluster, _key_of_volume(service), _manifest(release))),
        Part("roll-out-service", lambda: RollOutService(release, cluster)),
        # As if the next part had proved the release.
        Part("promote-release", lambda: _promotion(replace(invocation, proved_release=release.id), release, cluster)),
        # Last: it costs the most, and its result is useless once another part has a change.
        Part("smoke-test", lambda: SmokeTest(release, cluster, _inference()), looks=LOOKS_AT_ANSWERS),
    )
    return CheckRelease(release, parts, lambda: intent.overtaken(record.read(cluster.get(record.record_ref(service)))))


def _check_platform(invocation: Invocation) -> Step[Any]:
    from steps.check_platform import CheckPlatform

    service = invocation.service
    in_pod = _kubeconfig() is None
    release, source = _release(invocation), _source(service)
    run = _run_name(invocation)
    return CheckPlatform(release, _cluster(), _store(service), source, _registry(), run, own_accounts=in_pod)


def _download_model(invocation: Invocation) -> Step[Any]:
    from steps.download_model import DownloadModel

    service = invocation.service
    return DownloadModel(_release(invocation), _source(service), _store(service), invocation.scratch)


def _upload_model(invocation: Invocation) -> Step[Any]:
    from steps.upload_model import UploadModel

    return UploadModel(_release(invocation), _store(invocation.service), invocation.scratch)


def _mirror_model(invocation: Invocation) -> Step[Any]:
    from steps.mirror_model import MirrorModel

    service = invocation.service
    return MirrorModel(_release(invocation), _source(service), _store(service), shard=_shard(invocation))


def _verify_model(invocation: Invocation) -> Step[Any]:
    from steps.verify_model import VerifyModel

    return VerifyModel(_release(invocation), _store(invocation.service))


def _shard(invocation: Invocation) -> "Shard | None":
    from steps.transfer.shards import Shard

    number, count = invocation.shard, invocation.service.transfer.shards
    if number is None:
        return None
    if not 0 <= number < count:
        raise Blocked(
            f"--shard={number}, but transfer.shards is {count}: allowed are 0 to {count - 1}, and all",
            "render the workflow again from the document that the run uses, so that both know the same number",
        )
    return Shard(number, count)


def _create_scratch(invocation: Invocation) -> Step[Any]:
    from steps.create_scratch import CreateScratch

    uid = "" if "{{" in invocation.run_uid else invocation.run_uid
    return CreateScratch(invocation.service, _cluster(), _run_name(invocation), uid)


def _create_volume(invocation: Invocation) -> Step[Any]:
    from steps.create_volume import CreateVolume

    cluster, release = _cluster(), _release(invocation)
    step = CreateVolume(release, cluster, _key_of_volume(invocation.service), _manifest(release))
    return _guarded(invocation, step, _lease(invocation, cluster))


def _roll_out_service(invocation: Invocation) -> Step[Any]:
    from steps.roll_out_service import RollOutService

    cluster = _cluster()
    # The writer first, then the GPUs: in one order everywhere, two runs never wait for each other.
    rollout = RollOutService(_release(invocation), cluster)
    # One guard compares the counter, or its sentence would come twice.
    step = _guarded(replace(invocation, record_counter=None), rollout, _gpu_lease(invocation, cluster))
    return _guarded(invocation, step, _lease(invocation, cluster))


def _smoke_test(invocation: Invocation) -> Step[Any]:
    from steps.smoke_test import SmokeTest

    return SmokeTest(_release(invocation), _cluster(), _inference())


def _promote_release(invocation: Invocation) -> Step[Any]:
    cluster = _cluster()
    step = _promotion(invocation, _release(invocation), cluster)
    return _guarded(invocation, step, _lease(invocation, cluster, last=True))


def _promotion(invocation: Invocation, release: Release, cluster: "Cluster") -> Step[Any]:
    from steps.promote_release import PromoteRelease

    return PromoteRelease(
        release,
        cluster,
        proved=invocation.proved_release,
        run=_writer_name(invocation),
        overrides=invocation.overrides,
        document=invocation.wanted.fingerprint if invocation.overrides else "",
    )


def _roll_back(invocation: Invocation) -> Step[Any]:
    from steps.report.run_end import RunEnd
    from steps.roll_back import RollBack

    service, cluster = invocation.service, _cluster()
    run = RunEnd.of(invocation.run_name, invocation.run_status)
    lease = _lease(invocation, cluster, at_exit=True)
    step = RollBack(
        service,
        cluster,
        _inference(),
        run,
        _workflow(service, cluster, run.name),
        wrote=lease.wrote,
        other_writer=lease.other_writer,
    )
    # The step itself leaves the release of a newer run alone, and still removes what its own run left behind.
    return _guarded(replace(invocation, record_counter=None), step, lease)


def _report_run(invocation: Invocation) -> Step[Any]:
    from steps.report.run_end import RunEnd
    from steps.report_run import ReportRun

    service, cluster = invocation.service, _cluster()
    run = RunEnd.of(invocation.run_name, invocation.run_status)
    notifier = cache(partial(_notifier, len(service.notifications))) if service.notifications else None
    return ReportRun(service, cluster, notifier, run, _workflow(service, cluster, run.name))


_FACTORIES: Mapping[str, Callable[[Invocation], Step[Any]]] = {
    "resolve-model": _resolve_model,
    "check-release": _check_release,
    "check-platform": _check_platform,
    "download-model": _download_model,
    "upload-model": _upload_model,
    "mirror-model": _mirror_model,
    "verify-model": _verify_model,
    "create-scratch": _create_scratch,
    "create-volume": _create_volume,
    "roll-out-service": _roll_out_service,
    "smoke-test": _smoke_test,
    "promote-release": _promote_release,
    "roll-back": _roll_back,
    "report-run": _report_run,
}
STEPS: Mapping[str, Callable[[Invocation], Step[Any]]] = {
    step: _inherits(factory) if CATALOGUE[step].inherits else factory for step, factory in _FACTORIES.items()
}


def _release(invocation: Invocation) -> Release:
    service, expected = invocation.service, invocation.service.model.digest
    digest = invocation.model_digest or (ModelDigest(expected) if expected else _source(service).listing().digest)
    return Release(service, digest)


def _manifest(release: Release) -> "Callable[[], ModelManifest | None]":
    """Reads the manifest of the release in the bucket."""
    from steps.transfer import manifest

    return partial(manifest.read, _store(release.service), release)


def _source(service: ModelService) -> ModelSource:
    from steps.adapters.modelscope.source import ModelScopeSource

    return ModelScopeSource(
        endpoint=ENVIRONMENT.get(HUB_ENDPOINT, service.model.endpoint),
        model_id=service.model.id,
        revision=service.model.revision,
        token=_secret(HUB_TOKEN, f"the hub token of {service.model.id}") if service.model.token else "",
        region=service.store.region,
    )


def _registry() -> "ImageRegistry | None":
    from steps.adapters.registry import OciRegistry

    return None if ENVIRONMENT.get(REGISTRY) == "none" else OciRegistry()


def _store(service: ModelService) -> ModelStore:
    from steps.adapters.oss.credentials import role_credentials, static_credentials
    from steps.adapters.oss.store import OssStore

    credentials = service.store.credentials
    return OssStore(
        endpoint=ENVIRONMENT.get(STORE_ENDPOINT, service.store_endpoint),
        region=service.store.region,
        bucket=service.store.bucket,
        credentials=role_credentials(service.store.region, ENVIRONMENT, credentials.role)
        if credentials.role
        else static_credentials(_access_key()),
    )


def _key_of_volume(service: ModelService) -> AccessKey | None:
    """The key for the CSI driver; None if it has a role of its own."""
    return _access_key() if service.store.credentials.secret else None


def _access_key() -> AccessKey:
    return AccessKey(
        id=_secret(ACCESS_KEY_ID, "the access key of OSS"),
        secret=_secret(ACCESS_KEY_SECRET, "the access key of OSS"),
        token=ENVIRONMENT.get(SESSION_TOKEN, ""),
    )


def _guarded(invocation: Invocation, step: Step[Facts], lease: "WriterLease") -> Step[Any]:
    from steps.rollout.writer_lease import Guarded

    return step if invocation.check else Guarded(step, lease, _intent(invocation))


def _workflow(service: ModelService, cluster: "KubernetesCluster", run: str) -> "ReadWorkflow":
    from steps.report.run_end import workflow_of

    path = ENVIRONMENT.get(RUN_FILE)
    if path:
        return lambda: json.loads(Path(path).read_text(encoding="utf-8"))
    return lambda: workflow_of(cluster, service, run)


def _lease(invocation: Invocation, locks: Locks, *, last: bool = False, at_exit: bool = False) -> "WriterLease":
    """A step of a run writes in the name of the run; one that was started by hand, for itself alone.

    The last step of the line gives the Lease back if it is done, and the exit handler however it ends.
    """
    from steps.rollout.writer_lease import Writer, WriterLease

    stays = bool(_run_name(invocation)) and not at_exit
    seconds = BETWEEN_STEPS + 60 * invocation.service.proof.deadline_minutes if stays else WITHIN_A_STEP
    writer = Writer(_writer_name(invocation), seconds, stays and not last, stays_with_faults=stays)
    return WriterLease(invocation.service, locks, writer, SystemClock())


def _gpu_lease(invocation: Invocation, locks: Locks) -> "WriterLease":
    from steps.rollout.writer_lease import GpuLease, Writer

    writer = Writer(_writer_name(invocation), WITHIN_A_STEP, stays=False)
    return GpuLease(invocation.service, locks, writer, SystemClock())


def _intent(invocation: Invocation) -> "Intent":
    from steps.rollout.intent import Intent

    return Intent(_writer_name(invocation), invocation.record_counter)


def _writer_name(invocation: Invocation) -> str:
    return _run_name(invocation) or f"a step by hand on {socket.gethostname()}, process {os.getpid()}"


def _run_name(invocation: Invocation) -> str:
    return "" if "{{" in invocation.run_name else invocation.run_name


def _cluster() -> "KubernetesCluster":
    from steps.adapters.kubernetes.cluster import connect

    return connect(_kubeconfig())


def _inference() -> "Inference":
    from steps.adapters.sglang.client import connect

    return connect(_kubeconfig())


def _notifier(targets: int) -> Notifier:
    from steps.adapters.notify.targets import Targets

    return Targets(partial(_webhook, index) for index in range(targets))


def _webhook(index: int) -> Notifier:
    from steps.adapters.notify.webhook import WebhookNotifier

    return WebhookNotifier(_secret(NOTIFICATION.format(index=index), "the address of a webhook"))


def _kubeconfig() -> Path | None:
    from steps.adapters.kubernetes.cluster import kubeconfig_of

    return kubeconfig_of(ENVIRONMENT)


def _secret(variable: str, meaning: str) -> str:
    value = ENVIRONMENT.get(variable, "").strip()
    if not value:
        raise Blocked(
            f"the environment variable {variable} ({meaning}) is not set or empty",
            "in the cluster, check that the Secret named in the document has the key; on a laptop, export it",
        )
    return value
