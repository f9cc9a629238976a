"""A difference is named by its path, and a Secret never shows its values."""

import copy
from typing import Any

import pytest

from steps.kinds import FIELD_MANAGER, Manifest
from steps.objects.converging import Apply, Delete, ObjectObservation, deletion, observe_object, plan_objects
from steps.objects.difference import differences, reason
from steps.objects.field_managers import last_writer, owns
from steps.objects.volume import secret
from steps.ports.oss import AccessKey
from steps.reconcile.plan import Change
from tests.support.group_objects import absent, as_wanted, deleted, group_of, live
from tests.support.samples import release

KEY = AccessKey("dummy-id", "dummy-secret")


def changed(manifest: Manifest, *path: Any, to: Any) -> Manifest:
    found = copy.deepcopy(manifest)
    place = found
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return found


def managed(manager: str, moment: str, **more: str) -> dict[str, str]:
    return {"manager": manager, "operation": "Update", "time": moment, **more}


def test_replicas_of_a_role_are_named_by_the_role() -> None:
    before = live(group_of(release()))
    after = live(group_of(release("serving.decode.replicas=3")))
    after["spec"]["roles"][2] = before["spec"]["roles"][2]
    assert reason(differences(before, after)) == "spec.roles[decode].replicas: 1 -> 3"


def test_what_the_server_adds_is_no_difference() -> None:
    one, other = live(group_of(release())), live(group_of(release()), generation=9, observedGeneration=3)
    other["metadata"]["managedFields"] = [managed("kubectl", "2026-11-20T08:00:00Z")]
    assert differences(one, other) == []


def test_a_long_value_is_named_but_not_shown() -> None:
    before = live(group_of(release()))
    after = live(group_of(release("serving.prefill.replicas=3")))
    words = reason(differences(before, after))
    assert words == (
        "spec.roles[prefill].replicas: 2 -> 3; spec.roles[router].template.spec.containers[router].args differs"
    )


def test_more_than_three_differences_are_counted() -> None:
    before = live({"kind": "ConfigMap", "metadata": {"name": "x"}, "data": {}})
    after = changed(before, "data", to=dict.fromkeys("abcde", "1"))
    assert reason(differences(before, after)) == (
        "data.a: absent -> 1; data.b: absent -> 1; data.c: absent -> 1; and 2 more"
    )


def test_a_hash_alone_is_named() -> None:
    before = live(group_of(release()))
    labels = ("spec", "roles", 0, "template", "metadata", "labels", "slipway/spec-hash")
    assert reason(differences(before, changed(before, *labels, to="other"))).endswith("-> other")


def test_a_changed_secret_shows_no_value_anywhere() -> None:
    before = live(secret(release(), AccessKey("dummy-id", "old-dummy")))
    before["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": str(before["data"]),
    }
    wanted = secret(release(), KEY)
    (change,) = plan_objects([ObjectObservation(wanted, before, live(wanted))]).changes
    shown = f"{change} {change.reason} {change.before} {change.after} {change!r}"
    for values in (before["data"], wanted["data"]):
        assert not any(value in shown for value in values.values())
    assert "data.akSecret" in change.reason
    assert change.before != change.after


def test_absent_wanted_and_leaving_objects_are_planned_as_such() -> None:
    one, two, three = (
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}} for name in "abc"
    )
    leaving = deleted(live(three))
    leaving["metadata"]["finalizers"] = ["kubernetes.io/pvc-protection"]
    plan = plan_objects([absent(one), as_wanted(two), ObjectObservation(three, leaving, None)])
    assert [str(change) for change in plan.changes] == ["create ConfigMap/default/a (absent)"]
    assert plan.ok == ("ConfigMap/default/b",)
    assert plan.waiting == (
        "ConfigMap/default/c to be gone: it is being deleted, held by kubernetes.io/pvc-protection",
    )


@pytest.mark.parametrize(
    ("entries", "writer"),
    [
        ([], ""),
        ([managed(FIELD_MANAGER, "2026-11-20T08:00:00Z")], ""),
        ([managed("kcm", "2026-11-20T08:00:00Z", subresource="status")], ""),
        (
            [
                managed("kubectl-edit", "2026-11-20T08:00:00Z"),
                managed("hpa", "2026-11-20T09:00:00Z"),
                managed(FIELD_MANAGER, "2026-11-20T10:00:00Z"),
            ],
            "hpa (Update at 2026-11-20T09:00:00Z)",
        ),
    ],
)
def test_the_last_writer_is_the_newest_that_is_not_slipway(entries: list[dict[str, str]], writer: str) -> None:
    assert last_writer({"metadata": {"name": "x", "managedFields": entries}}) == writer


FIELDS = {
    "f:metadata": {"f:labels": {".": {}, "f:team": {}}},
    "f:spec": {
        "f:roles": {'k:{"name":"decode"}': {".": {}, "f:replicas": {}, "f:template": {}}},
        "f:selector": {},
        "f:ports": {'k:{"port":8000,"protocol":"TCP"}': {"f:targetPort": {}}},
    },
}


@pytest.mark.parametrize(
    ("path", "owned"),
    [
        (("metadata", "labels", "team"), True),
        (("metadata", "labels", "other"), False),
        (("spec", "roles", "decode", "replicas"), True),
        (("spec", "roles", "decode", "name"), False),
        (("spec", "roles", "decode", "template", "spec", "containers"), True),
        (("spec", "roles", "prefill", "replicas"), False),
        (("spec", "selector", "slipway/role"), True),
        (("spec", "ports"), True),
        (("data",), False),
    ],
)
def test_ownership_of_a_field_is_read_as_the_server_writes_it(path: tuple[str, ...], owned: bool) -> None:
    assert owns(FIELDS, path) is owned


def test_who_wrote_the_field_is_named_before_who_wrote_last() -> None:
    owner = {**managed("kubectl-scale", "2026-11-20T08:00:00Z"), "fieldsV1": FIELDS}
    other = {**managed("webhook", "2026-11-20T09:00:00Z"), "fieldsV1": {"f:data": {}}}
    found = {"metadata": {"name": "x", "managedFields": [other, owner]}}
    assert last_writer(found, [("spec", "roles", "decode", "replicas")]).startswith("kubectl-scale")
    assert last_writer(found, [("status",)]).startswith("webhook")


def test_a_change_stays_the_same_change_however_it_is_undone() -> None:
    """Two controllers that fight would else go on for ever, with another value each time."""
    wanted = group_of(release())
    drifts = [live(changed(wanted, "spec", "roles", 1, "replicas", to=count)) for count in (4, 5)]
    first, second = (plan_objects([ObjectObservation(wanted, drift, live(wanted))]).changes[0] for drift in drifts)
    assert first == second
    assert first.reason != second.reason
    assert deletion(live(wanted, uid="1"), "") == deletion(live(wanted, uid="2"), "")
    assert Change("update", "x", payload=Apply({"a": 1})) != Change("update", "x", payload=Apply({"a": 2}))
    assert isinstance(deletion(live(wanted, uid="1"), "").payload, Delete)


class Busy:
    """A cluster in which a controller writes between a read and a preview, a number of times."""

    def __init__(self, writes: int) -> None:
        self.revision = 1
        self.writes = writes

    def get(self, _ref: Any) -> Manifest:
        return self._object()

    def preview(self, _wanted: Manifest) -> Manifest:
        if self.writes:
            self.writes -= 1
            self.revision += 1
        return self._object()

    def _object(self) -> Manifest:
        metadata = {"name": "x", "resourceVersion": str(self.revision)}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"uid": str(self.revision)}}


@pytest.mark.parametrize(("writes", "differs"), [(0, False), (1, False), (3, False), (99, True)])
def test_what_a_controller_writes_between_two_reads_is_no_difference(writes: int, differs: bool) -> None:
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    cluster: Any = Busy(writes)
    assert bool(plan_objects([observe_object(cluster, wanted)]).changes) is differs
