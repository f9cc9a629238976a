"""One Argo container template for each step: inputs, outputs, attempts; `workflows.argo.pods` has its pod.

Named templates with a retry strategy each: a strategy on the workflow would run the whole pipeline again, and one on an
inline template broke in Argo 3.7.0. https://github.com/argoproj/argo-workflows/issues/15051
"""

from collections.abc import Sequence

from hera.workflows import (
    Container,
    Parameter,
    RawArtifact,
    RetryStrategy,
    Step,
    Steps,
    Suspend,
)
from hera.workflows import models as m

from steps.check_release import CURRENT
from steps.document.overrides import DOCUMENT as AS_IN_DOCUMENT
from steps.document.overrides import OVERRIDES
from steps.document.schema import ModelService
from steps.errors import Exit
from steps.policy_rules import account
from steps.reconcile.outputs import RECAP, file_name
from steps.report.run import SUCCEEDED
from workflows.argo.pods import (
    PLACES,
    RUN_NAME,
    SECURITY_CONTEXT,
    deadline_seconds,
    environment,
    resources,
    volumes,
)
from workflows.pipeline import SHARD, STATE, Marker, Output, Task, arguments, command, outputs

DOCUMENT = "service"  # parameter of the workflow and artifact of every template
DESCRIPTION = "workflows.argoproj.io/description"
USER = 65532  # "nonroot" of distroless images
# How the message of a pod begins that its node gave up: eviction, preemption by the kubelet, shutdown of the node.
# Kubelets from 1.22 on keep the states of its containers, killed with 137 or 143, as after an OOM kill.
# Argo takes the message of the pod before a container's, which begins with its reason: `OOMKilled (exit code 137)`.
# https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/operator.go (inferFailedReason)
# https://github.com/kubernetes/kubernetes/blob/v1.33.0/pkg/kubelet/eviction/helpers.go (nodeLowMessageFmt)
# https://github.com/kubernetes/kubernetes/blob/v1.33.0/pkg/kubelet/preemption/preemption.go (message)
# https://github.com/kubernetes/kubernetes/blob/v1.33.0/pkg/kubelet/nodeshutdown/nodeshutdown_manager.go
LOST_WITH_ITS_NODE = (
    "The node was low on resource",
    "Preempted in order to admit critical pod",
    "Pod was terminated in response to imminent node shutdown",
)
# Argo keeps the exit code as a string. Error means that the pod was deleted or that Argo's own containers failed; "-1"
# that the pod ended without a word of its containers. The step's own "ask again" is the last. docs/how-to/retry.md has
# the table. https://argo-workflows.readthedocs.io/en/latest/retries/
RETRY_EXPRESSION = (
    f'lastRetry.status == "Error" || lastRetry.exitCode in ["{int(Exit.NO_ANSWER)}", "-1"] || '
    f'lastRetry.message matches "^({"|".join(LOST_WITH_ITS_NODE)})"'
)
# Argo waits before it evaluates the expression, so a final failure shows that much later: the first wait is short.
# The six attempts of a transfer still span half an hour in which the hub may be down.
# https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/operator.go (processNodeRetries)
FIRST_WAIT = "5s"
WAIT_FACTOR = 4
# Facts of the run; `workflow.status` exists in the exit handler alone. Never `workflow.failures`: the messages of the
# tasks would become part of a template, which Argo evaluates, and of an argument, which has a limit of 128 KiB.
# https://argo-workflows.readthedocs.io/en/latest/variables/#exit-handler
RUN_FACTS = {
    "run-name": RUN_NAME,
    "run-status": "{{workflow.status}}",
    "run-uid": "{{workflow.uid}}",
}


def add_template(task: Task, service: ModelService, consumed: frozenset[Output]) -> None:
    """Add the template of the task's step to the Hera workflow that is open.

    `consumed` are the outputs that other tasks read.
    """
    Container(
        name=task.step,
        annotations={DESCRIPTION: task.description},  # of its pods
        image=service.workflow.image,
        command=list(command(task)),
        args=list(arguments(task, PLACES, _values(task), parameters=_parameters())),
        inputs=[*_inputs(task), RawArtifact(name=DOCUMENT, path=PLACES.document, data=workflow_parameter(DOCUMENT))],
        outputs=_outputs(task.step, consumed),
        env=environment(task.step, service),
        retry_strategy=_retry(task.spec.retries) if task.spec.retries else None,
        active_deadline_seconds=deadline_seconds(task.step, service),
        service_account_name=account(task.step),
        security_context=SECURITY_CONTEXT,
        # A step that could not start, or was killed, shows the end of its log; that is plain text as its message is.
        termination_message_policy="FallbackToLogsOnError",
        resources=resources(task.step, service),
        volumes=volumes(task),
    )


def add_exit_handler(tasks: Sequence[Task], name: str) -> None:
    """Add the graph of the exit handler: one task after the other, each also after a failure of the one before it.

    Steps, and no DAG: Argo 3.5 calls the DAG of an exit handler Failed as soon as it begins in a run that was stopped,
    and then starts no further task of it.
    https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/dag.go (assessDAGPhase)
    A task that fails is red and fails nothing else: a run that succeeded is Failed if its exit handler is.
    https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/operator.go (operate)
    """
    with Steps(name=name):
        for task in tasks:
            Step(
                name=task.name,
                template=task.step,
                when=f"{RUN_FACTS['run-status']} != {SUCCEEDED}" if task.if_failed else None,
                continue_on=m.ContinueOn(failed=True, error=True),
            )


def add_marker(marker: Marker) -> None:
    """Add the template of a node without a pod. A suspension of no seconds is over as soon as the controller sees it.

    https://github.com/argoproj/argo-workflows/blob/v3.5.15/workflow/controller/operator.go (executeSuspend)
    """
    Suspend(name=marker.name, annotations={DESCRIPTION: marker.description}, duration="0")


def _retry(limit: int) -> RetryStrategy:
    return RetryStrategy(
        limit=limit,
        retry_policy="Always",
        expression=RETRY_EXPRESSION,
        # Never maxDuration: it counts from the first attempt and would end a transfer that works.
        # https://github.com/argoproj/argo-workflows/issues/13044
        backoff=m.Backoff(duration=FIRST_WAIT, factor=WAIT_FACTOR),
    )


def unless_current() -> str:
    """`when` of a task that a no-op run skips."""
    return f"{_output_tag(STATE)} != {CURRENT}"


def if_current() -> str:
    return f"{_output_tag(STATE)} == {CURRENT}"


def workflow_parameter(name: str) -> str:
    return f"{{{{workflow.parameters.{name}}}}}"


def override_if_set(name: str, *, shown: bool) -> str:
    """Name and value of a parameter, or nothing if it is empty; `shown`: the value is short.

    Argo evaluates the expression once; a value stays text.
    https://argo-workflows.readthedocs.io/en/latest/variables/#expression
    """
    value = f"workflow.parameters['{name}']"
    whole = f"'{name} ' + {value} + ', '"
    text = whole if shown else f"({value} == '{AS_IN_DOCUMENT}' ? {whole} : 'another {name}, ')"
    return f"{{{{={value} == '' ? '' : {text}}}}}"


def task_arguments(task: Task) -> dict[str, str]:
    """The arguments from the DAG: outputs of earlier tasks, and the number of the shard of an instance."""
    shard = {SHARD: "{{item}}" if task.fans_out else task.shards[0]} if task.shards else {}
    return shard | {option: _output_tag(source) for option, source in task.options.items()}


def depends(task: Task) -> str:
    """The tasks before it. A task that reads an output is omitted where the other one was skipped: its `when` is
    evaluated later than its arguments, and Argo 3.7.11 and 4.0.2 wait for an output that never comes.

    https://github.com/argoproj/argo-workflows/blob/v3.7.11/workflow/controller/dag.go#L735
    """
    read = {source.task for source in task.options.values()}
    return " && ".join(f"{name}.Succeeded" if name in read else name for name in task.after)


def consumed_outputs(tasks: Sequence[Task]) -> frozenset[Output]:
    return frozenset({STATE, *(source for task in tasks for source in task.options.values())})


def _output_tag(source: Output) -> str:
    return f"{{{{tasks.{source.task}.outputs.parameters.{file_name(source.field)}}}}}"


def _values(task: Task) -> dict[str, str]:
    handed = {option: f"{{{{inputs.parameters.{option}}}}}" for option in _handed(task)}
    return handed | {fact: RUN_FACTS[fact] for fact in task.run_facts}


def _parameters() -> list[str]:
    return [f"{override.parameter}={workflow_parameter(override.parameter)}" for override in OVERRIDES]


def _inputs(task: Task) -> list[Parameter]:
    return [Parameter(name=option) for option in _handed(task)]


def _handed(task: Task) -> tuple[str, ...]:
    return (*task.options, *((SHARD,) if task.shards else ()))


def _outputs(step: str, consumed: frozenset[Output]) -> list[Parameter]:
    """An output that a later task reads has no default: without it the run must stop. The others are for people, and
    their absence must not cover the reason of a failure.
    """
    read = {source.field for source in consumed if source.task == step}
    own = [_output(field.name, has_default=field.name not in read) for field in outputs(step)]
    return [*own, _output(RECAP, has_default=True)]


def _output(field: str, *, has_default: bool) -> Parameter:
    name = file_name(field)
    source = m.ValueFrom(path=f"{PLACES.outputs}/{name}", default="" if has_default else None)
    return Parameter(name=name, value_from=source)
