"""The document: `kind: ModelService` declares one model service.

It holds decisions only; `steps.release` derives the rest. Secrets appear by name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from steps.document import written
from steps.document.engine import NEWEST_PROVED, OLDEST, RouterArguments, WorkerArguments, provable
from steps.document.image_name import Image, ImageName
from steps.document.pod_fields import Pod
from steps.document.quantities import Cpu, PartSize, Size, quantity
from steps.document.schedule import Cron, TimeZone
from steps.document.section import AsTuple, LabelKey, LabelValue, Name, Section, Text
from steps.document.tokens import Env
from steps.document.validation_errors import explain, wants_text
from steps.errors import DocumentError
from steps.kinds import OWN_LABELS

API_VERSION = "slipway/v1alpha1"
SCHEMA_ID = "urn:slipway:v1alpha1:ModelService"
WORKFLOW_NAMESPACE = "slipway"
DEFAULT_SECRET = "oss-credentials"  # noqa: S105  # a name, not a secret
UNFILLED = "{{workflow.parameters.service}}"  # in a pod, in place of a document that Argo has forgotten
WorkerRole = Literal["prefill", "decode"]
WORKER_ROLES: tuple[WorkerRole, ...] = get_args(WorkerRole)
MAX_NAME = 30  # a pod label holds `<name>-<release 8>-prefill-<StatefulSet hash 10>`, at most 63 characters

# Services carry it, and their names begin with a letter (RFC 1035).
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#rfc-1035-label-names
_SERVICE_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_SERVICE_NAME_ALLOWED = "a lower-case letter, then lower-case letters, digits and dashes, with no dash at the end"
ServiceName = Annotated[str, Text(_SERVICE_NAME, _SERVICE_NAME_ALLOWED, longest=63)]
Url = Annotated[str, Text(r"^https?://[^/\s]+$", "an address such as https://host:port, without a path")]
Replicas = Annotated[int, Field(ge=1, le=64)]
Port = Annotated[int, Field(ge=1, le=65535)]
Minutes = Annotated[int, Field(ge=1, le=7 * 24 * 60)]
RdmaDevice = Annotated[str, Text(r"^[A-Za-z0-9_.:-]+$", "the name of an RDMA device such as erdma_0")]


def _not_ours(labels: dict[str, str]) -> dict[str, str]:
    if any(key.startswith(OWN_LABELS) for key in labels):
        raise PydanticCustomError("reserved", "labels without the prefix slipway/, which selectors of Slipway use")
    return labels


Labels = Annotated[dict[LabelKey, LabelValue], AfterValidator(_not_ours)]


def _without_default(schema: JsonDict) -> None:
    """A value that a validator derives from other fields has no default for an editor."""
    del schema["default"]


class SecretKey(Section):
    """One key of a Secret in the namespace of the workflow."""

    secret: Name = Field(description="Name of the Secret.")
    key: str = Field(description="Key in the Secret.", min_length=1)


class Metadata(Section):
    name: Annotated[str, Text(_SERVICE_NAME, _SERVICE_NAME_ALLOWED, longest=MAX_NAME)] = Field(
        description=f"Name of the service, and first part of the names of its objects. At most {MAX_NAME} characters.",
        examples=["qwen3-32b"],
    )
    namespace: Name = Field("default", description="Namespace that serves the model.")
    labels: Labels = Field(
        default_factory=dict,
        description="Labels of all objects and of new pods. A change restarts no pod.",
        examples=[{"team": "search"}],
    )
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations of all objects.")


class Model(Section):
    id: Annotated[
        str,
        Text(
            r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$",
            "owner/name, each of letters, digits, dots, dashes and underscores",
        ),
    ] = Field(description="Model at the hub, as owner/name.", examples=["Qwen/Qwen3-32B"])
    revision: Annotated[str, Text(r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", "the name of a branch or tag, or a commit")] = (
        Field("master", description="Branch, tag or commit at the hub.")
    )
    digest: Annotated[str, Text(r"^sha256:[0-9a-f]{64}$", "sha256: and 64 hexadecimal digits")] | None = Field(
        None, description="The only model digest that is accepted; `resolve-model` reports it. Default is any."
    )
    endpoint: Url = Field("https://modelscope.cn", description="Address of the ModelScope hub.")
    token: SecretKey | None = Field(None, description="Token of the hub, for a private model.")


def _one_key(schema: JsonDict) -> None:
    schema["oneOf"] = [{"required": ["secret"]}, {"required": ["role"]}]


class Credentials(Section):
    """Either an access key in a Secret, or a RAM role."""

    model_config = ConfigDict(json_schema_extra=_one_key)

    secret: Name | None = Field(
        None, description="Secret with the keys `akId`, `akSecret` and, for a temporary key, `securityToken`."
    )
    role: str | None = Field(
        None, description="RAM role of the service account (RRSA); no Secret is involved.", min_length=1
    )

    @model_validator(mode="after")
    def _either_one(self) -> Self:
        if (self.secret is None) == (self.role is None):
            raise PydanticCustomError("one_of", "either `secret` or `role`")
        return self


class Store(Section):
    bucket: Annotated[
        str,
        Text(
            r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$",
            "3 to 63 lower-case letters, digits and dashes, with a letter or digit at both ends",
        ),
    ] = Field(description="OSS bucket.", examples=["llm-models"])
    region: Annotated[str, Text(r"^[a-z0-9-]+$", "a region such as cn-hangzhou")] = Field(
        description="Region of the bucket.", examples=["cn-hangzhou"]
    )
    endpoint: Url | None = Field(None, description="Address of OSS; default is the region's internal endpoint, https.")
    prefix: Annotated[
        str,
        Text(
            r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$",
            "a folder such as models or llm/models, without a slash at its ends",
        ),
    ] = Field("models", description="Folder in the bucket for the files of models.")
    credentials: Credentials = Field(
        default_factory=lambda: Credentials(secret=DEFAULT_SECRET), description="Credentials for OSS."
    )


class Scratch(Section):
    size: Size = Field("200Gi", description="Size of the scratch volume of a staged transfer.")
    storage_class_name: str | None = Field(
        None, description="StorageClass of the scratch volume; default is that of the cluster."
    )


def _shards_are_streamed(schema: JsonDict) -> None:
    schema["if"] = {"properties": {"shards": {"minimum": 2}}, "required": ["shards"]}
    schema["then"] = {"properties": {"mode": {"const": "streamed"}}, "required": ["mode"]}


class Transfer(Section):
    model_config = ConfigDict(json_schema_extra=_shards_are_streamed)

    mode: Literal["staged", "streamed"] = Field(
        "staged",
        description="`staged` downloads to a scratch volume, then uploads; `streamed` copies without a disk.",
    )
    shards: int = Field(
        1, description="Pods of one transfer, each with its own files; more than 1 only if streamed.", ge=1, le=16
    )
    part_size: PartSize = Field("16Mi", description="Size of the part in one request, from 1Mi to 1Gi.")
    workers: int = Field(8, description="Concurrent requests of each pod.", ge=1, le=64)
    scratch: Scratch = Field(default_factory=Scratch, description="Scratch volume of a staged transfer.")
    deadline_minutes: Minutes = Field(360, description="Deadline of a transfer.")

    @property
    def part_bytes(self) -> int:
        return int(quantity(self.part_size))

    @field_validator("shards")
    @classmethod
    def _one_pod_has_the_scratch_volume(cls, shards: int, known: ValidationInfo) -> int:
        # A scratch volume is ReadWriteOnce: pods on other nodes could not mount it, and on one they share its disk.
        if shards > 1 and known.data.get("mode") == "staged":
            raise PydanticCustomError(
                "staged_shards", "1 with transfer.mode: staged, since one pod has the scratch volume; or mode: streamed"
            )
        return shards


# ossfs 2: keep attributes cached after close, the prefix is immutable. ossfs 1: the walkthrough's options, with a
# metadata cache for the same reason. https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/mount-oss-volumes-through-ossfs-2-0
_MOUNT_OPTIONS = {
    "ossfs2": "-o close_to_open=false",
    "ossfs": "-o umask=022 -o max_stat_cache_size=100000 -o allow_other",
}


class Volume(Section):
    client: Literal["ossfs2", "ossfs"] = Field("ossfs2", description="FUSE client of the OSS CSI driver.")
    options: str | None = Field(None, description="Mount options; default is a set for read-only models.")
    capacity: Size | None = Field(None, description="Nominal size of PV and PVC; default fits the model.")
    deadline_minutes: Minutes = Field(10, description="Deadline of the claim.")

    @property
    def mount_options(self) -> str:
        return self.options or _MOUNT_OPTIONS[self.client]


class Resources(Section):
    cpu: Cpu = Field("12", description="CPUs of one worker.")
    memory: Size = Field("48Gi", description="Memory of one worker.")
    shared_memory: Size = Field("15Gi", description="Size of /dev/shm of one worker.")


class RoleResources(Section):
    cpu: Cpu | None = Field(None, description="CPUs of one worker of this role.")
    memory: Size | None = Field(None, description="Memory of one worker of this role.")
    shared_memory: Size | None = Field(None, description="Size of /dev/shm of one worker of this role.")


class Role(Section):
    """Fields of one role override those of `serving`."""

    replicas: Replicas
    image: Image | None = Field(None, description="Engine image of this role, of the same SGLang version.")
    args: WorkerArguments = Field((), description="Engine arguments of this role, after those of serving.args.")
    env: Env = Field(default_factory=dict, description="Environment variables of this role, over serving.env.")
    resources: RoleResources = Field(default_factory=RoleResources, description="Resources of one worker.")
    pod: Pod = Field(default_factory=Pod, description="Fields of the pods of this role, each over that of serving.pod.")


class Prefill(Role):
    replicas: Replicas = Field(2, description="Number of prefill workers.")


class Decode(Role):
    replicas: Replicas = Field(1, description="Number of decode workers.")


class Ports(Section):
    http: Port = Field(8000, description="HTTP port of the workers and the router.")
    bootstrap: Port = Field(34000, description="Bootstrap port of the prefill workers, for the KV transfer.")


class Router(Section):
    image: Image = Field("lmsysorg/sgl-model-gateway:v0.3.2", description="Image of the router.")
    policy: Literal["round_robin", "random", "cache_aware"] = Field(
        "round_robin", description="Policy by which the router selects workers."
    )
    args: RouterArguments = Field((), description="Further arguments of the router.")


@dataclass(frozen=True)
class Worker:
    """A worker of one role: fields of the role over those of `serving`."""

    image: str
    args: tuple[str, ...]
    env: dict[str, str]
    resources: Resources
    pod: Pod


_NO_VERSION = "the SGLang version inside the image, such as 0.5.23: the tag of serving.image ({image}) names {found}"
_OTHER_VERSION = (
    "{found}, which the tag of serving.image ({image}) names; leave the field out, or, if the tag is wrong, name the "
    "image by its digest alone"
)
_NO_PROOF = "SGLang {oldest} or later: older versions lack the counters and routes that prove a KV transfer"


class Serving(Section):
    image: Image = Field(
        description="Engine image of prefill and decode; best by tag and digest.",
        examples=["registry.example.com/llm/sglang-erdma:0.5.23"],
    )
    version: str = Field(
        "",
        description="SGLang version inside the image; default is the one in the tag. Required if the tag has none.",
        json_schema_extra=_without_default,
        examples=[NEWEST_PROVED],
    )
    model_path: (
        Annotated[str, Text(r"^/[^\s]*[^/\s]$", "an absolute path such as /models/qwen, without a slash at its end")]
        | None
    ) = Field(None, description="Folder of the model in the pods; default is /models/<name of the model>.")
    served_model_name: str | None = Field(
        None, description="Name of the model in requests; default is the model path.", min_length=1
    )
    tensor_parallel: int = Field(2, description="GPUs of one worker; the same for prefill and decode.", ge=1, le=8)
    context_length: int | None = Field(
        None, description="Longest prompt plus answer, in tokens; default is the model's.", ge=1
    )
    fabric: Literal["erdma", "tcp"] = Field("erdma", description="Network of the KV transfer.")
    rdma_devices: Annotated[tuple[RdmaDevice, ...], AsTuple, Field(min_length=1)] = Field(
        ("erdma_0",), description="RDMA devices of the KV transfer."
    )
    ports: Ports = Field(default_factory=Ports, description="Ports of the containers.")
    prefill: Prefill = Field(default_factory=Prefill, description="Prefill workers.")
    decode: Decode = Field(default_factory=Decode, description="Decode workers.")
    router: Router = Field(default_factory=Router, description="Router in front of the workers.")
    args: WorkerArguments = Field((), description="Further engine arguments of both roles.")
    env: Env = Field(default_factory=dict, description="Environment variables of the workers; no secrets.")
    resources: Resources = Field(default_factory=Resources, description="Resources of one worker.")
    pod: Pod = Field(default_factory=Pod, description="Fields of the pods of workers and router.")

    @field_validator("version", mode="before")
    @classmethod
    def _from_the_tag(cls, version: object, known: ValidationInfo) -> object:
        image = known.data.get("image")
        if image is None:
            return version or NEWEST_PROVED  # the image has an error of its own
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

    @field_validator("version")
    @classmethod
    def _can_be_proved(cls, version: str) -> str:
        if not re.fullmatch(r"\d+\.\d+\.\d+(rc\d+|\.post\d+)?", version):
            raise PydanticCustomError("version", "a version of SGLang such as {newest}", {"newest": NEWEST_PROVED})
        if not provable(version):
            raise PydanticCustomError("no_proof", _NO_PROOF, {"oldest": ".".join(map(str, OLDEST)), "version": version})
        return version

    @field_validator("prefill", "decode")
    @classmethod
    def _one_version(cls, role: Role, known: ValidationInfo) -> Role:
        version, in_tag = known.data.get("version"), ImageName.of(role.image).versions if role.image else ()
        if version and in_tag and version not in in_tag:
            raise PydanticCustomError(
                "role_version",
                "an image of SGLang {version} like serving.image: two versions do not exchange KV caches",
                {"version": version},
            )
        return role

    def worker(self, name: WorkerRole) -> Worker:
        role: Role = getattr(self, name)
        own = {key: value for key, value in role.resources if value is not None}
        return Worker(
            image=role.image or self.image,
            args=(*self.args, *role.args),
            env={**self.env, **role.env},
            resources=self.resources.model_copy(update=own),
            pod=role.pod.over(self.pod),
        )


class Rollout(Section):
    strategy: Literal["BlueGreen", "Recreate"] = Field(
        "BlueGreen",
        description="`BlueGreen` proves the new release beside the old one and needs its GPUs twice; "
        "`Recreate` stops the old release first.",
    )
    deadline_minutes: Minutes = Field(60, description="Deadline of a rollout.")


class Proof(Section):
    prompt: str = Field(
        "Explain prefill and decode in one sentence.", description="Prompt of the probe requests.", min_length=1
    )
    max_tokens: int = Field(64, description="Longest answer, in tokens.", ge=1, le=4096)
    deadline_minutes: Minutes = Field(15, description="Deadline of the proof.")


class Endpoint(Section):
    service: ServiceName = Field("sglang-pd", description="Name of the Service for clients.")
    port: Port = Field(8000, description="Port of the Service.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations of the Service.")


class Workflow(Section):
    image: Image = Field(description="Image of the steps.", examples=["registry.example.com/llm/slipway:0.1.0"])
    namespace: Name = Field(WORKFLOW_NAMESPACE, description="Namespace of the runs.")
    schedule: Cron | None = Field(
        None, description="Cron expression of a regular refresh; default is none.", examples=["17 3 * * *"]
    )
    timezone: TimeZone = Field("Asia/Shanghai", description="Time zone of the schedule.")
    skip_unchanged: bool = Field(
        True, description="Skip the remaining tasks if this exact release is deployed and verified."
    )
    gpu_nodes: Literal["never", "allow"] = Field(
        "never",
        description="Placement of the steps on nodes with GPUs. `never`: a pod without another node stays Pending. "
        "`allow`: other nodes are preferred.",
    )
    pod: Pod = Field(default_factory=Pod, description="Fields of the pods of the steps.")
    labels: Labels = Field(default_factory=dict, description="Labels of runs and of their pods.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations of the pods of the steps.")


class ModelService(Section):
    """A model service: one model, from the hub to a proven endpoint."""

    api_version: Literal["slipway/v1alpha1"] = Field(description="Version of this document.")
    kind: Literal["ModelService"] = Field(description="Kind of this document.")
    metadata: Metadata = Field(description="Name, namespace, labels.")
    model: Model = Field(description="The model and its revision. Part of the release.")
    volume: Volume = Field(default_factory=Volume, description="The mount of the files. Part of the release.")
    serving: Serving = Field(description="Workers and router. Part of the release.")
    store: Store = Field(description="The bucket for the files of the model.")
    transfer: Transfer = Field(default_factory=Transfer, description="The transfer from the hub to the bucket.")
    proof: Proof = Field(default_factory=Proof, description="The proof of a release by real requests.")
    rollout: Rollout = Field(default_factory=Rollout, description="The replacement of a release by the next.")
    endpoint: Endpoint = Field(default_factory=Endpoint, description="The Service for clients.")
    notifications: Annotated[tuple[SecretKey, ...], AsTuple] = Field(
        (), description="Targets of the run's result: addresses of webhooks, which get one JSON message for each run."
    )
    workflow: Workflow = Field(description="The runs in Argo Workflows.")

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
        """Name of the model in requests. The engine's own default is the path, verbatim."""
        return self.serving.served_model_name or self.model_path

    @property
    def store_endpoint(self) -> str:
        return self.store.endpoint or f"https://oss-{self.store.region}-internal.aliyuncs.com"


@dataclass(frozen=True)
class Document:
    """The text of a document; messages name it by its `origin`."""

    text: str
    origin: str

    @property
    def content(self) -> dict[str, Any]:
        """The document as it is written. Raises DocumentError for a text that is not one mapping."""
        return self._read()[0]

    def service(self, overrides: Iterable[str] = ()) -> ModelService:
        """The document, validated. `overrides` are `path.to.field=value`, with the value in YAML; an empty value
        changes nothing.

        Raises DocumentError with every validation error in it.
        """
        found, places = self._read()
        edits = tuple(edit for override in overrides if (edit := _override(found, override)))
        try:
            return ModelService.model_validate(found)
        except ValidationError as error:
            places = written.Written(places.root, edits)
            raise DocumentError(explain(self.origin, error, ModelService, places)) from error

    def _read(self) -> tuple[dict[str, Any], written.Written]:
        if self.text.strip() == UNFILLED:
            raise DocumentError(
                f"{self.origin} holds {UNFILLED}, which Argo did not fill in: a Retry with a changed parameter forgets "
                "the document unless the start of the run passed it. Next: resubmit the run instead "
                "(docs/how-to/retry.md)"
            )
        return written.read_yaml(self.text, self.origin)


def read(path: Path) -> Document:
    """Raises DocumentError for a file that is absent or not text."""
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


# The minimum of a document; an example for editors.
EXAMPLE: dict[str, Any] = {
    "apiVersion": API_VERSION,
    "kind": "ModelService",
    "metadata": {"name": "qwen3-32b"},
    "model": {"id": "Qwen/Qwen3-32B"},
    "store": {"bucket": "llm-models", "region": "cn-hangzhou"},
    "serving": {"image": "registry.example.com/llm/sglang-erdma:0.5.23"},
    "workflow": {"image": "registry.example.com/llm/slipway:0.1.0"},
}


def json_schema() -> dict[str, Any]:
    """JSON Schema of the document, for editors."""
    schema = ModelService.model_json_schema(by_alias=True)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
    return {**head, **schema, "examples": [EXAMPLE]}


def _override(document: dict[str, Any], override: str) -> tuple[str, ...]:
    """Writes the override into the document. Returns the path of its field, empty for an empty value."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(re.fullmatch(r"[A-Za-z0-9_-]+", key) for key in keys):
        raise DocumentError(f"cannot override with {override!r}: expected path.to.field=value")
    if not text:
        return ()  # a parameter of a workflow always has a value; an empty one stands for none
    section = document
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise DocumentError(f"cannot override {path}: {key} is not a section of the document")
    try:
        value = yaml.safe_load(text)
        # A tag 1.0, a branch 2026-01-01 and a commit 12345678 are texts, which YAML alone would read as others.
        is_text = not isinstance(value, (str, dict, list, type(None))) and wants_text(keys, ModelService)
        section[keys[-1]] = yaml.load(text, yaml.BaseLoader) if is_text else value  # noqa: S506  # makes only texts
    except yaml.YAMLError as error:
        raise DocumentError(f"cannot override {path}: {text!r} is not a YAML value") from error
    return tuple(keys)
