"""What CI may ask for and what not: for the rules as CEL, and for a real API server that keeps them."""

from collections.abc import Mapping
from typing import Any

from tests.support.samples import SERVICES
from workflows.runs.submission import Why, prepare

Manifest = dict[str, Any]
DOCUMENT = (SERVICES / "qwen3-32b.yaml").read_text(encoding="utf-8")
MINE = [{"name": "mine", "container": {"image": "registry.example.com/mine", "command": ["sh"]}}]


def run_of_ci(template: Manifest, **spec: Any) -> Manifest:
    """What `slipway submit` sends, with more in its spec."""
    wanted = prepare(template, ["image=registry.example.com/llm/sglang:0.5.24"], Why("r-1", "ci"))
    return {**wanted.manifest, "spec": {**wanted.manifest["spec"], **spec}}


def given(name: str, value: Any) -> Manifest:
    return {"arguments": {"parameters": [{"name": name, "value": value}]}}


# What is added to a good run, and a part of the sentence that refuses it.
REFUSED: Mapping[str, tuple[Manifest, str]] = {
    "templates of its own": ({"templates": MINE, "entrypoint": "mine"}, "nothing else"),
    "another entrypoint": ({"entrypoint": "create-volume"}, "nothing else"),
    "an account": ({"serviceAccountName": "slipway-create-volume"}, "nothing else"),
    "an executor's account": ({"executor": {"serviceAccountName": "slipway-create-volume"}}, "nothing else"),
    "a patch of the pods": ({"podSpecPatch": '{"hostNetwork": true}'}, "nothing else"),
    "hooks": ({"hooks": {"exit": {"template": "mine"}}}, "nothing else"),
    "an exit handler": ({"onExit": "create-volume"}, "nothing else"),
    "volumes": ({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "nothing else"),
    "no lock": ({"synchronization": {}}, "no other lock"),
    "another lock": ({"synchronization": {"mutex": {"name": "another"}}}, "no other lock"),
    "one more lock": ({"synchronization": {"mutexes": [{"name": "slipway-default-qwen3-32b"}] * 2}}, "no other lock"),
    "a priority": ({"priority": 1000}, "nothing else"),
    "metadata of the pods": ({"podMetadata": {"labels": {"a": "b"}}}, "nothing else"),
    "garbage collection": ({"artifactGC": {"serviceAccountName": "slipway-create-volume"}}, "nothing else"),
    "another template": ({"workflowTemplateRef": {"name": "another"}}, "no other"),
    "a cluster template": ({"workflowTemplateRef": {"name": "qwen3-32b", "clusterScope": True}}, "no other"),
    "artifacts": ({"arguments": {"artifacts": [{"name": "service", "raw": {"data": "a"}}]}}, "no artifacts"),
    "an undeclared parameter": (given("undeclared", "a"), "CI may pass the parameters model-revision, image"),
    "a value from elsewhere": (
        {"arguments": {"parameters": [{"name": "image", "valueFrom": {"expression": "1"}}]}},
        "each with a value",
    ),
    "an expression": (given("image", "{{=sprig.env('A')}}"), "CI may set image to what matches"),
    "a tag in the reason": (given("reason", "{{workflow.name}}"), "CI may set reason to what matches"),
    "a wrong number": (given("prefill-replicas", "a"), "CI may set prefill-replicas to what matches"),
    "a document of its own": (
        given("service", DOCUMENT.replace("Qwen3-32B", "other")),
        "as the WorkflowTemplate qwen3-32b holds it, and no other document",
    ),
}


# What the controller would take for its own work, or for the spec that it has read from the template.
STATUSES: tuple[Manifest, ...] = (
    {"storedWorkflowTemplateSpec": {"entrypoint": "mine", "templates": MINE}},
    {"phase": "Running"},
    {"nodes": {"a": {"id": "a", "name": "a", "displayName": "a", "type": "Pod", "phase": "Succeeded"}}},
    {"persistentVolumeClaims": [{"name": "scratch", "hostPath": {"path": "/"}}]},
    {"synchronization": {}},
)
