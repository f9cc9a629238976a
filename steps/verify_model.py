"""verify-model: read a stored revision again and compare it with its manifest. Changes nothing.

For a bucket in doubt: after a restore, a lifecycle rule, a person with a console. No task of the pipeline, which
proves each byte when it is written.
"""

from dataclasses import dataclass, field

from steps.ports.oss import ModelStore
from steps.reconcile.converge import Past
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report, size
from steps.release import Release
from steps.transfer import delivery, manifest, plans
from steps.transfer.manifest import ModelManifest
from steps.transfer.verification import Examination, examine


@dataclass(frozen=True)
class Facts:
    manifest: ModelManifest | None  # None: the revision does not exist, and no file was read
    found: Examination = field(default_factory=Examination)


@dataclass(frozen=True)
class Outputs:
    prefix: str  # oss://bucket/prefix
    files_total: int
    files_different: int
    bytes_read: int


def plan(release: Release, facts: Facts) -> Plan:
    """A failure for each difference; no change."""
    where = plans.location(release)
    if facts.manifest is None:
        return plans.not_stored(release)
    faults = [
        f"{where}/{file.path} {file.difference}. Next: delete the manifest, then the object, and submit a run: it "
        "moves what is missing; pods that read this revision have read the wrong bytes"
        for file in facts.found.differences
    ]
    faults += [
        f"{plans.location(release, key)} is not in the manifest, but readers of the prefix see it. Next: find out who "
        "wrote it, and delete it"
        for key in facts.found.extra
    ]
    right = len(facts.manifest.files) - len(facts.found.differences)
    kept = (
        f"{where}: {right} of {len(facts.manifest.files)} files as the manifest says, {size(facts.found.bytes_read)} "
        f"read; written {facts.manifest.created} by Slipway {facts.manifest.tool_version}"
    )
    return Plan(ok=(kept,), failed=tuple(faults))


@dataclass(frozen=True)
class VerifyModel:
    release: Release
    store: ModelStore

    @property
    def deadline(self) -> float:
        return delivery.deadline(self.release.service)

    def observe(self, _past: Past[Facts]) -> Facts:
        found = manifest.read(self.store, self.release)
        return Facts(found, examine(self.store, self.release, found)) if found else Facts(None)

    def plan(self, facts: Facts) -> Plan:
        return plan(self.release, facts)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        """Never called: the plan has no changes."""

    def outputs(self, facts: Facts) -> Outputs:
        return Outputs(
            prefix=plans.location(self.release),
            files_total=len(facts.manifest.files) if facts.manifest else 0,
            files_different=len(facts.found.differences),
            bytes_read=facts.found.bytes_read,
        )
