"""The document: one `kind: ModelService` says what is wanted.

It holds decisions only. Whatever can be derived from them is derived in `steps.release`. Secrets appear by name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from steps.document.image_name import ImageName
from steps.document.validation_errors import explain, wants_text
from steps.errors import DocumentError
from steps.kinds import OWN_LABELS

API_VERSION = "slipway/v1"
UNFILLED = "{{workflow.parameters.service}}"  # what a pod finds in place of a document that Argo has forgotten
MAX_NAME = 30  # a pod label holds `<name>-<release 8>-prefill-<StatefulSet hash 10>`, at most 63 characters


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
# Services are named by it, and those must begin with a letter (RFC 1035).
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#rfc-1035-label-names
ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
Minutes = Annotated[int, Field(ge=1, le=7 * 24 * 60)]
Strings = Annotated[tuple[str, ...], BeforeValidator(lambda found: tuple(found) if isinstance(found, list) else found)]


def _not_ours(labels: dict[str, str]) -> dict[str, str]:
    ours = sorted(key for key in labels if key.startswith(OWN_LABELS))
    if ours:
        raise PydanticCustomError("reserved", "a label without the prefix slipway/, which decides what is selected")
    return labels


LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9./_-]*[A-Za-z0-9])?$", max_length=317)]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$", max_length=63)]
Labels = Annotated[dict[LabelKey, LabelValue], AfterValidator(_not_ours)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
        validate_default=True,
        defer_build=True,  # only the whole document is ever validated: building each section too would double the start
    )


class SecretKey(_Section):
    """One key of a Secret in the namespace of the workflow."""

    secret: Name = Field(description="Name of the Secret.")
    key: str = Field(description="Key inside the Secret.", min_length=1)


class Metadata(_Section):
    name: Annotated[ServiceName, StringConstraints(max_length=MAX_NAME)] = Field(
        description=f"Name of the service; every object's name begins with it. At most {MAX_NAME} characters."
    )
    namespace: Name = Field("default", description="Namespace in which the model is served.")
    labels: Labels = Field(
        default_factory=dict,
        description="Labels for every object of this service and for new pods; changing them restarts none.",
    )
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations for every object.")


class Model(_Section):
    id: str = Field(
        description="Model at the hub, `owner/name`.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$",
    )
    revision: str = Field(
        "master", description="Branch, tag or commit at the hub.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"
    )
    expected_digest: str | None = Field(
        None,
        description="Refuse anything whose model digest is another; `resolve-model` prints the digest.",
        pattern=r"^sha256:[0-9a-f]{64}$",
    )
    endpoint: str = Field(
        "https://modelscope.cn", description="Address of the ModelScope hub.", pattern=r"^https?://[^/\s]+$"
    )
    token: SecretKey | None = Field(None, description="Where the hub token of a private model is.")


class SecretCredentials(_Section):
    kind: Literal["secret"] = Field(description="An access key from a Secret.")
    secret: Name = Field(
        "oss-credentials",
        description="Secret with the keys `akId`, `akSecret` and, for a temporary key, `securityToken`.",
    )


class RoleCredentials(_Section):
    kind: Literal["rrsa"] = Field(description="A RAM role of the service account (RRSA); no Secret at all.")
    role: str = Field(description="Name of the RAM role.", min_length=1)


class Store(_Section):
    bucket: str = Field(description="OSS bucket.", pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$")
    region: str = Field(description="Region of the bucket, such as cn-hangzhou.", pattern=r"^[a-z0-9-]+$")
    endpoint: str | None = Field(
        None,
        description="Address of OSS; default is the region's internal endpoint over https.",
        pattern=r"^https?://[^/\s]+$",
    )
    prefix: str = Field(
        "models",
        description="Folder in the bucket that Slipway may write.",
        pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$",
    )
    credentials: Annotated[SecretCredentials | RoleCredentials, Field(discriminator="kind")] = Field(
        default_factory=lambda: SecretCredentials(kind="secret"), description="Who Slipway is at OSS."
    )


class Scratch(_Section):
    size: Quantity = Field("200Gi", description="Size of the scratch volume of a staged transfer.")
    storage_class: str | None = Field(None, description="StorageClass of the scratch volume; default is the cluster's.")


class Transfer(_Section):
    mode: Literal["staged", "streamed"] = Field(
        "staged",
        description="`staged` downloads to a scratch volume, then uploads; `streamed` does both at once, without disk.",
    )
    shards: int = Field(
        1,
        description="Pods that share one transfer, each with its own files; more than 1 only if streamed.",
        ge=1,
        le=16,
    )
    part_size_mib: int = Field(16, description="MiB that one request moves.", ge=1, le=1024)
    workers: int = Field(8, description="Requests at the same time, in each pod.", ge=1, le=64)
    scratch: Scratch = Field(default_factory=Scratch, description="Scratch volume of a staged transfer.")
    deadline_minutes: Minutes = Field(360, description="Give up a transfer after this time.")

    @field_validator("shards")
    @classmethod
    def _one_pod_has_the_scratch_volume(cls, shards: int, known: ValidationInfo) -> int:
        # A scratch volume is ReadWriteOnce: pods on other nodes could not mount it, and on one they share its disk.
        if shards > 1 and known.data.get("mode") == "staged":
            raise PydanticCustomError(
                "staged_shards", "1 with transfer.mode: staged, whose scratch volume one pod has; shards need streamed"
            )
        return shards


class Volume(_Section):
    name: Annotated[Name, StringConstraints(max_length=40)] = Field(
        "llm-model", description="First part of the names of PV and PVC; a hash of their content follows."
    )
    client: Literal["ossfs2", "ossfs"] = Field("ossfs2", description="FUSE client of the OSS CSI driver.")
    options: str | None = Field(None, description="Mount options; default are the ones proven for reading models.")
    capacity: Quantity | None = Field(None, description="Nominal size of PV and PVC; default fits the model.")
    deadline_minutes: Minutes = Field(10, description="Give up waiting for the claim after this time.")


class Resources(_Section):
    cpu: Quantity = Field("12", description="CPU of one worker.")
    memory: Quantity = Field("48Gi", description="Memory of one worker.")
    shared_memory: Quantity = Field("15Gi", description="Size of /dev/shm of one worker.")


class Role(_Section):
    replicas: int = Field(description="Number of workers of this role.", ge=1, le=64)
    args: Strings = Field((), description="More arguments for the engine, on this role only.")


class Router(_Section):
    image: str = Field("lmsysorg/sgl-model-gateway:v0.3.2", description="Image of the router.", min_length=1)
    policy: Literal["round_robin", "random", "cache_aware"] = Field(
        "round_robin", description="How the router chooses workers."
    )


def _without_default(schema: JsonDict) -> None:
    """What a validator derives from other fields has no default that an editor could show."""
    del schema["default"]


_NO_VERSION = "the SGLang version inside the image, such as 0.5.23: the tag of serving.image ({image}) names {found}"
_OTHER_VERSION = (
    "{found}, which the tag of serving.image ({image}) names; leave the field out, or, if the tag is wrong, name the "
    "image by its digest alone"
)


class Serving(_Section):
    image: str = Field(description="Engine image of prefill and decode; best by tag and digest.", min_length=1)
    version: str = Field(
        "",
        description="SGLang version inside the image; default is the one in the tag. Required if the tag has none.",
        pattern=r"^\d+\.\d+\.\d+(rc\d+|\.post\d+)?$",
        json_schema_extra=_without_default,
    )
    model_path: str | None = Field(
        None,
        description="Folder of the model in the pods; default /models/<name of the model>.",
        pattern=r"^/[^\s]+[^/\s]$",
    )
    served_model_name: str | None = Field(None, description="Name that clients send; default is the model path.")
    service_name: ServiceName = Field("sglang-pd", description="Name of the Service that clients use.")
    port: int = Field(8000, description="Port of the Service, the router and the workers.", ge=1, le=65535)
    bootstrap_port: int = Field(
        34000, description="Port on which a prefill worker hands out its KV cache.", ge=1, le=65535
    )
    tensor_parallel: int = Field(2, description="GPUs of one worker; the same for prefill and decode.", ge=1, le=8)
    prefill: Role = Field(default_factory=lambda: Role(replicas=2), description="Prefill workers.")
    decode: Role = Field(default_factory=lambda: Role(replicas=1), description="Decode workers.")
    router: Router = Field(default_factory=Router, description="Router in front of the workers.")
    fabric: Literal["erdma", "tcp"] = Field("erdma", description="How KV cache moves between workers.")
    rdma_device: str = Field("erdma_0", description="RDMA device that carries the KV cache.", min_length=1)
    context_length: int | None = Field(
        None, description="Longest prompt plus answer, in tokens; default is the model's.", ge=1
    )
    args: Strings = Field((), description="More arguments for the engine, on both roles.")
    env: dict[str, str] = Field(
        default_factory=dict, description="More environment variables of the workers; no secrets."
    )
    resources: Resources = Field(default_factory=Resources, description="CPU and memory of one worker.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of the nodes that may run workers.")
    image_pull_secrets: Strings = Field((), description="Secrets for the image registry, in the serving namespace.")

    @field_validator("version", mode="before")
    @classmethod
    def _as_the_tag_says(cls, version: object, known: ValidationInfo) -> object:
        image = known.data.get("image")
        if image is None:
            return version or "0.0.0"  # the image is a mistake of its own, and is told as one
        in_tag = ImageName.of(image).versions
        if not version:
            if len(in_tag) == 1:
                return in_tag[0]
            raise PydanticCustomError(
                "no_version", _NO_VERSION, {"image": image, "found": " and ".join(in_tag) or "none"}
            )
        if in_tag and version not in in_tag:
            raise PydanticCustomError("other_version", _OTHER_VERSION, {"image": image, "found": " or ".join(in_tag)})
        return version


class Rollout(_Section):
    strategy: Literal["BlueGreen", "Recreate"] = Field(
        "BlueGreen",
        description="`BlueGreen` proves the new release beside the old one and needs its GPUs twice; "
        "`Recreate` stops the old release first.",
    )
    deadline_minutes: Minutes = Field(60, description="Give up a rollout after this time.")


class Smoke(_Section):
    prompt: str = Field(
        "Explain prefill and decode in one sentence.", description="What the smoke test asks.", min_length=1
    )
    max_tokens: int = Field(64, description="Longest answer, in tokens.", ge=1, le=4096)
    deadline_minutes: Minutes = Field(15, description="Give up the smoke test after this time.")


class Notify(_Section):
    webhook: SecretKey = Field(description="Where the address of a webhook is; it gets one JSON message for each run.")


class Workflow(_Section):
    image: str = Field("slipway:0.1.0", description="Image that runs the steps.", min_length=1)
    namespace: Name = Field("slipway", description="Namespace in which the workflow runs.")
    schedule: str | None = Field(
        None, description="When the model is refreshed, as a cron expression; default is never.", min_length=1
    )
    timezone: str = Field("Asia/Shanghai", description="Time zone of the schedule.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of the nodes that may run steps.")
    gpu_nodes: Literal["never", "allow"] = Field(
        "never",
        description="Whether steps may run on nodes with GPUs. `never`: where no other node can take a step, its pod "
        "stays Pending with the scheduler's reason. `allow`, for a cluster of GPU nodes alone, still prefers others.",
    )
    skip_unchanged: bool = Field(
        True,
        description="Leave the rest of the line out when check-release finds that exactly this release serves already, "
        "whole and proved; false walks every task.",
    )
    labels: Labels = Field(default_factory=dict, description="Labels for the runs and pods of the workflow.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations for the pods of the workflow.")


class ModelService(_Section):
    """One model, from the hub to a proven service."""

    api_version: Literal["slipway/v1"] = Field(description="Version of this document.")
    kind: Literal["ModelService"] = Field(description="Kind of this document.")
    metadata: Metadata = Field(description="Name and place.")
    model: Model = Field(description="What is served.")
    store: Store = Field(description="Where the files of the model are kept.")
    transfer: Transfer = Field(default_factory=Transfer, description="How the files get there.")
    volume: Volume = Field(default_factory=Volume, description="How the pods see the files.")
    serving: Serving = Field(description="What serves them.")
    rollout: Rollout = Field(default_factory=Rollout, description="How a new release replaces the old one.")
    smoke: Smoke = Field(default_factory=Smoke, description="How a release is proved.")
    notify: Notify | None = Field(None, description="Who hears how a run ended.")
    workflow: Workflow = Field(default_factory=Workflow, description="How the steps run on the cluster.")

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def model_path(self) -> str:
        """Folder of the model in the pods."""
        return self.serving.model_path or "/models/" + self.model.id.rpartition("/")[2]

    @property
    def served_model_name(self) -> str:
        """Name that clients send. The engine's own default is the path, verbatim."""
        return self.serving.served_model_name or self.model_path

    @property
    def store_endpoint(self) -> str:
        return self.store.endpoint or f"https://oss-{self.store.region}-internal.aliyuncs.com"


@dataclass(frozen=True)
class Document:
    """The text of a document; `origin` says in messages where it came from."""

    text: str
    origin: str

    @property
    def content(self) -> dict[str, Any]:
        """As it is written. Raises DocumentError for what is no mapping."""
        if self.text.strip() == UNFILLED:
            raise DocumentError(
                f"{self.origin} holds {UNFILLED}, which Argo did not fill in: a Retry with a changed parameter forgets "
                "the document unless the run started with it. Next: resubmit the run instead (docs/how-to/retry.md)"
            )
        try:
            found = yaml.load(self.text, _EachKeyOnce)  # noqa: S506  # a safe loader that refuses more
        except yaml.YAMLError as error:
            raise DocumentError(f"{self.origin} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(found, dict):
            kind = type(found).__name__
            raise DocumentError(f"{self.origin} holds {kind}, expected one mapping with kind: ModelService")
        return found

    def service(self, overrides: Iterable[str] = ()) -> ModelService:
        """The document, validated; `overrides` are `path.to.field=value`, with the value in YAML. An empty value
        changes nothing.

        Raises DocumentError with every mistake in it.
        """
        found = self.content
        for override in overrides:
            _override(found, override)
        try:
            return ModelService.model_validate(found)
        except ValidationError as error:
            raise DocumentError(explain(self.origin, error, ModelService)) from error


def read(path: Path) -> Document:
    """Raises DocumentError if there is no such file, or no text in it."""
    try:
        return Document(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DocumentError(
            f"cannot read the document {path}: {why}. Next: give the path of a ModelService document in UTF-8"
        ) from error


def load(path: Path, overrides: Iterable[str] = ()) -> ModelService:
    return read(path).service(overrides)


def parse(text: str, origin: str, overrides: Iterable[str] = ()) -> ModelService:
    return Document(text, origin).service(overrides)


def json_schema() -> dict[str, Any]:
    """JSON Schema of the document, for editors."""
    schema = ModelService.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _EachKeyOnce(yaml.SafeLoader):
    """YAML lets the last of two equal keys win, and nobody sees that half a section is gone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for index, key in enumerate(keys):
            if any(key.value == other.value for other in keys[:index]):
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


def _override(document: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(re.fullmatch(r"[A-Za-z0-9_-]+", key) for key in keys):
        raise DocumentError(f"cannot override with {override!r}: expected path.to.field=value")
    if not text:
        return  # a parameter of a workflow always has a value; empty is how it says that it was not given
    section = document
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise DocumentError(f"cannot override {path}: {key} is not a section of the document")
    try:
        value = yaml.safe_load(text)
        # A tag 1.0, a branch 2026-01-01 and a commit 12345678 are texts, although YAML on its own says otherwise.
        is_text = not isinstance(value, (str, dict, list, type(None))) and wants_text(keys, ModelService)
        section[keys[-1]] = yaml.load(text, yaml.BaseLoader) if is_text else value  # noqa: S506  # makes only texts
    except yaml.YAMLError as error:
        raise DocumentError(f"cannot override {path}: {text!r} is not a YAML value") from error
