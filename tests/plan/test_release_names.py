"""Names are content: what is served another way is another release, and what only scales is the same one."""

import re

import pytest

from steps.release import content_hash, record_name
from steps.service import MAX_NAME, Serving
from tests.samples import release

OTHER_DIGEST = "sha256:" + "6" * 64

SAME = [
    "serving.prefill.replicas=3",
    "serving.decode.replicas=4",
    "serving.serviceName=other",
    "model.revision=v2",  # the digest says what is served, not the name of the branch
    "rollout.strategy=Recreate",
    "rollout.deadlineMinutes=5",
    "transfer.mode=streamed",
    "smoke.prompt=Hello",
    "notify={webhook: {secret: a, key: b}}",
    "workflow.image=slipway:9",
    "metadata.annotations={a: b}",
    "volume.capacity=1Ti",
    "store.credentials={kind: secret, secret: other}",
]

OTHER = [
    "metadata.namespace=llm",
    "metadata.labels={team: llm}",
    "store.bucket=other-bucket",
    "store.region=cn-beijing",
    "store.endpoint=http://127.0.0.1:9000",
    "store.prefix=other",
    "store.credentials={kind: rrsa, role: a}",
    "volume.client=ossfs",
    "volume.options=-o ro",
    "volume.name=weights",
    "serving.image=registry.example.com/llm/sglang-erdma:0.5.24",
    "serving.version=0.5.24",
    "serving.modelPath=/models/other",
    "serving.servedModelName=qwen",
    "serving.port=9000",
    "serving.bootstrapPort=34001",
    "serving.tensorParallel=4",
    "serving.prefill.args=[--chunked-prefill-size=4096]",
    "serving.decode.args=[--max-running-requests=64]",
    "serving.router.image=lmsysorg/sgl-model-gateway:v0.3.3",
    "serving.router.policy=random",
    "serving.fabric=tcp",
    "serving.rdmaDevice=erdma_1",
    "serving.contextLength=8192",
    "serving.args=[--log-level=debug]",
    "serving.env={A: b}",
    "serving.resources.cpu=8",
    "serving.nodeSelector={pool: gpu}",
    "serving.imagePullSecrets=[registry]",
]


@pytest.mark.parametrize("override", SAME)
def test_what_does_not_change_what_a_pod_serves_is_the_same_release(override: str) -> None:
    assert release(override).id == release().id
    assert release(override).group == release().group


@pytest.mark.parametrize("override", OTHER)
def test_what_is_served_another_way_is_another_release(override: str) -> None:
    assert release(override).id != release().id


def test_every_field_of_serving_is_decided_on_here() -> None:
    decided = {
        override.split(".")[1].partition("=")[0] for override in (*SAME, *OTHER) if override.startswith("serving.")
    }
    assert decided == {field.alias for field in Serving.model_fields.values()}


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
    assert release("serving.image=other:1").volume_name == release().volume_name


def test_a_manifest_lies_in_the_prefix_that_it_completes() -> None:
    assert release().prefix == "models/Qwen/Qwen3-32B/" + "5" * 16
    assert release().manifest_key == release().prefix + "/.slipway/manifest.json"


def test_every_name_fits_at_the_longest_name_of_a_service() -> None:
    longest = release(f"metadata.name={'a' * MAX_NAME}", f"volume.name={'v' * 40}")
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
