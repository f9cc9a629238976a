"""The Argo objects that tests look at: of the reference service, and of one that uses every option."""

import copy
from functools import cache
from typing import Any

import yaml

from steps.document.schema import ModelService
from tests.support.samples import SERVICES, service
from workflows.argo.versions import argo_version, for_version
from workflows.argo.workflow import cron_workflow, event_binding, workflow_template

VERSIONS = ("3.5", "3.6", "3.7", "4.0", "4.1")

VARIANTS: dict[str, tuple[str, ...]] = {
    "reference": (),
    "streamed": ("transfer.mode=streamed",),
    "in shards": ("transfer.mode=streamed", "transfer.shards=3"),
    "all options": (
        f"metadata.name={'a' * 30}",
        "metadata.labels={team: llm}",
        "metadata.annotations={owner: someone}",
        "model.token={secret: hub, key: token}",
        "notifications=[{secret: chat, key: url}]",
        "transfer.scratch={size: 1Ti, storageClassName: alicloud-disk-essd}",
        (
            "workflow.pod={nodeSelector: {pool: cpu}, priorityClassName: steps, imagePullSecrets: [{name: registry}], "
            "tolerations: [{key: cpu, operator: Exists}], affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuring"
            "Execution: [{weight: 1, preference: {matchExpressions: [{key: zone, operator: Exists}]}}]}}, "
            "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]}"
        ),
        "workflow.gpuNodes=allow",
        "workflow.labels={cost-center: '7'}",
        "workflow.annotations={note: nightly}",
    ),
    "role credentials": ("store.credentials={role: slipway}", "transfer.mode=streamed"),
}


def sample(variant: str = "reference") -> ModelService:
    return service(*VARIANTS[variant])


def objects(argo: str = "4.1", variant: str = "reference") -> dict[str, dict[str, Any]]:
    """Kind -> object, as it would be read back from its file; a copy that a test may change."""
    return copy.deepcopy(_objects(argo, variant))


@cache
def _objects(argo: str, variant: str) -> dict[str, dict[str, Any]]:
    of = sample(variant)
    document = (SERVICES / "qwen3-32b.yaml").read_text(encoding="utf-8")
    built = [workflow_template(of, document), cron_workflow(of, str(of.workflow.schedule)), event_binding(of)]
    return {found["kind"]: yaml.safe_load(yaml.safe_dump(for_version(found, argo_version(argo)))) for found in built}


def workflow_spec(argo: str = "4.1", variant: str = "reference") -> dict[str, Any]:
    return dict(objects(argo, variant)["WorkflowTemplate"]["spec"])


def templates(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Container templates by name."""
    return {template["name"]: template for template in spec["templates"] if "container" in template}


def exit_steps(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of the exit handler, one after the other."""
    handler = next(template for template in spec["templates"] if template["name"] == spec["onExit"])
    return [step for (step,) in handler["steps"]]


def dag_tasks(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return next(list(template["dag"]["tasks"]) for template in spec["templates"] if "dag" in template)
