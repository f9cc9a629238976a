"""A volume is named by what it shows, and bound to its claim before anybody reads."""

import base64
import copy
from typing import Any

import pytest

from steps.create_volume import Facts, plan
from steps.kinds import RELEASE_LABEL, SERVICE_LABEL, Manifest
from steps.objects import volume
from steps.objects.converging import Delete
from steps.ports.oss import AccessKey
from steps.reconcile.plan import Plan
from tests.support.group_objects import absent, as_wanted, deleted, live
from tests.support.samples import release

RELEASE = release()
KEY = AccessKey("dummy-id", "dummy-secret")
VOLUME = volume.persistent_volume(RELEASE, "1Ti")
CLAIM = volume.claim(RELEASE, "1Ti")
NAME = RELEASE.volume_name


def bound_volume(phase: str = "Bound", uid: str = "claim-1", **changes: Any) -> Manifest:
    found = live(VOLUME, phase=phase)
    found["spec"]["claimRef"]["uid"] = uid
    found["metadata"] |= changes
    return found


def bound_claim(phase: str = "Bound", to: str = NAME) -> Manifest:
    found = live(CLAIM, uid="claim-1", phase=phase)
    found["spec"]["volumeName"] = to
    return found


def looks(*manifests: Manifest) -> tuple[Any, ...]:
    return tuple(as_wanted(manifest) for manifest in manifests)


def test_secret_then_volume_then_claim_are_made() -> None:
    wanted = (volume.secret(RELEASE, KEY), VOLUME, CLAIM)
    found = plan(RELEASE, Facts(None, None, tuple(absent(manifest) for manifest in wanted)))
    assert [str(change) for change in found.changes] == [
        "create Secret/default/qwen3-32b-oss (absent)",
        f"create PersistentVolume/{NAME} (absent)",
        f"create PersistentVolumeClaim/default/{NAME} (absent)",
    ]


def test_bound_to_each_other_is_done() -> None:
    found = plan(RELEASE, Facts(bound_volume(), bound_claim(), looks(VOLUME, CLAIM)))
    assert found.converged
    assert found.ok[-1] == f"PersistentVolumeClaim/default/{NAME} is Bound to PersistentVolume/{NAME}"


@pytest.mark.parametrize(
    ("found_volume", "found_claim"),
    [
        (bound_volume("Available"), bound_claim("Pending")),
        (bound_volume("Bound"), bound_claim("Pending")),
        (bound_volume("Available"), bound_claim("Bound")),
        (bound_volume("Bound", uid="another"), bound_claim("Bound")),
    ],
)
def test_half_bound_is_waited_for(found_volume: Manifest, found_claim: Manifest) -> None:
    found = plan(RELEASE, Facts(found_volume, found_claim, looks(VOLUME, CLAIM)))
    assert not found.changes
    assert "both must be Bound" in found.waiting[0]


@pytest.mark.parametrize(
    ("found_volume", "found_claim", "words"),
    [
        (None, bound_claim(to="another"), f"is bound to the volume another, expected {NAME}"),
        (None, bound_claim("Lost"), f"kubectl delete pvc {NAME} -n default"),
    ],
)
def test_what_an_apply_cannot_mend_is_a_fault_with_its_command(
    found_volume: Manifest | None, found_claim: Manifest | None, words: str
) -> None:
    found = plan(RELEASE, Facts(found_volume, found_claim, ()))
    assert not found.changes
    assert len(found.failed) == 1
    assert words in found.failed[0]
    assert "Next: " in found.failed[0]


def test_an_object_of_another_owner_is_a_fault_also_beside_a_volume_that_would_be_made_anew() -> None:
    found = plan(
        RELEASE, Facts(bound_volume("Released", uid="gone"), None, (), foreign=("Secret/default/x belongs to chat",))
    )
    assert found == Plan(failed=("Secret/default/x belongs to chat",))


def test_our_released_volume_is_made_anew() -> None:
    released = bound_volume("Released", uid="gone")
    found = plan(RELEASE, Facts(released, None, ()))
    (change,) = found.changes
    assert isinstance(change.payload, Delete)
    assert change.target == f"PersistentVolume/{NAME}"
    assert "the files stay in the bucket" in change.reason


@pytest.mark.parametrize("spoil", [{"persistentVolumeReclaimPolicy": "Delete"}, None])
def test_a_volume_whose_files_could_go_with_it_is_never_deleted(spoil: dict[str, str] | None) -> None:
    found = bound_volume("Released" if spoil else "Bound")
    found["spec"] |= spoil or {}
    assert volume.stale(RELEASE, found) == ""


def test_a_volume_on_its_way_out_is_not_deleted_again() -> None:
    assert volume.stale(RELEASE, deleted(bound_volume("Released"))) == ""


@pytest.mark.parametrize(
    ("overrides", "found_claim", "size"),
    [
        ([], None, "1Ti"),
        (["volume.capacity=100Gi"], None, "100Gi"),
        (["volume.capacity=100Gi"], CLAIM, "1Ti"),
    ],
)
def test_a_claim_keeps_its_nominal_size(overrides: list[str], found_claim: Manifest | None, size: str) -> None:
    """The request of a claim is immutable, so another number in the document must not fail a run."""
    assert volume.capacity(release(*overrides), found_claim) == size


def test_the_volume_is_what_the_driver_reads() -> None:
    spec = VOLUME["spec"]
    assert spec["csi"]["volumeHandle"] == VOLUME["metadata"]["name"] == NAME
    assert spec["csi"]["volumeAttributes"] == volume.volume_attributes(RELEASE)
    assert spec["csi"]["nodePublishSecretRef"] == {"name": "qwen3-32b-oss", "namespace": "default"}
    assert (spec.get("storageClassName", ""), CLAIM["spec"]["storageClassName"]) == ("", "")
    assert (spec["accessModes"], spec["persistentVolumeReclaimPolicy"]) == (["ReadOnlyMany"], "Retain")
    assert (spec["claimRef"]["namespace"], spec["claimRef"]["name"]) == ("default", NAME)


def test_with_a_role_no_secret_is_named() -> None:
    by_role = release("store.credentials={role: slipway-reader}")
    source = volume.persistent_volume(by_role, "1Ti")["spec"]["csi"]
    assert "nodePublishSecretRef" not in source
    assert source["volumeAttributes"]["authType"] == "rrsa"


def test_a_temporary_key_brings_its_token() -> None:
    data = volume.secret(RELEASE, AccessKey("dummy-id", "dummy-secret", "dummy-token"))["data"]
    assert {name: base64.b64decode(value).decode() for name, value in data.items()} == {
        "akId": "dummy-id",
        "akSecret": "dummy-secret",
        "securityToken": "dummy-token",
    }
    assert "securityToken" not in volume.secret(RELEASE, KEY)["data"]


def test_releases_of_one_model_share_a_volume_that_names_none_of_them() -> None:
    other = release("serving.image=registry.example.com/other:0.5.23")
    assert other.id != RELEASE.id
    assert volume.persistent_volume(other, "1Ti") == VOLUME
    assert RELEASE_LABEL not in VOLUME["metadata"]["labels"]
    assert VOLUME["metadata"]["labels"][SERVICE_LABEL] == "qwen3-32b"


def test_labels_and_annotations_of_the_document_are_on_every_object() -> None:
    marked = release("metadata.labels={team: search}", "metadata.annotations={owner: search@example.com}")
    for manifest in (volume.secret(marked, KEY), volume.persistent_volume(marked, "1Ti"), volume.claim(marked, "1Ti")):
        assert manifest["metadata"]["labels"]["team"] == "search"
        assert manifest["metadata"]["annotations"] == {"owner": "search@example.com"}


def test_a_look_changes_no_wish() -> None:
    wanted = copy.deepcopy(VOLUME)
    plan(RELEASE, Facts(bound_volume(), bound_claim(), looks(VOLUME, CLAIM)))
    assert wanted == VOLUME
