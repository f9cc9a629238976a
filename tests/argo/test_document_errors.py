"""A mistake is refused at the document: field, line and column, value found, values allowed, and a near name.

The sentences are in `validation_errors.txt`; `python -m tests.argo.test_document_errors` writes them.
"""

from pathlib import Path

import jsonschema
import pytest
import yaml

from steps.document.engine import ROUTER_ARGUMENTS, WORKER_ARGUMENTS
from steps.document.schema import EXAMPLE, json_schema, parse
from steps.document.tokens import is_token
from steps.errors import DocumentError
from steps.sglang.flags import router_args, worker_args
from tests.support.samples import service

SENTENCES = Path(__file__).with_name("validation_errors.txt")
DOCUMENT = """\
apiVersion: slipway/v1alpha1
kind: ModelService
metadata:
  name: qwen3-32b
model:
  id: Qwen/Qwen3-32B
store: {bucket: llm-models, region: cn-hangzhou}
serving:
  image: registry.example.com/llm/sglang-erdma:0.5.23
  fabric: erdma
workflow:
  image: registry.example.com/llm/slipway:0.1.0
"""
FABRIC, IMAGE, WORKFLOW = "  fabric: erdma\n", "sglang-erdma:0.5.23", "workflow:\n"
MISTAKES = {
    "a field that is spelled otherwise": (FABRIC, "  tensor_parallel: 2\n"),
    "a field of another section": (FABRIC, "  nodeSelector: {pool: gpu}\n"),
    "a required field that is missing": ("bucket: llm-models, ", ""),
    "a word that is spelled otherwise": (FABRIC, "  fabric: erdna\n"),
    "an engine that is not supported": (IMAGE, "sglang:v0.4.10.post2"),
    "an argument of Slipway": (FABRIC, '  args: [--log-level, info, --tp-size, "4"]\n'),
    "an hour that no day has": (WORKFLOW, f'{WORKFLOW}  schedule: "30 25 * * 6"\n'),
    "a time zone of the wrong continent": (WORKFLOW, f"{WORKFLOW}  timezone: China/Shanghai\n"),
    "a blank in an image": (f"llm/{IMAGE}", "acme registry/sglang:0.5.23"),
    "a token": (FABRIC, "  env: {HF_TOKEN: hf_abcdefghijklmnopqrstuvwx}\n"),
    "a size that Kubernetes does not know": ("workflow:\n", "transfer: {scratch: {size: 512GB}}\nworkflow:\n"),
    "a truth value of YAML 1.1": (FABRIC, "  env: {NCCL_IB_DISABLE: yes}\n"),
    "a toleration that Kubernetes refuses": (FABRIC, "  pod: {tolerations: [{operator: Exists, value: a}]}\n"),
    "two choices at once": ("cn-hangzhou}", "cn-hangzhou, credentials: {secret: a, role: b}}"),
}


def sentence(name: str) -> str:
    found, instead = MISTAKES[name]
    assert DOCUMENT.count(found) == 1
    with pytest.raises(DocumentError) as refused:
        parse(DOCUMENT.replace(found, instead), "service.yaml")
    return str(refused.value)


def all_sentences() -> str:
    return "\n".join(f"# {name}\n{sentence(name)}\n" for name in MISTAKES)


def test_the_sentences_are_as_they_were_read_over() -> None:
    assert all_sentences() == SENTENCES.read_text(encoding="utf-8")


def test_no_sentence_shows_a_token() -> None:
    assert not is_token(all_sentences())
    with pytest.raises(DocumentError) as refused:
        service("model.token=ms-01234567-89ab-cdef-0123-456789abcdef")
    assert "model.token" in str(refused.value)
    assert not is_token(str(refused.value))


CRONS = [
    ("17 3 * * *", True),
    ("*/5 0-6,22 1,15 jan-mar MON-fri", True),
    ("0 4 ? * 0", True),
    ("10/20 * * * *", True),
    ("@daily", True),
    ("@every 12h", True),
    ("0 0 29 2 *", True),
    ("0 0 31 2 *", False),  # no February has it
    ("30 25 * * 6", False),
    ("0 3 * * 7", False),  # robfig/cron ends the week with 6
    ("0 3 * *", False),
    ("0 0 3 * * *", False),  # seconds
    ("0 3 5-1 * *", False),
    ("0 */0 * * *", False),
    ("TZ=UTC 0 3 * * *", False),
    ("0 L * * *", False),
]


@pytest.mark.parametrize(("expression", "good"), CRONS)
def test_a_schedule_is_what_the_parser_of_argo_reads(expression: str, good: bool) -> None:
    if good:
        assert service(f'workflow.schedule="{expression}"').workflow.schedule == expression
    else:
        with pytest.raises(DocumentError, match=r"workflow\.schedule"):
            service(f'workflow.schedule="{expression}"')


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "UTC", "America/Argentina/Buenos_Aires"])
def test_a_time_zone_of_the_database_is_accepted(zone: str) -> None:
    assert service(f"workflow.timezone={zone}").workflow.timezone == zone


@pytest.mark.parametrize("zone", ["China/Shanghai", "asia/shanghai ", "../etc/passwd", "Asia", "GMT+25"])
def test_another_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(DocumentError, match=r"workflow\.timezone.*IANA"):
        service(f"workflow.timezone='{zone}'")


IMAGES = [
    ("registry.example.com:5000/llm/sglang_x-y:v0.5.23-cu129", True),
    (f"sglang:0.5.23@sha256:{'1' * 64}", True),
    ("localhost/sglang:0.5.23", True),
    ("Registry.Example.com/llm/sglang:0.5.23", True),  # a host is of any case
    ("lmsysorg/SGLang:0.5.23", False),
    ("acme registry/sglang:0.5.23", False),
    ("https://registry.example.com/sglang:0.5.23", False),
    ("sglang:0.5.23:latest", False),
    ("sglang:0.5.23@sha256:12", False),
    ("sglang:0.5.23\n", False),
]


@pytest.mark.parametrize(("image", "good"), IMAGES)
def test_an_image_is_a_reference_of_the_registry(image: str, good: bool) -> None:
    if good:
        assert service(f"serving.image={image}").serving.image == image
    else:
        with pytest.raises(DocumentError, match=r"serving\.image.*an image reference"):
            service(f"serving.image={image!r}".replace("'", '"'))


@pytest.mark.parametrize(
    "argument",
    ["--tp=4", "--tensor-parallel-size", "--model", "--port=1", "--disaggregation-m=decode", "--context-length"],
)
@pytest.mark.parametrize("where", ["serving.args", "serving.decode.args"])
def test_no_argument_of_the_document_replaces_one_of_slipway(where: str, argument: str) -> None:
    with pytest.raises(DocumentError, match=rf"{where}.*which Slipway sets itself"):
        service(f"{where}=['{argument}']")


def test_every_argument_that_slipway_sets_is_its_own() -> None:
    for fabric in ("erdma", "tcp"):
        wanted = service(f"serving.fabric={fabric}", "serving.contextLength=8192")
        for role in ("prefill", "decode"):
            assert {one for one in worker_args(wanted, role) if one.startswith("--")} <= WORKER_ARGUMENTS.keys()  # type: ignore[arg-type]
        assert {
            one for one in router_args(wanted.serving, ["p"], ["d"]) if one.startswith("--")
        } <= ROUTER_ARGUMENTS.keys()


@pytest.mark.parametrize("env", ["TOKENIZERS_PARALLELISM: 'false'", "SGLANG_TOKEN: ''", "API_KEY_FILE: /run/key"])
def test_a_variable_that_holds_no_secret_is_accepted(env: str) -> None:
    service(f"serving.env={{{env}}}")


@pytest.mark.parametrize(
    "env",
    [
        "OSS_ACCESS_KEY_ID: LTAI5tAbCdEfGhIjKlMn",
        "HF_TOKEN: abc",
        "X: 'https://me:word@host/'",
        "X: sk-0123456789abcdefgh",
    ],
)
def test_a_variable_that_holds_one_is_refused(env: str) -> None:
    with pytest.raises(DocumentError, match=r"serving\.env.*found a value that is not shown"):
        service(f"serving.env={{{env}}}")


SIZES = [("512GB", "512Gi or 512G"), ("512 gb", "512Gi or 512G"), ("512GiB", "512Gi"), ("200", "200Gi or 200G")]


@pytest.mark.parametrize(("size", "instead"), SIZES)
def test_a_size_of_another_spelling_is_corrected(size: str, instead: str) -> None:
    with pytest.raises(DocumentError, match=f"write {instead}$"):
        service(f"transfer.scratch.size='{size}'")


def valid(text: str) -> bool:
    return jsonschema.Draft202012Validator(json_schema()).is_valid(yaml.safe_load(text))


def test_an_editor_sees_the_rules_between_fields() -> None:
    assert json_schema()["$id"].startswith("urn:slipway:")
    assert valid(DOCUMENT)
    assert valid(yaml.safe_dump(EXAMPLE))
    for wrong in (
        "transfer: {shards: 2}\n",
        "transfer: {shards: 2, mode: staged}\n",
        "transfer: {partSize: 16MiB}\n",
        "volume: {capacity: 512GB}\n",
        "endpoint: {port: 0}\n",
    ):
        assert not valid(DOCUMENT + wrong)
    assert valid(f"{DOCUMENT}transfer: {{shards: 2, mode: streamed}}\n")
    both = DOCUMENT.replace("cn-hangzhou}", "cn-hangzhou, credentials: {secret: a, role: b}}")
    assert not valid(both)
    assert valid(both.replace(", role: b", ""))


def test_a_role_overrides_image_args_env_resources_and_pod_alone() -> None:
    serving = service(
        "serving.env={A: a, B: b}",
        "serving.args=[--log-level=info]",
        "serving.pod={nodeSelector: {pool: gpu}, priorityClassName: serving}",
        "serving.decode={env: {B: c}, args: [--max-running-requests, '64'], resources: {memory: 96Gi}, "
        "image: other:0.5.23, pod: {nodeSelector: {pool: decode}}}",
    ).serving
    decode, prefill = serving.worker("decode"), serving.worker("prefill")
    assert (prefill.image, decode.image) == (serving.image, "other:0.5.23")
    assert decode.args == ("--log-level=info", "--max-running-requests", "64")
    assert decode.env == {"A": "a", "B": "c"}
    assert (decode.resources.memory, decode.resources.cpu) == ("96Gi", "12")
    assert decode.pod.spec == {"nodeSelector": {"pool": "decode"}, "priorityClassName": "serving"}
    assert prefill.pod.spec == {"nodeSelector": {"pool": "gpu"}, "priorityClassName": "serving"}
    with pytest.raises(DocumentError, match=r"serving\.decode.*two versions do not exchange KV caches"):
        service("serving.decode.image=other:0.5.22")
    with pytest.raises(DocumentError, match=r"serving\.decode\.tensorParallel.*there is no such field"):
        service("serving.decode.tensorParallel=4")


@pytest.mark.parametrize(
    "field", ["hostNetwork: true", "volumes: []", "serviceAccountName: admin", "securityContext: {}", "hostPID: true"]
)
def test_a_field_that_is_not_on_the_list_of_pods_is_refused(field: str) -> None:
    for where in ("serving.pod", "workflow.pod", "serving.prefill.pod"):
        with pytest.raises(DocumentError, match="there is no such field"):
            service(f"{where}={{{field}}}")


if __name__ == "__main__":
    SENTENCES.write_text(all_sentences(), encoding="utf-8")
