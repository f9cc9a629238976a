"""The pipeline as Argo objects, with the fields of Argo 4: WorkflowTemplate, WorkflowEventBinding, and a CronWorkflow
where the document has a schedule.

`workflows.argo.versions` adapts them to older versions of Argo. All of them carry the name of the service, so
`argo submit --from workflowtemplate/<name>`, the schedule and the event start the very same thing.
"""

import json
from typing import Any

from hera.workflows import DAG, CronWorkflow, Parameter, Task, WorkflowTemplate
from hera.workflows import models as m

from steps.checks.nodes import GPU_NAME_LABEL, GPU_PRESENT_LABEL
from steps.document.overrides import OVERRIDES
from steps.document.schema import ModelService
from steps.kinds import SERVICE_LABEL, TRIGGER_LABEL
from workflows import pipeline
from workflows.argo.events import event_spec
from workflows.argo.pods import deadline_seconds
from workflows.argo.templates import (
    DESCRIPTION,
    DOCUMENT,
    USER,
    add_exit_handler,
    add_marker,
    add_template,
    consumed_outputs,
    depends,
    if_current,
    override_if_set,
    task_arguments,
    unless_current,
)
from workflows.runs.submission import REASON

Manifest = dict[str, Any]

ENTRYPOINT = "pipeline"
EXIT_HANDLER = "exit"
TITLE = "workflows.argoproj.io/title"
DAY = 24 * 3600  # seconds
# A transfer may be ended in the middle of a part; it needs this long to close its files and to report its progress.
GRACE_SECONDS = 120


def workflow_template(service: ModelService, document: str) -> Manifest:
    """Everything that a run is; `document` is the text of `service`, the default of the parameter `service`."""
    tasks = pipeline.tasks(service)
    used = consumed_outputs(tasks)
    with WorkflowTemplate(
        name=service.name,
        namespace=service.workflow.namespace,
        labels=_labels(service),
        annotations=_annotations(
            service,
            f"Serve {service.model.id} as {service.name} in namespace {service.namespace}, and prove it. "
            "Changes only what differs from the document.",
        ),
        entrypoint=ENTRYPOINT,
        on_exit=EXIT_HANDLER,
        arguments=_parameters(service, document),
        workflow_metadata=_run_metadata(service),
        # One writer at a time, from any source: a run waits as Pending for another one at work.
        synchronization=_lock(service),
        active_deadline_seconds=_run_deadline(service),
        pod_gc=m.PodGC(strategy="OnWorkflowSuccess"),
        ttl_strategy=m.TTLStrategy(seconds_after_success=3 * DAY, seconds_after_failure=7 * DAY),
        pod_metadata=_pod_metadata(service),
        **_pod_fields(service),
        security_context=m.PodSecurityContext(
            run_as_non_root=True,
            run_as_user=USER,
            run_as_group=USER,
            fs_group=USER,
            # Without it the kubelet changes the owner of every file of a large scratch volume at every start.
            fs_group_change_policy="OnRootMismatch",
            seccomp_profile=m.SeccompProfile(type="RuntimeDefault"),
        ),
        pod_spec_patch=_pod_spec_patch(service),
    ) as workflow:
        for task in _one_for_each_step((*tasks, *pipeline.EXIT)):
            add_template(task, service, used)
        add_marker(pipeline.NOTHING_CHANGED)
        add_exit_handler(pipeline.EXIT, EXIT_HANDLER)
        with DAG(name=ENTRYPOINT):
            for task in tasks:
                Task(
                    name=task.name,
                    template=task.step,
                    arguments=task_arguments(task) or None,
                    depends=depends(task) or None,
                    with_param=json.dumps(task.shards) if task.fans_out else None,
                    when=unless_current() if task.spec.skippable else None,
                )
            marker = pipeline.NOTHING_CHANGED
            Task(name=marker.name, template=marker.name, depends=" && ".join(marker.after), when=if_current())
    return dict(workflow.to_dict())


def cron_workflow(service: ModelService, schedule: str) -> Manifest:
    """The schedule. It passes every override, so that a Retry with a changed parameter forgets none of them."""
    cron = CronWorkflow(
        name=service.name,
        namespace=service.workflow.namespace,
        labels=_labels(service),
        annotations=_annotations(service, f"Keep {service.name} at the newest {service.model.id}."),
        schedules=[schedule],
        timezone=service.workflow.timezone,
        concurrency_policy="Forbid",
        # A controller that was down at three still starts the run when it is back within these seconds.
        starting_deadline_seconds=3600,
        successful_jobs_history_limit=3,
        failed_jobs_history_limit=7,
        arguments=[
            *(Parameter(name=override.parameter, value="") for override in OVERRIDES),
            Parameter(name=REASON, value="schedule"),
        ],
        workflow_template_ref=m.WorkflowTemplateRef(name=service.name),
        synchronization=_lock(service),  # where the version of Argo needs it beside the reference
    )
    manifest = dict(cron.to_dict())
    # Hera has no field for the metadata of the runs; its field of that name is inside the workflow.
    manifest["spec"] = {**manifest["spec"], "workflowMetadata": {"labels": {TRIGGER_LABEL: "schedule"}}}
    return manifest


def event_binding(service: ModelService) -> Manifest:
    """The door for CI and webhooks; `workflows.argo.events` has its expressions."""
    binding = m.WorkflowEventBinding(
        api_version="argoproj.io/v1alpha1",
        kind="WorkflowEventBinding",
        metadata=m.ObjectMeta(
            name=service.name,
            namespace=service.workflow.namespace,
            labels=_labels(service),
            annotations=_annotations(service, f"Deploy {service.name} when CI says so."),
        ),
        spec=event_spec(service),
    )
    return dict(binding.model_dump(exclude_none=True, by_alias=True))


def _lock(service: ModelService) -> m.Synchronization:
    return m.Synchronization(mutexes=[m.Mutex(name=mutex_name(service))])


def mutex_name(service: ModelService) -> str:
    return f"slipway-{service.namespace}-{service.name}"


def _parameters(service: ModelService, document: str) -> list[Parameter]:
    overrides = [
        Parameter(
            name=override.parameter,
            value="",
            description=override.does,
            enum=["", *override.choices] if override.choices else None,
        )
        for override in OVERRIDES
    ]
    reason = Parameter(name=REASON, value="manual", description="Why this run; a few words for its title.")
    does = f"The document of {service.name}: what is wanted. Its name and its transfer mode stay as they are here."
    return [*overrides, reason, Parameter(name=DOCUMENT, value=document, description=does)]


def _run_metadata(service: ModelService) -> m.WorkflowMetadata:
    overrides = "".join(override_if_set(item.parameter, shown=item.parameter != "image") for item in OVERRIDES)
    return m.WorkflowMetadata(
        labels=_labels(service),
        annotations={
            # Argo's list shows 22 to 28 characters of each; in 3.5 a long description pushes the other columns away.
            # An expression: Argo cannot paste some characters otherwise, and would leave the run without a phase.
            TITLE: f"{service.name}: {{{{=workflow.parameters.{REASON}}}}}",
            DESCRIPTION: f"{overrides}{service.model.id} in {service.namespace}",
        },
    )


def _pod_metadata(service: ModelService) -> m.Metadata | None:
    """Without Slipway's own labels: a pod of a run must never match the selector of a pod that serves."""
    labels = {**service.metadata.labels, **service.workflow.labels}
    annotations = service.workflow.annotations
    if not labels and not annotations:
        return None
    return m.Metadata(labels=labels or None, annotations=annotations or None)


def _run_deadline(service: ModelService) -> int:
    """Every task may need its time twice. The time in the queue of the mutex does not count."""
    return 2 * sum(deadline_seconds(task.step, service) for task in pipeline.tasks(service))


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def _pod_fields(service: ModelService) -> dict[str, Any]:
    """Fields of `workflow.pod` that a WorkflowSpec has; the others are in the patch."""
    pod = service.workflow.pod.spec
    return {
        "node_selector": pod.get("nodeSelector"),
        "tolerations": [m.Toleration.model_validate(one) for one in pod.get("tolerations", ())] or None,
        "image_pull_secrets": [m.LocalObjectReference.model_validate(one) for one in pod.get("imagePullSecrets", ())]
        or None,
        "pod_priority_class_name": pod.get("priorityClassName"),
        "affinity": m.Affinity.model_validate(_away_from_gpus(service, pod.get("affinity", {}))),
    }


def _pod_spec_patch(service: ModelService) -> str:
    # A WorkflowSpec has no field for the spread.
    spread = {name: value for name, value in service.workflow.pod.spec.items() if name == "topologySpreadConstraints"}
    return json.dumps({"terminationGracePeriodSeconds": GRACE_SECONDS, **spread})


def _away_from_gpus(service: ModelService, affinity: Manifest) -> Manifest:
    """A step on a node with GPUs takes CPU, memory and network from a worker that waits for them there.

    Terms of a node selector are alternatives, so each of the document's gets the expressions, too.
    """
    no_gpu = [
        {"key": GPU_NAME_LABEL, "operator": "DoesNotExist"},
        {"key": GPU_PRESENT_LABEL, "operator": "NotIn", "values": ["true"]},
    ]
    nodes = affinity.get("nodeAffinity", {})
    if service.workflow.gpu_nodes == "never":
        terms = nodes.get(_REQUIRED, {}).get("nodeSelectorTerms", [{}])
        alone = [{**term, "matchExpressions": [*term.get("matchExpressions", ()), *no_gpu]} for term in terms]
        return {**affinity, "nodeAffinity": {**nodes, _REQUIRED: {"nodeSelectorTerms": alone}}}
    preferred = {"weight": 100, "preference": {"matchExpressions": no_gpu}}
    return {**affinity, "nodeAffinity": {**nodes, _PREFERRED: [*nodes.get(_PREFERRED, ()), preferred]}}


def _one_for_each_step(tasks: tuple[pipeline.Task, ...]) -> list[pipeline.Task]:
    return list({task.step: task for task in reversed(tasks)}.values())[::-1]


def _labels(service: ModelService) -> dict[str, str]:
    return {**service.metadata.labels, **service.workflow.labels, SERVICE_LABEL: service.name}


def _annotations(service: ModelService, description: str) -> dict[str, str]:
    return {**service.metadata.annotations, DESCRIPTION: description}
