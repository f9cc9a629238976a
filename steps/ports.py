"""What the steps need from outside, as Protocols. One adapter each in `steps/adapters`; tests and local runs reach
embedded services through the same adapters.

Every method raises Blocked when the other side refuses (no permission, no such bucket, wrong signature) and
TransientError when it does not answer, after the adapter's own retries. Absent is None, and only for a real NotFound.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from steps.engine.errors import TransientError
from steps.image_name import ImageName
from steps.model import Listing, ModelFile

Manifest = dict[str, Any]  # a Kubernetes object


@dataclass(frozen=True)
class Kind:
    api_version: str
    kind: str

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    def __str__(self) -> str:
        return self.kind


@dataclass(frozen=True)
class Ref:
    """Names one Kubernetes object; `namespace` is empty for cluster-scoped kinds."""

    kind: Kind
    name: str
    namespace: str = ""

    @classmethod
    def of(cls, manifest: Manifest) -> "Ref":
        metadata = manifest["metadata"]
        kind = Kind(manifest["apiVersion"], manifest["kind"])
        return cls(kind, metadata["name"], metadata.get("namespace", ""))

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind.kind, self.namespace, self.name) if part)


@dataclass(frozen=True)
class Right:
    """One thing that an account must be allowed to do, for an access review."""

    verb: str
    group: str
    resource: str  # plural, "pods" or "pods/log"
    namespace: str = ""
    name: str = ""
    user: str = ""  # whose right, as the API server calls accounts; empty: the caller's own

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        name = f" {self.name}" if self.name else ""
        whose = f" for {self.user}" if self.user else ""
        return f"{self.verb} {self.resource}{'.' + self.group if self.group else ''}{name}{where}{whose}"


class Cluster(Protocol):
    def get(self, ref: Ref) -> Manifest | None: ...

    def select(
        self,
        kind: Kind,
        namespace: str = "",
        labels: Mapping[str, str] | None = None,
        part: Callable[[Manifest], Manifest] | None = None,
    ) -> list[Manifest]:
        """Objects in one namespace, or in all of them; sorted by namespace and name.

        `part` says what to keep of each as it arrives, with its name: a whole pod is 70 KiB in memory, and a cluster
        has thousands.
        """
        ...

    def preview(self, wanted: Manifest) -> Manifest:
        """What the object would be after `apply`: a server-side apply with dryRun=All."""
        ...

    def apply(self, wanted: Manifest) -> None:
        """Server-side apply with our field manager; the document wins over manual edits of what it declares.

        With a resourceVersion in it, raises TransientError if the object is there and of another version.
        """
        ...

    def delete(self, ref: Ref, uid: str) -> None:
        """Delete that very object; its dependants follow in the background. Absent already is fine."""
        ...

    def serves(self, kind: Kind) -> bool: ...

    def allows(self, right: Right) -> bool:
        """Whether the caller, or the user that the right names, has it."""
        ...

    def pod_log(self, namespace: str, pod: str, container: str, *, previous: bool = False, lines: int = 20) -> str:
        """The last lines of a container's log; empty if there is none."""
        ...


class Locks(Protocol):
    """Objects of which one writer must know what another one wrote."""

    def get(self, ref: Ref) -> Manifest | None: ...

    def swap(self, wanted: Manifest) -> bool:
        """Create it; or, with a resourceVersion in it, replace that very version. False if somebody was quicker."""
        ...


class ModelSource(Protocol):
    """One revision of one model, to be read."""

    def listing(self) -> Listing:
        """All files with sizes and hashes. Raises Blocked for a truncated or unsafe listing and an absent model."""
        ...

    def read(self, file: ModelFile, start: int, buffer: memoryview) -> int:
        """Fill `buffer` with the bytes of `file` from `start` on, or raise.

        Returns their CRC-64/XZ, taken as they came in: whatever changes them in memory afterwards does not change it.
        """
        ...


@dataclass(frozen=True)
class StoredObject:
    key: str
    size: int
    etag: str
    crc64: int | None = None  # of the whole object, as OSS computed it
    metadata: Mapping[str, str] = field(default_factory=dict)  # x-oss-meta-*, keys without that prefix


@dataclass(frozen=True)
class StoredPart:
    number: int  # from 1
    size: int
    etag: str
    crc64: int | None = None  # as OSS computed it from what it received


@dataclass(frozen=True)
class Upload:
    """A multipart upload that is not complete."""

    key: str
    id: str


class ModelStore(Protocol):
    """One bucket. Keys are full keys, never relative to a prefix."""

    def head(self, key: str) -> StoredObject | None: ...

    def scan(self, prefix: str) -> Iterator[StoredObject]:
        """Objects below a prefix, without `crc64` and `metadata`, in key order."""
        ...

    def get(self, key: str) -> bytes | None: ...

    def read(self, key: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of an object from `start` on, or raise."""
        ...

    def put(
        self,
        key: str,
        body: bytes | memoryview,
        *,
        metadata: Mapping[str, str] | None = None,
        forbid_overwrite: bool = False,
    ) -> StoredObject | None:
        """Write one object and compare the CRC-64 that OSS computed. None if it exists and may not be overwritten."""
        ...

    def copy(self, source: StoredObject, key: str, *, metadata: Mapping[str, str] | None = None) -> StoredObject:
        """Copy inside the bucket, without moving bytes through this process."""
        ...

    def delete(self, keys: Iterable[str]) -> None: ...

    def start_upload(self, key: str, *, metadata: Mapping[str, str] | None = None) -> Upload: ...

    def upload_part(self, upload: Upload, number: int, body: memoryview, *, crc64: int | None = None) -> StoredPart:
        """Send one part and compare the CRC-64 that OSS computed with `crc64`; None means that of `body` as it is."""
        ...

    def parts(self, upload: Upload) -> list[StoredPart] | None:
        """Parts that OSS holds, by number; None if there is no such upload any more."""
        ...

    def complete_upload(self, upload: Upload, parts: Iterable[StoredPart], *, crc64: int) -> StoredObject:
        """Make the object from its parts and compare its CRC-64 with `crc64`."""
        ...

    def abort_upload(self, upload: Upload) -> None:
        """Forget an upload and its parts. Absent already is fine."""
        ...

    def uploads(self, prefix: str) -> list[Upload]: ...


class ImageRegistry(Protocol):
    def config(self, image: ImageName) -> Mapping[str, Any]:
        """The configuration of an image: https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md."""
        ...


class Notifier(Protocol):
    def send(self, message: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class AccessKey:
    """An access key of Alibaba Cloud; its secrets never reach a repr, so they never reach a log."""

    id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)  # of a temporary key (STS)


class NotServing(TransientError):
    """Nothing answers there yet: refused, no route, or a 503 while it starts. A step may turn it into a wait."""


@dataclass(frozen=True)
class Server:
    """One HTTP server inside the cluster, reached directly from a pod, or through the API server from elsewhere."""

    kind: Literal["pods", "services"]
    namespace: str
    name: str
    port: int
    host: str  # pod IP or DNS name of the Service, for callers inside the cluster

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}:{self.port}"


@dataclass(frozen=True)
class EngineInfo:
    """What a worker says about itself."""

    version: str
    disaggregation_mode: str  # "prefill", "decode", or "null" for an engine that does both
    model_path: str
    served_model_name: str
    weight_version: str
    tp_size: int
    page_size: int  # tokens
    kv_cache_dtype: str
    dtype: str
    context_length: int | None  # tokens; None is the model's own
    model_override: str  # JSON of --json-model-override-args
    chat_template: str | None
    transfer_backend: str
    rdma_device: str | None
    bootstrap_port: int
    launch_command: str


@dataclass(frozen=True)
class BootstrapRoute:
    """What the bootstrap server of a prefill worker tells decode workers, once every rank has registered."""

    attn_tp_size: int
    page_size: int  # tokens
    kv_cache_dtype: str


@dataclass(frozen=True)
class RoutedWorker:
    """A worker as the router sees it."""

    url: str
    role: str  # "prefill" or "decode"
    healthy: bool
    bootstrap_port: int | None
    served_model_name: str


@dataclass(frozen=True)
class Sample:
    """One line of a Prometheus exposition."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Metrics:
    samples: tuple[Sample, ...]

    def total(self, name: str, **labels: str) -> float | None:
        """Sum over all label sets that carry `labels`; None if there is none: counters appear with their first use."""
        found = [
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def greatest(self, name: str) -> float | None:
        return max((sample.value for sample in self.samples if sample.name == name), default=None)


@dataclass(frozen=True)
class Question:
    """A chat of one message, answered greedily and without thinking aloud."""

    model: str
    prompt: str
    max_tokens: int


@dataclass(frozen=True)
class Answer:
    model: str
    text: str
    reasoning: str  # what a reasoning parser split off; empty without one
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Refusal:
    """The engine answered with an error, also one inside a 200."""

    status: int  # 0: no answer in time
    message: str

    def __str__(self) -> str:
        return f"{self.status}: {self.message}" if self.status else self.message


@dataclass(frozen=True)
class Pairing:
    """What a router tells both workers of a pair about one request."""

    bootstrap_host: str
    bootstrap_port: int
    bootstrap_room: int


class Inference(Protocol):
    """SGLang's HTTP interface. Every method raises NotServing while nothing serves there."""

    def engine_info(self, worker: Server) -> EngineInfo: ...

    def weights_checksum(self, worker: Server) -> str | None:
        """Checksum over the weights as they lie in memory; None if this version has no such endpoint."""
        ...

    def bootstrap_route(self, bootstrap: Server) -> BootstrapRoute: ...

    def metrics(self, server: Server) -> Metrics: ...

    def routed_workers(self, router: Server) -> list[RoutedWorker]: ...

    def chat(self, server: Server, question: Question) -> Answer | Refusal: ...

    def chat_on_pair(self, prefill: Server, decode: Server, pairing: Pairing, question: Question) -> Answer | Refusal:
        """Ask one chosen pair, as a router would: the same request to both at the same time."""
        ...
