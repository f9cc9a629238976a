"""What a run on the cluster promises, read from the rendered YAML: Hera drops unknown keywords without a word."""

import dataclasses
import importlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel

from steps import kinds, resource_requests, wiring
from steps.adapters.notify.targets import Targets
from steps.catalogue import CATALOGUE
from steps.check_release import CURRENT, CheckRelease
from steps.command_line import parser
from steps.document.overrides import OVERRIDES
from steps.document.schema import ModelService
from steps.errors import Exit
from steps.policy_rules import account
from steps.release import Release
from steps.report.run import EXIT_TASKS
from steps.report_run import ReportRun
from steps.resolve_model import ResolveModel
from tests.support.expr_lang import evaluate
from tests.support.rendered import VARIANTS, VERSIONS, dag_tasks, exit_steps, objects, sample, templates, workflow_spec
from tests.support.samples import DIGEST, RECORDED, SERVICES
from workflows import pipeline
from workflows.argo.pods import PLACES, deadline_seconds
from workflows.argo.templates import RETRY_EXPRESSION
from workflows.argo.versions import argo_version, for_version
from workflows.runs.submission import Why, prepare

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: here}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: here, user: {}}]
"""
ROLE = {  # what the webhook of RRSA puts into a pod
    "ALIBABA_CLOUD_ROLE_ARN": "acs:ram::1:role/slipway",
    "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": "acs:ram::1:oidc-provider/ack",
    "ALIBABA_CLOUD_OIDC_TOKEN_FILE": "/var/run/secrets/token",
}

# Without them the run must stop: an empty digest would pin nothing, an empty state would be no reason to go on, an
# empty release would be none that was proved, and no word of overrides would undo them.
CONSUMED = {
    ("resolve-model", "model-digest"),
    ("resolve-model", "record-counter"),
    ("resolve-model", "overrides"),
    ("check-release", "state"),
    ("smoke-test", "proved-release"),
}
EVERY = [(argo, variant) for argo in VERSIONS for variant in VARIANTS]


def every_template() -> Iterator[tuple[str, dict[str, Any]]]:
    for variant in VARIANTS:
        yield from templates(workflow_spec(variant=variant)).items()


@pytest.mark.parametrize(("argo", "variant"), EVERY)
def test_a_run_holds_the_one_lock_of_its_service(argo: str, variant: str) -> None:
    name = f"slipway-default-{sample(variant).name}"
    wanted = {"mutex": {"name": name}} if argo == "3.5" else {"mutexes": [{"name": name}]}
    assert workflow_spec(argo, variant)["synchronization"] == wanted


@pytest.mark.parametrize(("argo", "variant"), EVERY)
def test_a_run_holds_its_lock_itself_where_a_controller_that_starts_again_looks_nowhere_else(
    argo: str, variant: str
) -> None:
    """Argo 3.5 forgets a lock that only the stored template names; newer lines refuse one beside a reference."""
    rendered = objects(argo, variant)
    template = {**rendered["WorkflowTemplate"]}
    started = prepare(template, [], Why("r-1")).manifest["spec"]
    scheduled = rendered.get("CronWorkflow", {"spec": {"workflowSpec": started}})["spec"]["workflowSpec"]
    for spec in (started, scheduled):
        assert spec.get("synchronization", {}) == (template["spec"]["synchronization"] if argo == "3.5" else {})


@pytest.mark.parametrize("argo", VERSIONS)
def test_the_schedule_never_overlaps_and_is_in_the_time_zone_of_the_document(argo: str) -> None:
    spec = objects(argo)["CronWorkflow"]["spec"]
    schedule = {"schedule": "0 3 * * *"} if argo == "3.5" else {"schedules": ["0 3 * * *"]}
    wanted = {"concurrencyPolicy": "Forbid", "timezone": "Asia/Shanghai", "startingDeadlineSeconds": 3600, **schedule}
    assert wanted.items() <= spec.items()


def test_a_schedule_sets_only_what_strict_template_referencing_allows() -> None:
    for argo in VERSIONS:
        lock = {"synchronization"} if argo == "3.5" else set()  # 3.5 compares no fields, newer lines would refuse it
        spec = objects(argo)["CronWorkflow"]["spec"]["workflowSpec"]
        assert set(spec) == {"arguments", "workflowTemplateRef"} | lock


def test_every_way_in_passes_every_override_so_that_a_retry_forgets_none() -> None:
    found = objects()
    overrides = [*(override.parameter for override in OVERRIDES), "reason"]
    for started in (found["CronWorkflow"]["spec"]["workflowSpec"], found["WorkflowEventBinding"]["spec"]["submit"]):
        assert [parameter["name"] for parameter in started["arguments"]["parameters"]] == overrides


@pytest.mark.parametrize("argo", VERSIONS)
def test_shards_are_tasks_beside_each_other_and_the_manifest_is_for_the_one_behind_them(argo: str) -> None:
    tasks = {task["name"]: task for task in dag_tasks(workflow_spec(argo, "in shards"))}
    shards, publish = tasks["mirror-model"], tasks["publish-model"]
    assert json.loads(shards["withParam"]) == ["0", "1", "2"]
    assert {"name": "shard", "value": "{{item}}"} in shards["arguments"]["parameters"]
    assert {"name": "shard", "value": "all"} in publish["arguments"]["parameters"]
    assert (publish["template"], publish["depends"]) == ("mirror-model", "mirror-model")
    assert tasks["create-volume"]["depends"] == "publish-model"
    # A retry of its own: one shard is tried again alone.
    assert templates(workflow_spec(argo, "in shards"))["mirror-model"]["retryStrategy"]["limit"] == 5


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_dag_is_the_line_of_the_document(variant: str) -> None:
    tasks = pipeline.tasks(sample(variant))
    found = [
        (task["name"], task["template"], task.get("depends", "")) for task in dag_tasks(workflow_spec(variant=variant))
    ]
    wanted = [(task.name, task.step, " && ".join(map(_after(task), task.after))) for task in tasks]
    assert found == [*wanted, ("nothing-changed", "nothing-changed", "check-release")]


def _after(task: pipeline.Task) -> Callable[[str], str]:
    """A task that reads an output may not outlive the task that leaves it."""
    read = {source.task for source in task.options.values()}
    return lambda name: f"{name}.Succeeded" if name in read else name


@pytest.mark.parametrize(("argo", "variant"), EVERY)
def test_all_but_the_question_itself_and_the_end_is_left_out_if_nothing_changed(argo: str, variant: str) -> None:
    spec = workflow_spec(argo, variant)
    state = "{{tasks.check-release.outputs.parameters.state}}"
    when = {task["name"]: task.get("when") for task in dag_tasks(spec)}
    assert [when.pop(name) for name in ("resolve-model", "check-release")] == [None, None]
    assert when.pop("nothing-changed") == f"{state} == {CURRENT}"
    assert set(when.values()) == {f"{state} != {CURRENT}"}


@pytest.mark.parametrize("argo", VERSIONS)
def test_the_sign_that_nothing_changed_costs_no_pod_and_no_wait(argo: str) -> None:
    (sign,) = (template for template in workflow_spec(argo)["templates"] if template["name"] == "nothing-changed")
    assert sign["suspend"] == {"duration": "0"}
    assert set(sign) == {"name", "suspend", "metadata"}
    assert sign["metadata"]["annotations"]["workflows.argoproj.io/description"].startswith("Nothing changed: ")


def test_a_pod_runs_a_step_that_the_command_line_knows() -> None:
    for name, template in every_template():
        container = template["container"]
        assert container["command"] == ["python", "-m", "steps", template["name"]]
        assert template["name"] in wiring.STEPS
        importlib.import_module(f"steps.{CATALOGUE[template['name']].module}")
        filled = {"{{inputs.parameters.shard}}": "1", "{{inputs.parameters.model-digest}}": DIGEST}
        filled |= {"{{inputs.parameters.record-counter}}": "1", "{{inputs.parameters.overrides}}": "document"}
        filled |= {f"{{{{workflow.parameters.{override.parameter}}}}}": "" for override in OVERRIDES}
        words = [_with(filled, word) for word in container["args"]]
        arguments = [template["name"], *words]
        options = parser(arguments).parse_args(arguments)
        assert str(options.document) == template["inputs"]["artifacts"][0]["path"], name
        assert str(options.outputs) == "/tmp/outputs"
        names = [] if template["name"] in EXIT_TASKS else [override.parameter for override in OVERRIDES]
        assert ([item.partition("=")[0] for item in options.parameter], options.set) == (names, [])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pod_is_called_as_a_process_on_a_laptop_is(variant: str) -> None:
    pods = templates(workflow_spec(variant=variant))
    filled = {
        "model-digest": DIGEST,
        "proved-release": "0a1b2c3d",
        "record-counter": "7",
        "overrides": "image=registry.example.com/a:1@sha256:0~demo-c1",
        "shard": "all",
        "run-name": "run",
        "run-status": "Failed",
        "run-uid": "0b1c",
    }
    overrides = [f"{override.parameter}=" for override in OVERRIDES]
    for task in (*pipeline.tasks(sample(variant)), *pipeline.EXIT):
        laptop = pipeline.arguments(task, PLACES, filled, parameters=overrides)
        pod = [re.sub(r"\{\{workflow\.parameters\.[a-z-]+\}\}", "", argument) for argument in _args(pods, task.step)]
        for name, value in filled.items():
            pod = [re.sub(rf"^--{name}=\{{\{{.+\}}\}}$", lambda _: f"--{name}={value}", argument) for argument in pod]  # noqa: B023  # used at once
        assert (tuple(pods[task.step]["container"]["command"]), tuple(pod)) == (pipeline.command(task), laptop)


def _with(values: dict[str, str], word: str) -> str:
    for tag, value in values.items():
        word = word.replace(tag, value)
    return word


def _args(pods: dict[str, dict[str, Any]], name: str) -> list[str]:
    found: list[str] = pods[name]["container"]["args"]
    return found


def test_a_template_with_its_document_fits_the_environment_of_argos_executor() -> None:
    # Argo 3.5 hands it over in one variable, and Linux takes 128 KiB. https://github.com/argoproj/argo-workflows/issues/7586
    document = len((SERVICES / "qwen3-32b.yaml").read_bytes())
    assert all(len(json.dumps(template)) + document < 16 * 1024 for _, template in every_template())


def test_two_tasks_of_one_step_are_called_alike() -> None:
    places = pipeline.Places("service.yaml", "outputs", "scratch")
    for variant in VARIANTS:
        calls: dict[str, tuple[str, ...]] = {}
        for task in pipeline.tasks(sample(variant)):
            values = dict.fromkeys((*task.options, pipeline.SHARD, *task.run_facts), "value")
            assert calls.setdefault(task.step, pipeline.arguments(task, places, values)) == pipeline.arguments(
                task, places, values
            )


def test_outputs_are_the_fields_that_the_step_writes_and_its_recap() -> None:
    for name, template in every_template():
        module = importlib.import_module(f"steps.{CATALOGUE[template['name']].module}")
        wanted = [*(field.replace("_", "-") for field in module.Outputs.__dataclass_fields__), "recap"]
        parameters = template["outputs"]["parameters"]
        assert [parameter["name"] for parameter in parameters] == wanted, name
        assert [parameter["valueFrom"]["path"] for parameter in parameters] == [
            f"/tmp/outputs/{field}" for field in wanted
        ]


def test_a_missing_digest_stops_the_run_and_a_missing_fact_for_people_does_not() -> None:
    for name, template in templates(workflow_spec()).items():
        for parameter in template["outputs"]["parameters"]:
            consumed = (name, parameter["name"]) in CONSUMED
            assert ("default" not in parameter["valueFrom"]) == consumed, (name, parameter["name"])


def every_template_of_the_line() -> Iterator[tuple[str, dict[str, Any]]]:
    at_exit = {task.step for task in pipeline.EXIT}
    yield from ((name, template) for name, template in every_template() if name not in at_exit)


def test_only_no_answer_and_a_lost_pod_are_tried_again() -> None:
    for name, template in every_template_of_the_line():
        strategy = template["retryStrategy"]
        assert strategy["retryPolicy"] == "Always", name
        assert strategy["expression"] == RETRY_EXPRESSION
        assert 2 <= strategy["limit"] <= 5
        assert set(strategy["backoff"]) == {"duration", "factor"}  # maxDuration would end a transfer that works


def test_a_final_failure_is_told_soon_and_a_transfer_bears_half_an_hour_of_silence() -> None:
    """Argo 3.5.15 and 4.1.2 were seen to wait out the back-off before they look whether there is another attempt."""
    for name, template in every_template_of_the_line():
        strategy = template["retryStrategy"]
        duration, factor = strategy["backoff"]["duration"], strategy["backoff"]["factor"]
        first = int(duration.removesuffix("s"))
        assert first <= 5, name
        if CATALOGUE[name].resources is resource_requests.transfer:
            # Beside the waits, each attempt asks for some time itself before it gives up.
            assert sum(first * factor**attempt for attempt in range(strategy["limit"])) >= 28 * 60, name


def _tried_again(status: str, code: str, message: str = "") -> bool:
    return bool(evaluate(RETRY_EXPRESSION, {"lastRetry": {"status": status, "exitCode": code, "message": message}}))


def test_the_exit_codes_of_the_steps_decide_what_is_tried_again() -> None:
    again = [code for code in Exit if _tried_again("Failed", str(int(code)))]
    assert again == [Exit.NO_ANSWER]


# What became of a pod: phase, exit code and message of its node in Argo, as docs/how-to/retry.md lists them.
LOST = {
    "evicted, kubelet up to 1.21": ("Failed", "-1", "The node was low on resource: memory. "),
    "evicted, kubelet from 1.22 on": ("Failed", "137", "The node was low on resource: ephemeral-storage. Threshold …"),
    "evicted while it ended by itself": ("Failed", "143", "The node was low on resource: memory. Container main was …"),
    "preempted by the kubelet": ("Failed", "137", "Preempted in order to admit critical pod"),
    "shutdown of the node": ("Failed", "137", "Pod was terminated in response to imminent node shutdown."),
    "refused by the node": ("Failed", "-1", "Pod was rejected: Node didn't have enough resource: cpu"),
    "deleted": ("Error", "-1", "pod deleted"),
    "ended by SIGTERM": ("Failed", "75", "Error (exit code 75): interrupted by SIGTERM"),
    "ended by SIGTERM, Argo 4": ("Failed", "75", "main: Error (exit code 75): interrupted by SIGTERM"),
}
KEPT = {
    "too much memory": ("Failed", "137", "OOMKilled (exit code 137)"),
    "too much memory, Argo 4": ("Failed", "137", "main: OOMKilled (exit code 137)"),
    "SIGKILL, or a process of it that needed too much memory": ("Failed", "137", "Error (exit code 137)"),
    "past its deadline": ("Failed", "137", "Pod was active on the node longer than the specified deadline"),
    "a full volume of its own": ("Failed", "137", 'Usage of EmptyDir volume "tmp" exceeds the limit "1Gi". '),
    "a fault that quotes an eviction": ("Failed", "11", "Error (exit code 11): The node was low on resource: memory"),
}


@pytest.mark.parametrize("what", [*LOST, *KEPT])
def test_a_pod_that_its_node_gave_up_is_tried_again_and_one_that_needs_too_much_is_not(what: str) -> None:
    assert _tried_again(*(LOST | KEPT)[what]) == (what in LOST)


LOST_PODS = json.loads((RECORDED / "argo" / "lost-pods.json").read_text(encoding="utf-8"))["pods"]


@pytest.mark.parametrize("pod", LOST_PODS, ids=lambda pod: pod["what"])
def test_of_the_ends_that_a_real_kubelet_wrote_only_the_one_that_its_node_caused_is_tried_again(pod: Any) -> None:
    node = pod["node"]
    again = _tried_again(node["phase"], node["exitCode"], node["message"])
    assert again == (pod["what"] == "preempted by the kubelet")


def test_the_exit_codes_of_argos_executor_are_not_used() -> None:
    assert not {64, 65} & {int(code) for code in Exit}


def test_the_whole_workflow_is_never_tried_again() -> None:
    for argo, variant in EVERY:
        spec = workflow_spec(argo, variant)
        assert "retryStrategy" not in spec
        assert "templateDefaults" not in spec
        assert not any("retryStrategy" in template for template in spec["templates"] if "dag" in template)


def _own_deadline(step: str, of: ModelService) -> float:
    """Seconds after which the step itself gives up; its ports are not asked for that."""
    kind = getattr(importlib.import_module(f"steps.{CATALOGUE[step].module}"), step.title().replace("-", ""))
    needed = [field for field in dataclasses.fields(kind) if field.init and field.default is dataclasses.MISSING]
    needed = [field for field in needed if field.default_factory is dataclasses.MISSING]
    first = Release(of, DIGEST) if needed[0].type in (Release, "Release") else of
    return float(kind(first, *(None for _ in needed[1:])).deadline)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_gives_up_by_itself_before_its_pod_is_ended(variant: str) -> None:
    for name, template in templates(workflow_spec(variant=variant)).items():
        assert template["activeDeadlineSeconds"] >= _own_deadline(name, sample(variant)) + 300, name


def test_a_run_may_use_the_time_of_each_of_its_tasks_twice() -> None:
    of = sample()
    spec = workflow_spec()
    assert spec["activeDeadlineSeconds"] == 2 * sum(deadline_seconds(task.step, of) for task in pipeline.tasks(of))


@pytest.mark.parametrize("argo", VERSIONS)
def test_no_claim_is_made_before_the_transfer_needs_one_and_only_a_staged_one_does(argo: str) -> None:
    """Argo makes those of volumeClaimTemplates first, and neither stops nor terminates a run that waits for one."""
    for variant in VARIANTS:
        assert not {"volumeClaimTemplates", "volumeClaimGC", "volumes"} & set(workflow_spec(argo, variant))
    staged = workflow_spec(argo, variant="all options")
    mounting = [name for name, template in templates(staged).items() if "/scratch" in _mounts(template)]
    assert mounting == ["download-model", "upload-model"]
    for name in mounting:
        claims = [volume for volume in templates(staged)[name]["volumes"] if volume["name"] == "scratch"]
        assert claims == [{"name": "scratch", "persistentVolumeClaim": {"claimName": "{{workflow.name}}-scratch"}}]
    tasks = {task["name"]: task for task in dag_tasks(staged)}
    assert tasks["create-scratch"]["depends"] == "preflight"
    assert tasks["create-scratch"]["when"] == tasks["preflight"]["when"]
    assert tasks["download-model"]["depends"].split(" && ")[0].startswith("create-scratch")
    streamed = workflow_spec(argo, variant="streamed")
    assert "create-scratch" not in templates(streamed)
    assert not any("/scratch" in _mounts(template) for template in templates(streamed).values())


def _mounts(template: dict[str, Any]) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in template["container"]["volumeMounts"]}


def test_a_pod_is_confined() -> None:
    for name, template in every_template():
        assert template["container"]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        }, name
        assert _mounts(template)["/tmp"] == "tmp"
        assert {"name": "tmp", "emptyDir": {}} in template["volumes"]
        assert template["serviceAccountName"] == account(template["name"])
        assert {"memory", "cpu"} <= set(template["container"]["resources"]["requests"])
        assert "memory" in template["container"]["resources"]["limits"]


@pytest.mark.parametrize("argo", VERSIONS)
def test_every_pod_is_an_ordinary_user_and_may_say_how_far_it_came(argo: str) -> None:
    spec = workflow_spec(argo)
    wanted = {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    assert wanted.items() <= spec["securityContext"].items()
    assert json.loads(spec["podSpecPatch"]) == {"terminationGracePeriodSeconds": 120}


def _secrets(variant: str) -> dict[str, dict[str, tuple[str, str]]]:
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for name, template in templates(workflow_spec(variant=variant)).items():
        for variable in template["container"].get("env", ()):
            key = variable["valueFrom"]["secretKeyRef"]
            found.setdefault(variable["name"], {})[name] = (key["name"], key["key"])
    return found


def test_a_secret_reaches_only_the_steps_that_need_it() -> None:
    store = ("check-release", "check-platform", "download-model", "upload-model", "create-volume")
    hub = ("resolve-model", "check-release", "check-platform", "download-model")
    assert _secrets("all options") == {
        "OSS_ACCESS_KEY_ID": dict.fromkeys(store, ("oss-credentials", "akId")),
        "OSS_ACCESS_KEY_SECRET": dict.fromkeys(store, ("oss-credentials", "akSecret")),
        "OSS_SESSION_TOKEN": dict.fromkeys(store, ("oss-credentials", "securityToken")),
        "MODELSCOPE_API_TOKEN": dict.fromkeys(hub, ("hub", "token")),
        "SLIPWAY_NOTIFICATION_0": {"report-run": ("chat", "url")},
    }
    assert _secrets("role credentials") == {}


class _Environment(dict[str, str]):
    """Remembers which variables were asked for."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("variant", ["all options", "reference", "role credentials"])
def test_a_step_gets_the_very_secrets_that_it_reads(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG, encoding="utf-8")
    secrets = {
        kinds.ACCESS_KEY_ID,
        kinds.ACCESS_KEY_SECRET,
        kinds.SESSION_TOKEN,
        kinds.HUB_TOKEN,
        kinds.NOTIFICATION.format(index=0),
    }
    values = {**dict.fromkeys(secrets, "http://127.0.0.1:9/dummy"), "KUBECONFIG": str(kubeconfig), **ROLE}
    for name, template in templates(workflow_spec(variant=variant)).items():
        environment = _Environment(values)
        monkeypatch.setattr(wiring, "ENVIRONMENT", environment)
        step = wiring.build(name, wiring.Invocation(sample(variant), model_digest=DIGEST))
        for part in step.parts if isinstance(step, CheckRelease) else ():
            part.build()
        if isinstance(step, ResolveModel):
            step.source(sample(variant))
        if isinstance(step, ReportRun) and step.notifier:
            targets = step.notifier()
            assert isinstance(targets, Targets)
            for target in targets.pending:
                target()
        given = {variable["name"] for variable in template["container"].get("env", ())}
        assert environment.read & secrets == given, name


def test_only_a_temporary_key_and_the_webhook_may_be_absent() -> None:
    """Without the Secret of the webhook the pod starts, and its step says so; it would else hold the run open."""
    for template in templates(workflow_spec(variant="all options")).values():
        for variable in template["container"].get("env", ()):
            optional = variable["valueFrom"]["secretKeyRef"].get("optional", False)
            assert optional == (variable["name"] in ("OSS_SESSION_TOKEN", "SLIPWAY_NOTIFICATION_0"))


@pytest.mark.parametrize(("argo", "variant"), EVERY)
def test_the_exit_handler_rolls_back_a_failed_run_then_tells_and_neither_fails_the_run(argo: str, variant: str) -> None:
    on = {"continueOn": {"failed": True, "error": True}}
    assert exit_steps(workflow_spec(argo, variant)) == [
        {"name": "roll-back", "template": "roll-back", "when": "{{workflow.status}} != Succeeded", **on},
        {"name": "report-run", "template": "report-run", **on},
    ]


@pytest.mark.parametrize(("argo", "variant"), EVERY)
def test_the_exit_handler_learns_only_name_and_status_of_the_run(argo: str, variant: str) -> None:
    spec = workflow_spec(argo, variant)
    for name in ("roll-back", "report-run"):
        arguments = templates(spec)[name]["container"]["args"]
        assert [word for word in arguments if word.startswith("--run-")] == [
            "--run-name={{workflow.name}}",
            "--run-status={{workflow.status}}",
        ]
    assert "workflow.failures" not in json.dumps(spec)


@pytest.mark.parametrize(("argo", "variant"), EVERY)
def test_no_task_of_the_exit_handler_waits_for_what_is_optional(argo: str, variant: str) -> None:
    """A Secret that is absent kept the pod of the way back from starting."""
    pods = templates(workflow_spec(argo, variant))
    assert "env" not in pods["roll-back"]["container"]
    for name in ("roll-back", "report-run"):
        assert "retryStrategy" not in pods[name]
        assert _mounts(pods[name]) == {"/tmp": "tmp"}
        assert pods[name]["volumes"] == [{"name": "tmp", "emptyDir": {}}]
        assert all(one["valueFrom"]["secretKeyRef"]["optional"] for one in pods[name]["container"].get("env", ()))
    asks_itself = {step for step, spec in CATALOGUE.items() if spec.no_answer_seconds}
    assert asks_itself == {task.step for task in pipeline.EXIT}


def test_labels_and_nodes_of_the_document_reach_the_pods_and_the_selector_of_the_service_does_not() -> None:
    spec = workflow_spec(variant="all options")
    assert spec["podMetadata"] == {
        "labels": {"team": "llm", "cost-center": "7"},
        "annotations": {"note": "nightly"},
    }
    assert spec["nodeSelector"] == {"pool": "cpu"}
    assert spec["tolerations"] == [{"key": "cpu", "operator": "Exists"}]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["podPriorityClassName"] == "steps"
    assert json.loads(spec["podSpecPatch"])["topologySpreadConstraints"][0]["topologyKey"] == "zone"
    preferred = spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert [one["weight"] for one in preferred] == [1, 100]
    assert spec["workflowMetadata"]["labels"]["slipway/service"] == "a" * 30
    for kind, found in objects(variant="all options").items():
        assert found["metadata"]["labels"]["team"] == "llm", kind
        assert found["metadata"]["annotations"]["owner"] == "someone"


def test_a_person_sees_what_each_parameter_is_and_where_there_is_a_choice() -> None:
    parameters = {found["name"]: found for found in workflow_spec()["arguments"]["parameters"]}
    overrides = ["model-revision", "image", "prefill-replicas", "strategy", "skip-unchanged"]
    assert list(parameters) == [*overrides, "reason", "service"]
    assert all(parameter["description"] for parameter in parameters.values())
    assert parameters["strategy"]["enum"] == ["", "BlueGreen", "Recreate", "document"]
    assert parameters["skip-unchanged"]["enum"] == ["", "true", "false"]
    assert [parameters[override.parameter]["value"] for override in OVERRIDES] == [""] * 5


def test_every_object_and_every_run_says_what_it_is() -> None:
    for found in objects().values():
        assert found["metadata"]["annotations"]["workflows.argoproj.io/description"]
    annotations = workflow_spec()["workflowMetadata"]["annotations"]
    assert annotations["workflows.argoproj.io/title"] == "qwen3-32b: {{=workflow.parameters.reason}}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "Qwen/Qwen3-32B in default"),
        ({"prefill-replicas": "3"}, "prefill-replicas 3, Qwen/Qwen3-32B in default"),
        (
            {"model-revision": "v2", "image": "registry.example.com/a:1", "skip-unchanged": "false"},
            "model-revision v2, another image, skip-unchanged false, Qwen/Qwen3-32B in default",
        ),
        ({"image": "document"}, "image document, Qwen/Qwen3-32B in default"),
        ({"model-revision": "{{=1+1}}"}, "model-revision {{=1+1}}, Qwen/Qwen3-32B in default"),
    ],
)
def test_the_description_of_a_run_names_what_is_not_as_in_the_document(given: dict[str, str], said: str) -> None:
    """Argo's expressions of this kind read the same in CEL. https://expr-lang.org/docs/language-definition"""
    empty = {override.parameter: "" for override in OVERRIDES}
    known = {"workflow": json_to_cel({"parameters": empty | given})}
    environment = celpy.Environment()
    text = workflow_spec()["workflowMetadata"]["annotations"]["workflows.argoproj.io/description"]

    def value(found: re.Match[str]) -> str:
        return str(environment.program(environment.compile(found[1])).evaluate(known))

    assert re.sub(r"\{\{=(.*?)\}\}", value, text) == said


def test_a_run_can_be_found_by_what_started_it() -> None:
    found = objects("3.5")
    assert found["CronWorkflow"]["spec"]["workflowMetadata"] == {"labels": {"slipway/trigger": "schedule"}}
    (reason,) = found["CronWorkflow"]["spec"]["workflowSpec"]["arguments"]["parameters"][-1:]
    assert reason == {"name": "reason", "value": "schedule"}
    assert "slipway/trigger" not in workflow_spec("3.5")["workflowMetadata"]["labels"]  # it would replace the others


def test_a_pod_says_what_its_step_does() -> None:
    for task in pipeline.tasks(sample()):
        annotations = templates(workflow_spec())[task.step]["metadata"]["annotations"]
        assert annotations["workflows.argoproj.io/description"] == next(
            first.description for first in pipeline.tasks(sample()) if first.step == task.step
        )


def test_every_step_has_its_own_account_and_its_row_in_the_table() -> None:
    assert set(CATALOGUE) == set(wiring.STEPS)
    names = [account(step) for step in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]{1,63}", name) for name in names)


def test_a_list_that_argo_3_5_cannot_hold_is_refused() -> None:
    two = {"kind": "CronWorkflow", "spec": {"schedules": ["0 3 * * *", "0 4 * * *"]}}
    with pytest.raises(Exception, match="holds one schedule, found 2"):
        for_version(two, argo_version("3.5"))
    assert for_version(two, argo_version("3.6")) == two


@pytest.mark.parametrize("version", ["3.4", "5.0", "four", ""])
def test_an_argo_that_nobody_has_tried_is_refused(version: str) -> None:
    with pytest.raises(Exception, match=r"allowed are 3\.5, 3\.6, 3\.7, 4\.0, 4\.1"):
        argo_version(version)


def test_the_version_may_be_written_as_argo_prints_it() -> None:
    assert argo_version("v3.5.13") is argo_version("3.5")
