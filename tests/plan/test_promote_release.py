"""The traffic moves first, the record follows, the old release goes last; a crash in between is repaired."""

import json
from typing import Any

import pytest

from steps.kinds import Manifest
from steps.objects import record, services, volume
from steps.objects.converging import ObjectObservation
from steps.objects.record import NOW, PROMOTED_AT, Entry, Record
from steps.promote_release import Facts, endpoint, plan
from steps.release import Release
from tests.support.group_objects import OPERATOR, absent, as_wanted, deleted, group_of, live, ready_group
from tests.support.samples import release, service

OLDEST = release(digest="sha256:" + "1" * 64)
OLD = release(digest="sha256:" + "2" * 64)
NEW = release(digest="sha256:" + "3" * 64)


def entry(of: Release) -> Entry:
    return Entry.of(of, [group_of(of), services.release_service(of), services.traffic_service(of)])


def record_of(current: Release | None, previous: Release | None = None, **more: Any) -> Record:
    return Record(entry(current) if current else None, entry(previous) if previous else None, **more)


def volumes(*releases: Release) -> tuple[Manifest, ...]:
    claims = tuple(live(volume.claim(found, "1Ti")) for found in releases)
    return (*claims, *(live(volume.persistent_volume(found, "1Ti")) for found in releases))


def made(*releases: Release) -> tuple[Manifest, ...]:
    groups = tuple(live(group_of(found)) for found in releases)
    return (*groups, *(live(services.release_service(found)) for found in releases))


def facts(**changes: Any) -> Facts:
    """The new release serves beside the old one, which takes the traffic."""
    found = changes.pop("record", record_of(OLD, OLDEST))
    wanted = record.record(service(), record.promoted(found, entry(NEW)))
    moving = ObjectObservation(
        services.traffic_service(NEW), live(services.traffic_service(OLD)), live(services.traffic_service(NEW))
    )
    writing = ObjectObservation(wanted, live(record.record(service(), found)), live(wanted))
    return Facts(
        **{
            "operator": OPERATOR,
            "wanted": group_of(NEW),
            "group": ready_group(group_of(NEW)),
            "record": found,
            "looks": (moving, writing),
            "groups_and_services": made(OLD, NEW),
            "volumes": volumes(OLD, NEW),
            "proved": NEW.id,
            **changes,
        }
    )


def lines(found: Any) -> list[str]:
    return [f"{change.action} {change.target}" for change in found.changes]


def test_traffic_then_record_then_retirement() -> None:
    assert lines(plan(NEW, facts())) == [
        "update Service/default/sglang-pd",
        "update ConfigMap/default/qwen3-32b-release",
        f"delete RoleBasedGroup/default/{OLD.group}",
        f"delete Service/default/{OLD.group}",
    ]


def test_the_traffic_says_from_where_to_where() -> None:
    change = plan(NEW, facts()).changes[0]
    assert change.reason == f"spec.selector[slipway/release]: {OLD.id} -> {NEW.id}"


def test_a_promoted_release_is_done() -> None:
    looks = (as_wanted(services.traffic_service(NEW)), as_wanted(record.record(service(), record_of(NEW, OLD))))
    done = facts(record=record_of(NEW, OLD), looks=looks, groups_and_services=made(NEW), volumes=volumes(OLD, NEW))
    assert plan(NEW, done).converged


@pytest.mark.parametrize(
    ("moved", "recorded", "left"),
    [
        (False, False, ["update Service", "update ConfigMap", "delete RoleBasedGroup", "delete Service"]),
        (True, False, ["update ConfigMap", "delete RoleBasedGroup", "delete Service"]),
        (True, True, ["delete RoleBasedGroup", "delete Service"]),
    ],
)
def test_after_a_crash_the_rest_is_done(moved: bool, recorded: bool, left: list[str]) -> None:
    found = record_of(NEW, OLD) if recorded else record_of(OLD)
    looks = list(facts(record=found).looks)
    if moved:
        looks[0] = as_wanted(services.traffic_service(NEW))
    if recorded:
        looks[1] = as_wanted(record.record(service(), found))
    after = plan(NEW, facts(record=found, looks=tuple(looks)))
    assert [line.partition("/")[0] for line in lines(after)] == left


def test_a_release_that_does_not_serve_gets_no_traffic() -> None:
    broken = ready_group(group_of(NEW))
    assert broken.pods
    after = plan(NEW, facts(group=type(broken)(broken.group, broken.workloads, broken.pods[1:])))
    assert not after.changes
    assert "prefill 1/2 ready" in after.waiting[0]


def test_a_release_that_was_never_rolled_out_is_a_fault() -> None:
    after = plan(NEW, facts(group=type(ready_group(group_of(NEW)))(None)))
    assert "does not exist" in after.failed[0]
    assert "Next: submit a new run" in after.failed[0]


@pytest.mark.parametrize("proved", ["", OLD.id])
def test_a_release_that_this_run_did_not_prove_gets_neither_traffic_nor_a_record(proved: str) -> None:
    after = plan(NEW, facts(proved=proved))
    assert (after.changes, after.waiting) == ((), ())
    (fault,) = after.failed
    assert f"release {NEW.id} was not proved in this run: --proved-release is {proved or 'absent'}" in fault
    assert "Next: run smoke-test" in fault


def test_a_promoted_release_needs_no_new_proof_for_what_is_left_to_retire() -> None:
    looks = (as_wanted(services.traffic_service(NEW)), as_wanted(record.record(service(), record_of(NEW, OLD))))
    left = facts(record=record_of(NEW, OLD), looks=looks, proved="")
    assert [line.partition("/")[0] for line in lines(plan(NEW, left))] == ["delete RoleBasedGroup", "delete Service"]


def test_a_service_of_somebody_else_keeps_its_traffic() -> None:
    foreign = live(services.traffic_service(NEW))
    foreign["metadata"]["labels"] = {}
    written = facts().looks[1]
    after = plan(NEW, facts(looks=(ObjectObservation(services.traffic_service(NEW), foreign, None), written)))
    assert not after.changes
    assert "it was not made by Slipway" in after.failed[0]


def test_the_volume_of_the_release_before_stays_and_older_ones_go() -> None:
    after = plan(NEW, facts(volumes=volumes(OLDEST, OLD, NEW)))
    assert lines(after)[-2:] == [
        f"delete PersistentVolumeClaim/default/{OLDEST.volume_name}",
        f"delete PersistentVolume/{OLDEST.volume_name}",
    ]


def test_a_volume_of_a_namesake_in_another_namespace_stays() -> None:
    theirs = release("metadata.namespace=other", digest="sha256:" + "9" * 64)
    after = plan(NEW, facts(volumes=(*volumes(OLD, NEW), *volumes(theirs)), groups_and_services=made(NEW)))
    assert not [line for line in lines(after) if theirs.volume_name in line]


def test_what_is_leaving_already_is_not_deleted_again() -> None:
    leaving = tuple(deleted(manifest) for manifest in made(OLD))
    after = plan(NEW, facts(groups_and_services=(*leaving, *made(NEW))))
    assert not [line for line in lines(after) if line.startswith("delete")]


def test_the_very_first_release_is_recorded_without_a_previous_one() -> None:
    found = record.promoted(Record(), entry(NEW))
    assert (found.current, found.previous, found.promoted_at) == (entry(NEW), None, NOW)


def test_scaling_keeps_the_release_before() -> None:
    scaled = release("serving.prefill.replicas=3", digest=NEW.model_digest)
    found = record.promoted(record_of(NEW, OLD, promoted_at="2026-11-20T08:00:00+00:00"), entry(scaled))
    assert found.current == entry(scaled)
    assert found.previous == entry(OLD)
    assert found.promoted_at == NOW


def test_the_time_of_a_promotion_is_written_once() -> None:
    promoted = record.record(service(), record.promoted(record_of(OLD), entry(NEW)))
    stamped = record.stamped(promoted, "2026-11-20T08:00:00+00:00", None)
    assert stamped["data"][PROMOTED_AT] == "2026-11-20T08:00:00+00:00"
    again = record.record(service(), record.promoted(record.read(live(stamped)), entry(NEW)))
    assert again == stamped
    assert record.stamped(again, "2026-12-24T18:00:00+00:00", live(stamped)) == stamped


def test_a_record_can_be_read_back_with_whole_manifests() -> None:
    written = record.record(service(), record_of(NEW, OLD, promoted_at="x"))
    assert record.read(live(written)) == record_of(NEW, OLD, promoted_at="x")
    recorded = json.loads(written["data"]["current"])
    assert recorded["objects"][0] == json.loads(json.dumps(group_of(NEW)))
    assert {key: recorded[key] for key in ("release", "model_digest", "volume", "image")} == {
        "release": NEW.id,
        "model_digest": NEW.model_digest,
        "volume": NEW.volume_name,
        "image": NEW.service.serving.image,
    }


def test_a_broken_record_is_named_where_it_is_written_anew() -> None:
    broken = Record(entry(OLD), broken="the release record X cannot be read: y", counter=7)
    changes = plan(NEW, facts(record=broken)).changes
    assert [change.reason for change in changes if change.target.startswith("ConfigMap")] == [broken.broken]


def test_a_record_that_another_client_undoes_is_the_same_change_again_although_its_counter_is_another() -> None:
    first, again = (plan(NEW, facts(record=record_of(OLD, counter=counter))).changes[1] for counter in (7, 8))
    assert first.payload.manifest["data"]["counter"] != again.payload.manifest["data"]["counter"]
    assert first == again


def test_clients_are_told_one_address() -> None:
    assert endpoint(service()) == "http://sglang-pd.default.svc:8000/v1"


def test_the_traffic_service_names_no_release_in_its_labels() -> None:
    assert "slipway/release" not in services.traffic_service(NEW)["metadata"]["labels"]
    assert absent(services.traffic_service(NEW)).live is None
