"""Retry begins with the task that failed, whatever it left behind: a step cut off at any write goes on where it was.

For promote-release, tests/contract/test_release_life.py holds the same.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steps.create_volume import CreateVolume
from steps.errors import Blocked, Interrupted
from steps.kinds import V1ALPHA1, Kind, Manifest, Ref
from steps.objects.group_operator import ask
from steps.objects.services import traffic_service_ref
from steps.ports.kubernetes import Cluster
from steps.reconcile.converge import Step
from steps.roll_out_service import RollOutService
from steps.smoke_test import SmokeTest
from tests.support.live_cluster import KEY, LiveCluster, live_cluster
from tests.support.samples import release

pytestmark = pytest.mark.exhaustive

OLD, CANDIDATE = (release("serving.prefill.replicas=1", digest="sha256:" + digit * 64) for digit in "12")
MOST = 20  # writes of one step; more would be a loop


class CutOff:
    """A cluster whose caller is killed right after a number of writes."""

    def __init__(self, cluster: Cluster, writes: int) -> None:
        self._cluster = cluster
        self._left = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def apply(self, wanted: Manifest) -> None:
        self._cluster.apply(wanted)
        self._count()

    def delete(self, ref: Ref, uid: str) -> None:
        self._cluster.delete(ref, uid)
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Interrupted("killed")


def broken(live: LiveCluster) -> None:
    """The run that failed took the recorded group away, and left its own and the traffic on nothing."""
    live.serve(OLD)
    for step in (live.volume(CANDIDATE), live.rollout(CANDIDATE)):
        live.run(step)
    group = Ref(Kind(V1ALPHA1, "RoleBasedGroup"), OLD.group, "default")
    found = live.port.get(group)
    assert found
    live.port.delete(group, found["metadata"]["uid"])
    live.patch(traffic_service_ref(OLD.service), {"spec": {"selector": {"slipway/release": "astray"}}})


Case = tuple[Callable[[LiveCluster], Any], Callable[[LiveCluster, Cluster], Step[Any]]]
CASES: dict[str, Case] = {
    "create-volume": (lambda _: None, lambda live, port: CreateVolume(live.store(OLD), port, KEY, live.manifest(OLD))),
    "roll-out-service": (lambda live: live.run(live.volume(OLD)), lambda _, port: RollOutService(OLD, port)),
    "roll-back": (broken, lambda live, port: replace(live, port=port).way_back("smoke-test")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_step_that_was_killed_after_any_write_ends_as_if_it_never_was(name: str, tmp_path: Path) -> None:
    before, make = CASES[name]
    whole = _ends(tmp_path / "whole", before, make, cut_after=0)
    cuts = 0
    for writes in range(1, MOST):
        found = _ends(tmp_path / str(writes), before, make, cut_after=writes)
        if found is None:
            break
        assert found == whole
        cuts += 1
    assert 2 <= cuts < MOST - 1


def test_a_release_that_the_end_of_the_run_took_away_is_not_waited_for_but_told(tmp_path: Path) -> None:
    with live_cluster(tmp_path) as live:
        for step in (live.volume(OLD), live.rollout(OLD)):
            live.run(step)
        live.run(live.way_back("smoke-test"))
        for again in (SmokeTest(OLD, live.port, Nobody()), live.promotion(OLD)):  # type: ignore[arg-type]
            with pytest.raises(Blocked, match=r"submit a new run; .* Retry does not bring it back"):
                live.run(again)
        live.run(live.rollout(OLD))  # as a new run does, or a Retry of the rollout itself


class Nobody:
    """No engine is asked."""


def _ends(
    folder: Path,
    before: Callable[[LiveCluster], Any],
    make: Callable[[LiveCluster, Cluster], Step[Any]],
    cut_after: int,
) -> dict[str, Any] | None:
    """What is there in the end, without what differs from one cluster to the next; None if nothing was cut off."""
    with live_cluster(folder) as live:
        before(live)
        if cut_after:
            try:
                live.run(make(live, CutOff(live.port, cut_after)))
            except Interrupted:
                pass
            else:
                return None
        live.run(make(live, live.port))
        report, outcome = live.run(make(live, live.port))
        assert outcome.changes == ()
        assert report.of("changed") == []
        assert ask(live.port)
        return {name: _lasting(found) for name, found in live.objects().items()}


def _lasting(found: dict[str, Any]) -> dict[str, Any]:
    """The release record tells when; everything else must be the same."""
    data = {key: value for key, value in (found.get("data") or {}).items() if key != "promotedAt"}
    metadata = {key: found["metadata"][key] for key in ("labels", "annotations")}
    return {"metadata": metadata, "spec": _without_addresses(found.get("spec") or {}), "data": data}


def _without_addresses(spec: dict[str, Any]) -> dict[str, Any]:
    drawn = ("clusterIP", "clusterIPs", "claimRef", "ports")
    return {key: value for key, value in spec.items() if key not in drawn}
