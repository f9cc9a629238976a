"""Names are content: what is served another way is another release, and what only scales is the same one."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field

from steps.document.schema import MAX_NAME, Credentials, ModelService, SecretKey, Serving, Volume, parse
from steps.kinds import HASH_LABEL, V1ALPHA1, Manifest
from steps.model import ModelDigest
from steps.objects.group import role_based_group
from steps.objects.group_operator import GroupOperator
from steps.release import RENDERING, Release, content_hash, record_name
from steps.rollout.observation import labels_of_pods, template_of
from tests.support.samples import DIGEST, release

OTHER_DIGEST = ModelDigest("sha256:" + "6" * 64)
OPERATOR = GroupOperator(V1ALPHA1, "s-")
MINIMAL = """
apiVersion: slipway/v1alpha1
kind: ModelService
metadata: {name: chat}
model: {id: Qwen/Qwen3-32B}
store: {bucket: llm-models, region: cn-hangzhou}
serving:
  image: registry.example.com/llm/sglang-erdma:0.5.23
workflow: {image: "registry.example.com/llm/slipway:0.1.0"}
"""
_TERM = "{matchExpressions: [{key: a, operator: Exists}]}"
_NODES = f"{{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{_TERM}]}}}}"
_PODS = "{requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {}}]}"
POD = {
    "nodeSelector": "{pool: gpu}",
    "tolerations": "[{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]",
    "affinity.nodeAffinity": _NODES,
    "affinity.podAffinity": _PODS,
    "affinity.podAntiAffinity": _PODS,
    "topologySpreadConstraints": "[{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]",
    "priorityClassName": "serving",
    "imagePullSecrets": "[{name: registry}]",
}
RESOURCES = {"cpu": "'8'", "memory": "8Gi", "sharedMemory": "8Gi"}
# Every field of the document, with another value for it.
NO_RELEASE = {
    "metadata.labels": "{team: llm}",
    "metadata.annotations": "{a: b}",
    "model.revision": "v2",  # the digest says what is served, not the name of the branch
    "model.digest": OTHER_DIGEST,
    "model.endpoint": "http://127.0.0.1:9000",
    "model.token": "{secret: a, key: b}",
    "store.credentials": "{secret: other}",
    "transfer.mode": "streamed",
    "transfer.shards": "1",
    "transfer.workers": "3",
    "transfer.partSize": "32Mi",
    "transfer.scratch.size": "1Ti",
    "transfer.scratch.storageClassName": "essd",
    "transfer.deadlineMinutes": "5",
    "volume.capacity": "1Ti",
    "volume.deadlineMinutes": "5",
    "endpoint.service": "other",
    "endpoint.port": "9000",
    "endpoint.annotations": "{a: b}",
    "serving.prefill.replicas": "3",
    "serving.decode.replicas": "4",
    "rollout.strategy": "Recreate",
    "rollout.deadlineMinutes": "5",
    "proof.prompt": "Hello",
    "proof.maxTokens": "7",
    "proof.deadlineMinutes": "5",
    "notifications": "[{secret: a, key: b}]",
    "workflow.image": "slipway:9",
    "workflow.namespace": "runs",
    "workflow.schedule": "1 2 * * *",
    "workflow.timezone": "UTC",
    **{f"workflow.pod.{field}": value for field, value in POD.items()},
    "workflow.gpuNodes": "allow",
    "workflow.skipUnchanged": "false",
    "workflow.labels": "{team: llm}",
    "workflow.annotations": "{a: b}",
}
RELEASE = {
    "metadata.name": "other",
    "metadata.namespace": "llm",
    "model.id": "Qwen/Qwen3-14B",
    # Where the files are, and how a node mounts them: attributes of the volume, which cannot be changed in place.
    "store.bucket": "other-bucket",
    "store.region": "cn-beijing",
    "store.endpoint": "http://127.0.0.1:9000",
    "store.prefix": "other",
    "volume.client": "ossfs",
    "volume.options": "-o ro",
    "serving.image": "registry.example.com/llm/sglang:0.5.23",
    "serving.version": "0.5.24",  # of an image that is named by its digest alone
    "serving.modelPath": "/models/other",
    "serving.servedModelName": "qwen",
    "serving.ports.http": "9000",
    "serving.ports.bootstrap": "34001",
    "serving.tensorParallel": "4",
    "serving.prefill.args": "[--chunked-prefill-size=4096]",
    "serving.decode.args": "[--max-running-requests=64]",
    "serving.router.image": "lmsysorg/sgl-model-gateway:v0.3.3",
    "serving.router.policy": "random",
    "serving.fabric": "tcp",
    "serving.rdmaDevices": "[erdma_1]",
    "serving.contextLength": "8192",
    "serving.args": "[--log-level=debug]",
    "serving.env": "{A: b}",
    "serving.router.args": "[--log-level=debug]",
    **{f"serving.{role}image": "registry.example.com/llm/sglang:0.5.23" for role in ("prefill.", "decode.")},
    **{f"serving.{role}env": "{A: b}" for role in ("prefill.", "decode.")},
    **{f"serving.{role}pod.{field}": value for role in ("", "prefill.", "decode.") for field, value in POD.items()},
    **{f"serving.{role}resources.{x}": value for role in ("", "prefill.", "decode.") for x, value in RESOURCES.items()},
}
REPLICAS = {"serving.prefill.replicas", "serving.decode.replicas"}


class LaterVolume(Volume):
    claim: str | None = None


class LaterServing(Serving):
    auth: SecretKey | None = None
    taints: dict[str, str] = Field(default_factory=dict)
    grace: int = 7


class Later(ModelService):
    """The document of a Slipway to come."""

    volume: LaterVolume = Field(default_factory=LaterVolume)
    serving: LaterServing


def chat(*overrides: str, kind: type[ModelService] = ModelService) -> Release:
    """A release of the smallest document there is."""
    written = parse(MINIMAL, "chat.yaml", overrides).model_dump(by_alias=True)
    return Release(kind.model_validate(written), DIGEST)


def fields(section: type[BaseModel], path: str = "") -> Iterator[str]:
    """Paths of all fields of the document; a section that may be absent, or is a choice of keys, is one field."""
    for field in section.model_fields.values():
        one = field.annotation
        if isinstance(one, type) and issubclass(one, BaseModel) and one is not Credentials:
            yield from fields(one, f"{path}{field.alias}.")
        else:
            yield f"{path}{field.alias}"


def group(wanted: Release, live: Manifest | None = None) -> Manifest:
    return role_based_group(wanted, OPERATOR, (), labels_of_pods(live))


def pods(manifest: Manifest) -> list[Any]:
    """What the operator would start or restart pods for."""
    return [role if role["name"] != "router" else template_of(role)["spec"] for role in manifest["spec"]["roles"]]


def test_every_field_of_the_document_is_decided_on_here() -> None:
    assert {*NO_RELEASE, *RELEASE} == set(fields(ModelService)) - {"apiVersion", "kind"}


@pytest.mark.parametrize("path", sorted(NO_RELEASE.keys() - REPLICAS))
def test_what_makes_no_release_restarts_no_pod(path: str) -> None:
    before, after = chat(), chat(f"{path}={NO_RELEASE[path]}")
    assert after.id == before.id
    assert group(after, live=group(before))["spec"] == group(before)["spec"]


@pytest.mark.parametrize("path", sorted(REPLICAS))
def test_a_replica_count_restarts_no_worker(path: str) -> None:
    before, after = chat(), chat(f"{path}={NO_RELEASE[path]}")
    assert after.id == before.id
    templates = [[template_of(role) for role in group(found)["spec"]["roles"][:2]] for found in (before, after)]
    assert templates[0] == templates[1]


@pytest.mark.parametrize("path", sorted(RELEASE))
def test_what_is_served_another_way_is_another_release(path: str) -> None:
    image = [f"serving.image=sglang@sha256:{'1' * 64}", "serving.version=0.5.23"] if path == "serving.version" else []
    assert chat(*image, f"{path}={RELEASE[path]}").id != chat(*image).id


def test_other_files_and_other_credentials_of_the_volume_are_another_release() -> None:
    role = chat("store.credentials={role: a}")
    assert len({chat().id, role.id, Release(chat().service, OTHER_DIGEST).id}) == 3


@pytest.mark.parametrize("path", sorted({*NO_RELEASE, *RELEASE}))
def test_a_default_that_is_written_down_is_the_same_release(path: str) -> None:
    found: Any = chat().service.model_dump(by_alias=True, mode="json")
    for key in path.split("."):
        found = found[key]
    if path == "serving.modelPath":
        found = chat().service.model_path
    written = chat(f"{path}={json.dumps(found)}")
    assert written.id == chat().id
    assert group(written) == group(chat())


def test_a_field_that_a_later_slipway_adds_renames_nothing_until_it_is_set() -> None:
    assert chat(kind=Later).id == chat().id
    service = chat(kind=Later).service
    set_now = service.serving.model_copy(update={"grace": 8})
    assert Release(service.model_copy(update={"serving": set_now}), DIGEST).id != chat().id


def test_a_default_changes_only_together_with_the_number_of_the_rendering() -> None:
    """A field at its default does not count in the id, so another default would restart pods under an old name."""
    serving = chat().service.serving.model_dump(exclude={"image", "version", "prefill", "decode"})
    assert (RENDERING, chat().service.volume.client, serving) == (
        1,
        "ossfs2",
        {
            "model_path": None,
            "served_model_name": None,
            "ports": {"http": 8000, "bootstrap": 34000},
            "tensor_parallel": 2,
            "router": {"image": "lmsysorg/sgl-model-gateway:v0.3.2", "policy": "round_robin", "args": ()},
            "fabric": "erdma",
            "rdma_devices": ("erdma_0",),
            "context_length": None,
            "args": (),
            "env": {},
            "resources": {"cpu": "12", "memory": "48Gi", "shared_memory": "15Gi"},
            "pod": {
                "node_selector": {},
                "tolerations": (),
                "affinity": {"node_affinity": None, "pod_affinity": None, "pod_anti_affinity": None},
                "topology_spread_constraints": (),
                "priority_class_name": None,
                "image_pull_secrets": (),
            },
        },
    )


def test_the_order_of_variables_is_part_of_the_release() -> None:
    """The kubelet fills $(NAME) from the variables before it, so another order is another pod."""
    one, other = (chat(f"serving.env={env}") for env in ("{A: a, B: $(A)}", "{B: $(A), A: a}"))
    assert one.id != other.id
    assert group(one)["spec"] != group(other)["spec"]


def test_new_pods_carry_the_labels_of_the_document_and_those_of_a_live_group_keep_theirs() -> None:
    red, blue = chat("metadata.labels={team: red, tier: a}"), chat("metadata.labels={team: blue}")
    for role in group(red)["spec"]["roles"]:
        assert template_of(role)["metadata"]["labels"].items() >= {"team": "red", "tier": "a"}.items()
    after = group(blue, live=group(red))
    assert after["metadata"]["labels"]["team"] == "blue"
    assert pods(after) == pods(group(red))
    assert group(blue, live=group(chat()))["spec"] == group(chat())["spec"]


def test_labels_cannot_hide_that_a_pod_is_of_another_template() -> None:
    hashes = [
        [template_of(role)["metadata"]["labels"][HASH_LABEL] for role in group(found)["spec"]["roles"]]
        for found in (chat(), chat("metadata.labels={team: red}"))
    ]
    assert hashes[0] == hashes[1]


def test_other_bytes_are_another_release_another_volume_and_another_prefix() -> None:
    before, after = release(), release(digest=OTHER_DIGEST)
    for name in ("id", "group", "volume_name", "prefix", "manifest_key"):
        assert getattr(before, name) != getattr(after, name)


def test_two_services_never_share_a_volume_and_share_the_bytes() -> None:
    here, there = release(), release("metadata.name=other")
    elsewhere = release("metadata.namespace=llm")
    assert len({found.volume_name for found in (here, there, elsewhere)}) == 3
    assert {found.prefix for found in (here, there, elsewhere)} == {here.prefix}


def test_a_new_image_keeps_the_volume() -> None:
    assert release("serving.image=other:0.5.23").volume_name == release().volume_name


def test_a_manifest_lies_in_the_prefix_that_it_completes() -> None:
    assert release().prefix == "models/Qwen/Qwen3-32B/" + "5" * 16
    assert release().manifest_key == release().prefix + "/.slipway/manifest.json"


def test_every_name_fits_at_the_longest_name_of_a_service() -> None:
    longest = release(f"metadata.name={'a' * MAX_NAME}")
    names = [
        longest.group,
        longest.volume_name,
        longest.volume_secret,
        record_name(longest.service),
        f"{longest.group}-prefill-" + "0" * 10,  # label controller-revision-hash of the pods of a StatefulSet
        f"{longest.group}-prefill-63",
        f"s-{longest.group}-prefill",  # headless Service of a role
    ]
    assert [name for name in names if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name)] == []


def test_what_selects_cannot_be_overruled_by_the_document() -> None:
    labels = release("metadata.labels={team: llm}").labels
    assert labels == {
        "team": "llm",
        "slipway/service": "qwen3-32b",
        "slipway/release": release("metadata.labels={team: llm}").id,
    }


def test_scaling_is_in_the_replicas_and_the_router_stays_one() -> None:
    assert release("serving.prefill.replicas=3").replicas == {"prefill": 3, "decode": 1, "router": 1}


def test_a_hash_does_not_depend_on_the_order_in_which_things_were_written() -> None:
    assert content_hash({"a": 1, "b": {"c": 2, "d": 3}}, 8) == content_hash({"b": {"d": 3, "c": 2}, "a": 1}, 8)
    assert content_hash({"a": 1}, 8) != content_hash({"a": "1"}, 8)
    assert len(content_hash([], 10)) == 10
