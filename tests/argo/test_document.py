"""The document: small, described, and strict."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from steps.document.schema import ModelService, json_schema, load, parse
from steps.errors import DocumentError
from tests.support.rendered import templates, workflow_spec
from tests.support.samples import SERVICES, service
from workflows.argo.bundle import schema_text

DOCUMENTS = sorted(SERVICES.glob("*.yaml"))
REFERENCE = (SERVICES / "qwen3-32b.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_a_committed_document_loads_and_fits_the_schema_for_editors(path: Path) -> None:
    load(path)
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(
        yaml.safe_load(path.read_text(encoding="utf-8"))
    )


def test_the_schema_for_editors_is_itself_valid_and_closed() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    wrong = yaml.safe_load(REFERENCE) | {"modell": {}}
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(wrong)


def test_the_reference_deployment_fits_on_one_screen() -> None:
    assert len(REFERENCE.splitlines()) <= 50
    assert all(len(line) <= 120 for line in REFERENCE.splitlines() if not line.startswith("#"))


def _properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, section in {"ModelService": schema, **schema["$defs"]}.items():
        for field, content in section.get("properties", {}).items():
            yield f"{name}.{field}", content


def test_every_field_says_what_it_is_for() -> None:
    fields = dict(_properties(json_schema()))
    assert len(fields) > 60
    assert [name for name, content in fields.items() if not content.get("description", "").endswith(".")] == []


WRONG = [
    # override, path of the field, found, allowed
    ("metadata.name=Qwen", "metadata.name", "'Qwen'", "lower-case letter"),
    (f"metadata.name={'a' * 31}", "metadata.name", "'aaaa", "at most 30 characters"),
    ("metadata.name=32b-qwen", "metadata.name", "'32b-qwen'", "a lower-case letter, then"),
    ("endpoint.service=8080-tcp", "endpoint.service", "'8080-tcp'", "a lower-case letter, then"),
    ("metadata.labels={slipway/release: mine}", "metadata.labels", "a section", "without the prefix slipway/"),
    ("model.id=Qwen3-32B", "model.id", "'Qwen3-32B'", "owner/name"),
    ("model.id=../../etc", "model.id", "'../../etc'", "owner/name"),
    ("model.revision={a: b}", "model.revision", "a section", "a text"),
    ("model.digest=sha256:abc", "model.digest", "'sha256:abc'", "sha256: and 64 hexadecimal digits"),
    ("model.endpoint=modelscope.cn", "model.endpoint", "'modelscope.cn'", "https://host:port"),
    ("model.tokn={}", "model.tokn", "a section", "id, revision, digest, endpoint, token"),
    ("store.bucket=My_Bucket", "store.bucket", "'My_Bucket'", "3 to 63 lower-case letters"),
    ("store.prefix=/models", "store.prefix", "'/models'", "without a slash at its ends"),
    ("store.credentials.kind=password", "store.credentials.kind", "'password'", "secret, role"),
    ("store.credentials={secret: a, role: a}", "store.credentials", "a section", "either `secret` or `role`"),
    ("store.credentials={}", "store.credentials", "a section", "either `secret` or `role`"),
    ("transfer.mode=Staged", "transfer.mode", "'Staged'", "'staged' or 'streamed'"),
    ("transfer.workers=0", "transfer.workers", "0", "at least 1"),
    ("transfer.workers='8'", "transfer.workers", "'8'", "a whole number"),
    ("transfer.scratch.size=a lot", "transfer.scratch.size", "'a lot'", "a size such as 48Gi or 512G"),
    ("volume.client=s3fs", "volume.client", "'s3fs'", "'ossfs2' or 'ossfs'"),
    ("serving.ports.http=70000", "serving.ports.http", "70000", "at most 65535"),
    ("serving.ports.http=eight", "serving.ports.http", "'eight'", "a whole number"),
    ("serving.tensorParallel=2.5", "serving.tensorParallel", "2.5", "a whole number"),
    ("serving.prefill=2", "serving.prefill", "2", "a section"),
    ("serving.prefill={replicas: 0}", "serving.prefill.replicas", "0", "at least 1"),
    ("serving.args=--foo", "serving.args", "'--foo'", "a list"),
    ("serving.args=[1]", "serving.args.0", "1", "a text"),
    ("serving.env={A: 1}", "serving.env.A", "1", "a text"),
    ("serving.modelPath=models/qwen", "serving.modelPath", "'models/qwen'", "an absolute path"),
    ("serving.fabric=infiniband", "serving.fabric", "'infiniband'", "'erdma' or 'tcp'"),
    ("serving.image=''", "serving.image", "''", "an image reference"),
    (
        "serving.image=sglang:latest",
        "serving.version",
        "nothing",
        "the tag of serving.image (sglang:latest) names none",
    ),
    (f"serving.image=a.b:5000/sglang@sha256:{'1' * 64}", "serving.version", "nothing", "such as 0.5.23"),
    ("serving.image=sglang:2026.11.23", "serving.version", "nothing", "names none"),
    ("serving.image=sglang:0.5.24-torch-2.9.0", "serving.version", "nothing", "names 0.5.24 and 2.9.0"),
    ("serving.version=0.5.24", "serving.version", "'0.5.24'", "0.5.23, which the tag of serving.image"),
    ("serving.version=latest", "serving.version", "'latest'", "0.5.23, which the tag of serving.image"),
    ("rollout.strategy=RollingUpdate", "rollout.strategy", "'RollingUpdate'", "'BlueGreen' or 'Recreate'"),
    ("rollout.deadlineMinutes=0", "rollout.deadlineMinutes", "0", "at least 1"),
    ("workflow.labels={'a b': c}", "workflow.labels.a b", "'a b'", "the key of a label"),
    ("kind=Service", "kind", "'Service'", "'ModelService'"),
    ("apiVersion=slipway/v2", "apiVersion", "'slipway/v2'", "'slipway/v1alpha1'"),
    ("serving.replicas=3", "serving.replicas", "3", "prefill"),
]


@pytest.mark.parametrize(("override", "path", "found", "allowed"), WRONG)
def test_a_validation_error_names_the_field_the_value_found_and_the_values_allowed(
    override: str, path: str, found: str, allowed: str
) -> None:
    with pytest.raises(DocumentError) as refused:
        service(override)
    (line,) = (line for line in str(refused.value).splitlines() if line.strip().startswith(f"{path}"))
    assert f"found {found}" in line
    assert allowed in line


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("lmsysorg/sglang:v0.5.23-cu126", "0.5.23"),
        ("sglang-erdma:0.5.24", "0.5.24"),
        ("host:5000/x:0.5.23", "0.5.23"),
        (f"registry.example.com/llm/sglang:0.5.24@sha256:{'1' * 64}", "0.5.24"),
        ("lmsysorg/sglang:v0.5.15.post1-cu129", "0.5.15.post1"),
        ("lmsysorg/sglang:v0.5.24rc0-cu130", "0.5.24rc0"),
        ("sglang:0.5.24-rc1", "0.5.24rc1"),
        ("sglang:cuda12.8.1-v0.5.24", "0.5.24"),
    ],
)
def test_the_version_of_the_engine_is_read_from_the_tag(image: str, version: str) -> None:
    assert service(f"serving.image={image}").serving.version == version
    assert service(f"serving.image={image}", f"serving.version={version}").serving.version == version


def test_a_version_is_said_where_the_tag_does_not_say_it() -> None:
    for image in ("sglang:latest", f"host:5000/sglang@sha256:{'1' * 64}", "nvcr.io/nvidia/sglang:25.10-py3"):
        assert service(f"serving.image={image}", "serving.version=0.5.24").serving.version == "0.5.24"
    two = service("serving.image=sglang:0.5.24-torch-2.9.0", "serving.version=0.5.24")
    assert two.serving.version == "0.5.24"


def test_an_image_that_is_wrong_is_one_validation_error() -> None:
    with pytest.raises(DocumentError, match="has 1 validation error"):
        service("serving.image=[1]")


def test_all_validation_errors_are_reported_at_once() -> None:
    with pytest.raises(DocumentError, match="has 3 validation errors"):
        service("serving.ports.http=0", "transfer.mode=x", "proof.prmpt=hello")


NOT_A_DOCUMENT = [
    ("", "holds nothing, expected one mapping"),
    ("- a\n- b\n", "holds a list"),
    ("a: [\n", "is not YAML"),
    ("a: 1\na: 2\n", "the key 'a' is there twice"),
    (REFERENCE + "serving: {image: a}\n", "the key 'serving' is there twice"),
    ("? [a]\n: 1\n", "is not YAML"),
    ("--- {}\n--- {}\n", "is not YAML"),
    ("a: !!python/object/apply:os.system [id]\n", "is not YAML"),
]


@pytest.mark.parametrize(("text", "message"), NOT_A_DOCUMENT)
def test_what_is_no_document_at_all_is_refused_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        parse(text, "service.yaml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"cannot read the document .*absent\.yaml"):
        load(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(DocumentError, match=r"cannot read the document .*latin\.yaml"):
        load(tmp_path / "latin.yaml")


@pytest.mark.parametrize("override", ["serving.ports.http", "=8000", "serving..port=1", "serving port=1"])
def test_an_override_that_is_none_says_how_one_looks(override: str) -> None:
    with pytest.raises(DocumentError, match=r"expected path\.to\.field=value"):
        service(override)


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(DocumentError, match="image is not a section"):
        service("serving.image.tag=1")


def test_an_override_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(DocumentError, match="is not a YAML value"):
        service("volume.options=a: b: c")


def test_an_override_makes_a_section_that_the_document_leaves_out() -> None:
    assert service("proof.maxTokens=8").proof.max_tokens == 8


def test_an_empty_override_changes_nothing_and_null_takes_back_to_the_default() -> None:
    assert service("serving.modelPath=") == service()
    assert service("serving.modelPath=null").serving.model_path is None
    assert service("endpoint.port=") == service()


@pytest.mark.parametrize("text", ["1.0", "0777", "12345678", "1e5", "2026-01-01", "yes"])
def test_a_revision_stays_the_text_that_was_typed(text: str) -> None:
    assert service(f"model.revision={text}").model.revision == text


def test_a_value_of_a_mapping_stays_the_text_that_was_typed() -> None:
    assert service("serving.env.NCCL_DEBUG=1").serving.env == {"NCCL_DEBUG": "1"}
    assert service("workflow.pod.nodeSelector.gpu=false").workflow.pod.node_selector == {"gpu": "false"}


def test_a_document_cannot_be_changed_once_it_is_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        service().metadata.name = "other"  # type: ignore[misc]


def test_what_is_left_out_is_derived() -> None:
    bare = parse(REFERENCE, "reference", ("serving.modelPath=null", "store.endpoint=null"))
    assert bare.model_path == "/models/Qwen3-32B"
    assert bare.served_model_name == "/models/Qwen3-32B"
    assert bare.store_endpoint == "https://oss-cn-hangzhou-internal.aliyuncs.com"
    assert isinstance(bare, ModelService)


def test_a_document_that_argo_forgot_is_told_from_one_that_is_wrong() -> None:
    (artifact,) = templates(workflow_spec())["check-platform"]["inputs"]["artifacts"]
    with pytest.raises(DocumentError, match=r"which Argo did not fill in.*Next: resubmit the run instead"):
        parse(artifact["raw"]["data"] + "\n", "/service/service.yaml")
