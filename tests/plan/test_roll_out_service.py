"""A release gets a group of its own, beside or after the running one, and is done when exactly its own pods serve."""

from typing import Any

import pytest

from steps.kinds import Manifest
from steps.objects import services, volume
from steps.objects.converging import Apply, Delete, ObjectObservation
from steps.release import Release
from steps.roll_out_service import Facts, plan
from steps.rollout.readiness import fingerprint
from tests.support.group_objects import OPERATOR, absent, as_wanted, deleted, group_of, live, ready_group
from tests.support.samples import release

NEW = release("serving.image=registry.example.com/llm/sglang:0.5.24")
OLD = release()
RECREATE = release("serving.image=registry.example.com/llm/sglang:0.5.24", "rollout.strategy=Recreate")


def facts(wanted: Release, **changes: Any) -> Facts:
    """Nothing of the wanted release is there yet."""
    new = (group_of(wanted), services.release_service(wanted))
    looks = tuple(absent(manifest) for manifest in new)
    return Facts(**{"operator": OPERATOR, "claim": bound(wanted), "looks": looks, **changes})


def serving(wanted: Release, **changes: Any) -> Facts:
    """The wanted release serves."""
    manifests = (group_of(wanted), services.release_service(wanted))
    looks = tuple(as_wanted(manifest) for manifest in manifests)
    found = {"operator": OPERATOR, "claim": bound(wanted), "looks": looks, "group": ready_group(manifests[0])}
    return Facts(**{**found, **changes})


def bound(wanted: Release) -> Manifest:
    """The claim over the files of the release, as create-volume leaves it."""
    return live(volume.claim(wanted, "1Ti"), phase="Bound")


def traffic_to(wanted: Release) -> Manifest:
    return live(services.traffic_service(wanted))


def targets(changes: tuple[Any, ...]) -> list[tuple[str, str]]:
    return [(change.action, change.target) for change in changes]


def test_group_and_service_are_made_beside_the_running_release() -> None:
    found = plan(NEW, facts(NEW, groups=(live(group_of(OLD)),), recorded=OLD.id, traffic=traffic_to(OLD)))
    assert targets(found.changes) == [
        ("create", f"RoleBasedGroup/default/{NEW.group}"),
        ("create", f"Service/default/{NEW.group}"),
    ]


def test_a_ready_group_is_done() -> None:
    assert plan(NEW, serving(NEW)).converged


def test_a_group_that_was_just_started_must_stay_ready() -> None:
    found = serving(NEW)
    assert plan(NEW, serving(NEW, before=frozenset())).waiting
    assert plan(NEW, serving(NEW, before=fingerprint(found.group))).converged


def test_without_the_operator_nothing_is_tried() -> None:
    assert "install the RBG operator" in plan(NEW, Facts(None)).failed[0]


def test_another_replica_count_scales_the_group_and_waits_for_it() -> None:
    scaled = release("serving.prefill.replicas=3")
    before, after = live(group_of(OLD)), live(group_of(scaled))
    found = plan(
        scaled,
        facts(scaled, looks=(ObjectObservation(group_of(scaled), before, after),), group=ready_group(group_of(OLD))),
    )
    (change,) = found.changes
    assert change.action == "update"
    assert "spec.roles[prefill].replicas: 2 -> 3" in change.reason
    assert isinstance(change.payload, Apply)
    waiting = plan(
        scaled,
        facts(scaled, looks=(as_wanted(group_of(scaled)),), group=ready_group(group_of(OLD)), groups=(after,)),
    )
    assert "prefill 2/3 ready" in waiting.waiting[0]


@pytest.mark.parametrize("who", ["traffic", "group", "service"])
def test_somebody_elses_object_is_not_touched(who: str) -> None:
    manifest = {
        "traffic": services.traffic_service(NEW),
        "group": group_of(NEW),
        "service": services.release_service(NEW),
    }[who]
    foreign = live(manifest)
    foreign["metadata"]["labels"] = {"app": "sglang-pd"}
    place = {"traffic": foreign} if who == "traffic" else {"same_name": (foreign,)}
    found = plan(NEW, facts(NEW, looks=(), **place))
    assert not found.changes
    assert "it was not made by Slipway" in found.failed[0]
    assert "kubectl label" in found.failed[0]


def spoiled(**changes: Any) -> Manifest:
    claim = bound(RECREATE)
    return {**claim, **{part: {**claim[part], **change} for part, change in changes.items()}}


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (None, "does not exist"),
        (deleted(bound(RECREATE)), "is being deleted"),
        (spoiled(metadata={"labels": {"slipway/service": "other"}}), "has no label slipway/service=qwen3-32b"),
        (spoiled(spec={"volumeName": "another"}), "is bound to the volume another"),
        (spoiled(status={"phase": "Pending"}), "is Pending"),
        (spoiled(status={"phase": "Lost"}), "is Lost"),
    ],
)
@pytest.mark.parametrize("strategy", [NEW, RECREATE])
def test_without_its_volume_a_release_neither_starts_nor_stops_another(
    strategy: Release, claim: Manifest | None, words: str
) -> None:
    """A claim that no pod can mount keeps them waiting for ever, and with `Recreate` nothing serves meanwhile."""
    stray = live(group_of(release("serving.image=registry.example.com/llm/sglang:0.5.23-stray")))
    found = plan(strategy, facts(strategy, claim=claim, groups=(live(group_of(OLD)), stray), recorded=OLD.id))
    assert (found.changes, found.waiting) == ((), ())
    (fault,) = found.failed
    assert f"PersistentVolumeClaim/default/{strategy.volume_name} {words}" in fault
    assert "create-volume makes it. Next: " in fault


def test_another_services_object_is_named_with_its_owner() -> None:
    foreign = live(services.traffic_service(release("metadata.name=other")))
    assert "it belongs to other" in plan(NEW, facts(NEW, looks=(), traffic=foreign)).failed[0]


def test_blue_green_removes_what_a_killed_run_left_behind() -> None:
    stray = release("serving.image=registry.example.com/llm/sglang:0.5.25")
    groups = tuple(live(group_of(found)) for found in (OLD, stray, NEW))
    found = plan(NEW, facts(NEW, groups=groups, recorded=OLD.id, traffic=traffic_to(OLD)))
    deletes = [change for change in found.changes if change.action == "delete"]
    assert [change.target for change in deletes] == [f"RoleBasedGroup/default/{stray.group}"]
    assert "left behind" in deletes[0].reason


@pytest.mark.parametrize("known", [{"recorded": OLD.id}, {"traffic": traffic_to(OLD)}])
def test_blue_green_keeps_what_is_recorded_or_serves(known: dict[str, Any]) -> None:
    found = plan(NEW, facts(NEW, groups=(live(group_of(OLD)),), **known))
    assert not [change for change in found.changes if change.action == "delete"]


def test_recreate_removes_the_running_group_before_it_starts_another() -> None:
    blocked = facts(RECREATE, looks=(), groups=(live(group_of(OLD)),), recorded=OLD.id, traffic=traffic_to(OLD))
    found = plan(RECREATE, blocked)
    assert targets(found.changes) == [("delete", f"RoleBasedGroup/default/{OLD.group}")]
    assert isinstance(found.changes[0].payload, Delete)
    assert f"then {RECREATE.group} is created" in found.waiting[0]


@pytest.mark.parametrize(
    "left", [{"groups": (deleted(live(group_of(OLD))),)}, {"older_pods": ready_group(group_of(OLD)).pods}]
)
def test_recreate_waits_until_the_last_old_pod_is_gone(left: dict[str, Any]) -> None:
    found = plan(RECREATE, facts(RECREATE, looks=(), recorded=OLD.id, **left))
    assert not found.changes
    assert "to be gone" in found.waiting[0]


def test_recreate_leaves_its_own_group_alone() -> None:
    assert plan(RECREATE, serving(RECREATE, groups=(live(group_of(RECREATE)),))).converged


def test_blue_green_does_not_wait_for_old_pods() -> None:
    pods = ready_group(group_of(OLD)).pods
    assert plan(NEW, serving(NEW, groups=(live(group_of(OLD)),), older_pods=pods, recorded=OLD.id)).converged


BROKEN = "the release record ConfigMap/default/qwen3-32b-release cannot be read: data.current: x. Next: restore it"


@pytest.mark.parametrize("wanted", [NEW, RECREATE])
@pytest.mark.parametrize("traffic", [traffic_to(OLD), None])
def test_while_the_record_cannot_be_read_no_group_is_removed_by_either_strategy(
    wanted: Release, traffic: Manifest | None
) -> None:
    """Nothing could put it back, and without the record nothing says which group is the proved one."""
    groups, pods = (live(group_of(OLD)),), ready_group(group_of(OLD)).pods
    found = plan(wanted, facts(wanted, groups=groups, older_pods=pods, traffic=traffic, unread=BROKEN))
    assert [action for action, _ in targets(found.changes)] == ["create", "create"]
    done = plan(wanted, serving(wanted, groups=groups, older_pods=pods, traffic=traffic, unread=BROKEN))
    assert done.converged
    assert BROKEN in done.ok


def test_a_recreate_that_waits_for_gpus_says_that_the_record_is_in_its_way() -> None:
    waiting = serving(RECREATE, groups=(live(group_of(OLD)),), before=frozenset(), unread=BROKEN)
    found = plan(RECREATE, waiting)
    assert found.waiting[-1] == f"Recreate stops no running release, because none could be restored: {BROKEN}"
    assert len(plan(NEW, serving(NEW, before=frozenset(), unread=BROKEN)).waiting) == len(found.waiting) - 1


def test_the_service_of_a_release_leads_to_its_router_alone() -> None:
    one, other = services.release_service(OLD), services.release_service(NEW)
    assert one["spec"]["selector"] == {
        "slipway/service": "qwen3-32b",
        "slipway/release": OLD.id,
        "slipway/role": "router",
    }
    assert one["spec"]["selector"] != other["spec"]["selector"]
    assert one["metadata"]["name"] != services.traffic_service(OLD)["metadata"]["name"]


@pytest.mark.parametrize("role", ["prefill", "decode", "router"])
def test_no_service_has_a_name_that_the_operator_would_adopt(role: str) -> None:
    made = {services.release_service(OLD)["metadata"]["name"], services.traffic_service(OLD)["metadata"]["name"]}
    assert f"{OLD.group}-{role}" not in made
