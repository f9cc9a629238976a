"""The release record: read with every schema, raised by each promotion, and named where it is broken."""

import json
from typing import Any

import pytest

from steps.errors import TransientError
from steps.kinds import Manifest
from steps.objects import record, services
from steps.objects.record import Entry, Record
from tests.support.group_objects import group_of, live
from tests.support.samples import RECORDED, release, service

RECORDS = RECORDED / "records"
SCHEMAS = sorted(path.stem for path in RECORDS.glob("*.json"))
NEW = release(digest="sha256:" + "9" * 64)
ENTRY = Entry.of(NEW, [group_of(NEW), services.release_service(NEW), services.traffic_service(NEW)])
DEEP = "[" * 100_000


def written(schema: str) -> Manifest:
    found: Manifest = json.loads((RECORDS / f"{schema}.json").read_text(encoding="utf-8"))
    return found


def spoilt(**data: str) -> Manifest:
    found = written("schema-1")
    return {**found, "data": {**found["data"], **data}}


def without(*fields: str) -> str:
    """The current entry as JSON, without some of its fields."""
    found = json.loads(written("schema-1")["data"]["current"])
    return json.dumps({name: value for name, value in found.items() if name not in fields})


def with_field(name: str, value: Any) -> str:
    return json.dumps({**json.loads(without()), name: value})


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_record_of_every_schema_can_be_read_whole(schema: str) -> None:
    found = record.read(written(schema))
    assert found.broken == ""
    assert found.current
    assert found.previous
    assert (found.current.release, found.previous.release) == ("38999c39", "e3bece8b")
    for entry in (found.current, found.previous):
        assert entry.group == f"qwen3-32b-{entry.release}"
        assert [one["kind"] for one in entry.objects] == ["RoleBasedGroup", "Service", "Service"]
        assert entry.volume
    assert found.promoted_at == "2026-11-20T08:00:00+00:00"
    assert (found.counter, found.run) == ((0, "") if schema == "schema-0" else (4, "nightly-6"))


def test_there_is_a_record_of_every_schema_up_to_the_one_that_is_written_and_one_of_the_future() -> None:
    numbers = [int(schema.split("-")[1]) for schema in SCHEMAS]
    assert numbers[: int(record.SCHEMA) + 1] == list(range(int(record.SCHEMA) + 1))
    assert numbers[-1] > int(record.SCHEMA)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_record_that_nothing_changes_keeps_what_another_slipway_wrote(schema: str) -> None:
    before = written(schema)
    found = record.read(before)
    assert found.current
    assert record.promoted(found, found.current, "nightly-9") == found
    after = record.record(service(), record.promoted(found, found.current, "nightly-9"))
    assert after["data"] == before["data"]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_promotion_raises_the_counter_by_one_and_names_its_run(schema: str) -> None:
    before = record.read(written(schema))
    after = record.promoted(before, ENTRY, "nightly-9")
    assert (after.counter, after.run, after.current, after.previous) == (
        before.counter + 1,
        "nightly-9",
        ENTRY,
        before.current,
    )
    data = record.record(service(), after)["data"]
    assert (data["schema"], data["counter"], data["run"]) == ("1", str(before.counter + 1), "nightly-9")
    assert record.read(live(record.record(service(), after))) == after


def test_the_first_promotion_begins_to_count() -> None:
    assert record.promoted(Record(), ENTRY, "nightly-1").counter == 1


BROKEN = {
    "not JSON": (spoilt(current="{"), "data.current: Expecting property name"),
    "cut off": (spoilt(current=without()[:-20]), "data.current: "),
    "no objects": (spoilt(current=without("objects")), "data.current: the objects of the release are missing"),
    "empty objects": (
        spoilt(current=with_field("objects", [])),
        "data.current: the objects of the release are missing",
    ),
    "objects of text": (spoilt(current=with_field("objects", ["a"])), "data.current: the objects of the release are"),
    "a group without roles": (
        spoilt(current=with_field("objects", [{**group_of(NEW), "spec": {}}])),
        "data.current: the objects of the release are missing, a RoleBasedGroup first",
    ),
    "another kind of value": (spoilt(current="[]"), "data.current: the objects of the release are missing"),
    "a number": (spoilt(current="7"), "data.current: the objects of the release are missing"),
    "null": (spoilt(current="null"), "data.current: the objects of the release are missing"),
    "no release": (spoilt(current=without("release")), "data.current: release is '', expected a text"),
    "a release of another type": (spoilt(current=with_field("release", 7)), "data.current: release is 7"),
    "nested without end": (spoilt(current=DEEP), "data.current: maximum recursion depth exceeded"),
    "a spoilt previous one": (spoilt(previous="{"), "data.previous: Expecting property name"),
    "a counter in words": (spoilt(counter="four"), "data.counter is 'four', expected a whole number"),
    "a negative counter": (spoilt(counter="-4"), "data.counter is '-4'"),
    "a counter of many digits": (spoilt(counter="9" * 5000), "data.counter is '999"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_record_is_named_with_its_config_map_what_is_broken_and_how_to_restore_it(case: str) -> None:
    manifest, what = BROKEN[case]
    found = record.read(manifest)
    assert found.broken.startswith("the release record ConfigMap/default/qwen3-32b-release cannot be read: ")
    assert what in found.broken
    assert "kubectl edit configmap qwen3-32b-release -n default" in record.mending(service(), found)
    assert (found.current is None) == ("data.current" in what)
    assert (found.previous is None) == ("data.previous" in what)
    assert found.counter == (0 if "data.counter" in what else 4)


def test_a_record_of_a_newer_slipway_that_cannot_be_read_says_so() -> None:
    found = record.read(spoilt(schema="7", current="{}"))
    assert found.broken.endswith("(it has the schema 7, and this Slipway writes 1)")


def test_a_sound_record_needs_no_mending() -> None:
    assert record.mending(service(), record.read(written("schema-1"))) == ""


@pytest.mark.parametrize("case", BROKEN)
def test_a_promotion_writes_a_broken_record_anew_above_the_counter_that_could_be_read(case: str) -> None:
    before = record.read(BROKEN[case][0])
    for entry in filter(None, (ENTRY, before.current)):
        after = record.read(live(record.record(service(), record.promoted(before, entry, "nightly-9"))))
        assert (after.broken, after.current, after.counter) == ("", entry, before.counter + 1)


def test_a_promotion_is_written_over_the_very_version_that_it_was_stamped_for() -> None:
    before = written("schema-1")
    planned = record.record(service(), record.promoted(record.read(before), ENTRY, "nightly-9"))
    assert record.stamped(planned, "now", before)["metadata"]["resourceVersion"] == "7"
    assert "resourceVersion" not in planned["metadata"]


@pytest.mark.parametrize("counter", ["3", "5"])
def test_a_promotion_is_not_written_over_that_of_another_run(counter: str) -> None:
    planned = record.record(service(), record.promoted(record.read(written("schema-1")), ENTRY, "nightly-9"))
    with pytest.raises(TransientError, match=f"just written by another run: its counter is {counter}"):
        record.stamped(planned, "now", spoilt(counter=counter))
    with pytest.raises(TransientError, match="its counter is 0"):
        record.stamped(planned, "now", None)
