"""Argo's own schemas, made strict.

As published, the JSON schema accepts unknown keys, types IntOrString and Quantity as text only, and has no enums; the
full CRDs prune unknown keys without a word. https://github.com/argoproj/argo-workflows/tree/main/api/jsonschema
"""

import gzip
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import celpy
import jsonschema
from celpy.adapter import json_to_cel

from tests.support.samples import RECORDED

SCHEMAS = RECORDED / "schemas" / "argo"
TAGS = {"3.5": "v3.5.15", "3.6": "v3.6.19", "3.7": "v3.7.18", "4.0": "v4.0.10", "4.1": "v4.1.2"}
CRD_TAGS = {"3.5": "v3.5.15", "4.1": "v4.1.2"}

_ARGO = "io.argoproj.workflow.v1alpha1."
_QUANTITY = r"^[+-]?[0-9.]+([eE][-+]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?$"
_ENUMS = {  # constants of pkg/apis/workflow/v1alpha1
    ("RetryStrategy", "retryPolicy"): ("Always", "OnFailure", "OnError", "OnTransientError"),
    ("PodGC", "strategy"): ("OnPodCompletion", "OnPodSuccess", "OnWorkflowCompletion", "OnWorkflowSuccess"),
    ("VolumeClaimGC", "strategy"): ("OnWorkflowCompletion", "OnWorkflowSuccess"),
    ("CronWorkflowSpec", "concurrencyPolicy"): ("Allow", "Forbid", "Replace"),
}


def schema_errors(manifest: dict[str, Any], line: str) -> list[str]:
    """What the JSON schema of that line says about the object."""
    return _messages(_validator(line, manifest["kind"]), manifest)


def crd_errors(manifest: dict[str, Any], line: str) -> list[str]:
    """What the structure of the full CRD of that line says about the object."""
    return _messages(_crd_validator(line, manifest["kind"]), manifest)


def rule_errors(manifest: dict[str, Any], line: str) -> list[str]:
    """The messages of the CEL rules of the full CRD that the object breaks."""
    return list(_broken_rules(_crd_schema(line, manifest["kind"]), manifest, "", set()))


def rules_met(manifest: dict[str, Any], line: str) -> set[str]:
    """The CEL rules that have something to say about the object."""
    seen: set[str] = set()
    list(_broken_rules(_crd_schema(line, manifest["kind"]), manifest, "", seen))
    return seen


def _messages(validator: jsonschema.Draft202012Validator, manifest: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


@cache
def _load(name: str) -> Any:
    return json.loads(gzip.decompress((SCHEMAS / f"{name}.json.gz").read_bytes()))


@cache
def _validator(line: str, kind: str) -> jsonschema.Draft202012Validator:
    definitions = {name: _strict(name, content) for name, content in _load(TAGS[line])["definitions"].items()}
    return jsonschema.Draft202012Validator({"$ref": f"#/definitions/{_ARGO}{kind}", "definitions": definitions})


def _strict(name: str, content: dict[str, Any]) -> dict[str, Any]:
    short = name.rpartition(".")[2]
    if short == "IntOrString":
        return {"type": ["integer", "string"]}
    if short == "Quantity":
        return {"anyOf": [{"type": "number"}, {"type": "string", "pattern": _QUANTITY}]}
    if content.get("type") != "object" or "additionalProperties" in content or short in ("FieldsV1", "Plugin"):
        return content
    properties = {
        key: {**value, "enum": list(_ENUMS[short, key])} if (short, key) in _ENUMS else value
        for key, value in content.get("properties", {}).items()
    }
    return {**content, "properties": properties, "additionalProperties": False}


def _crd_schema(line: str, kind: str) -> dict[str, Any]:
    versions = _load(f"crds-{CRD_TAGS[line]}")[kind]["spec"]["versions"]
    return dict(versions[0]["schema"]["openAPIV3Schema"])


@cache
def _crd_validator(line: str, kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(_structural(_crd_schema(line, kind)))


def _structural(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema as a JSON schema that refuses what the API server would prune."""
    result = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if "properties" in schema:
        result["properties"] = {key: _structural(value) for key, value in schema["properties"].items()}
        result["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    elif isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(schema["additionalProperties"])
    if "items" in schema:
        result["items"] = _structural(schema["items"])
    return result


def _broken_rules(schema: dict[str, Any], value: Any, path: str, seen: set[str]) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        seen.add(rule["rule"])
        if not _holds(rule["rule"], value):
            yield f"{path or '(object)'}: {rule.get('message') or rule['rule']}"
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _broken_rules(schema["items"], item, f"{path}[{index}]", seen)
    if isinstance(value, dict):
        for key, item in value.items():
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if isinstance(below, dict):
                yield from _broken_rules(below, item, f"{path}.{key}", seen)


@cache
def _program(rule: str) -> Any:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def _holds(rule: str, value: Any) -> bool:
    return bool(_program(rule).evaluate({"self": json_to_cel(value)}))
