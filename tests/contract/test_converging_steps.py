"""Every step that changes something keeps the same promises, whatever it changes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from steps.errors import DeadlineExceeded, NotConverging
from steps.kinds import POD, V1ALPHA1, Kind, Manifest, Ref
from steps.objects import volume
from steps.objects.services import traffic_service_ref
from steps.ports.kubernetes import Cluster
from steps.reconcile.converge import Step
from tests.support.live_cluster import SABOTEUR, LiveCluster, live_cluster
from tests.support.samples import release
from workflows.simulator.core.cluster.controllers.timing import FAST

RELEASE = release()
IMPATIENT = release("rollout.deadlineMinutes=1", "volume.deadlineMinutes=1")  # the same release, given less time
GROUP = Ref(Kind(V1ALPHA1, "RoleBasedGroup"), RELEASE.group, "default")


@dataclass(frozen=True)
class Case:
    """One changing step, with what somebody may do to what it made."""

    before: Callable[[LiveCluster], Any]  # what earlier steps do
    step: Callable[[LiveCluster], Step[Any]]
    victim: Ref
    drift: dict[str, Any]
    words: str  # the difference, as it is told


def serve_and_lead_astray(live: LiveCluster) -> None:
    live.serve(RELEASE)
    live.patch(traffic_service_ref(RELEASE.service), {"spec": {"selector": {"slipway/release": "astray"}}})


CASES = {
    "create-volume": Case(
        before=lambda _: None,
        step=lambda live: live.volume(RELEASE),
        victim=volume.volume_ref(RELEASE),
        drift={"spec": {"persistentVolumeReclaimPolicy": "Delete"}},
        words="spec.persistentVolumeReclaimPolicy: Delete -> Retain",
    ),
    "roll-out-service": Case(
        before=lambda live: live.run(live.volume(RELEASE)),
        step=lambda live: live.rollout(RELEASE),
        victim=Ref(Kind("v1", "Service"), RELEASE.group, "default"),
        drift={"spec": {"selector": {"slipway/role": "decode"}}},
        words="spec.selector[slipway/role]: decode -> router",
    ),
    "promote-release": Case(
        before=lambda live: [live.run(step) for step in (live.volume(RELEASE), live.rollout(RELEASE))],
        step=lambda live: live.promotion(RELEASE),
        victim=traffic_service_ref(RELEASE.service),
        drift={"spec": {"selector": {"slipway/release": "0ld"}}},
        words=f"spec.selector[slipway/release]: 0ld -> {RELEASE.id}",
    ),
    "roll-back": Case(
        before=serve_and_lead_astray,
        step=lambda live: live.way_back("smoke-test"),
        victim=traffic_service_ref(RELEASE.service),
        drift={"spec": {"selector": {"slipway/release": "0ld"}}},
        words=f"spec.selector[slipway/release]: 0ld -> {RELEASE.id}",
    ),
}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveCluster]:
    # A group that is ready stays ready: what a step finds does not depend on the moment in which it looks.
    with live_cluster(tmp_path, timing=replace(FAST, flap=0.0)) as found:
        yield found


@pytest.mark.parametrize("name", CASES)
def test_a_check_writes_nothing_and_predicts_the_run(live: LiveCluster, name: str) -> None:
    case = CASES[name]
    case.before(live)
    before = live.objects()
    predicted = live.check(case.step(live)).of("changed")
    assert live.objects() == before
    report, _ = live.run(case.step(live))
    assert predicted
    assert report.of("changed") == predicted


@pytest.mark.parametrize("name", CASES)
def test_a_second_run_changes_nothing(live: LiveCluster, name: str) -> None:
    case = CASES[name]
    case.before(live)
    _, first = live.run(case.step(live))
    before = live.objects()
    report, second = live.run(case.step(live))
    assert not report.of("changed")
    assert not report.of("waiting")
    assert live.objects() == before
    assert name == "roll-back" or second.outputs == first.outputs


@pytest.mark.parametrize("name", CASES)
def test_drift_is_repaired_and_named(live: LiveCluster, name: str) -> None:
    case = CASES[name]
    case.before(live)
    live.run(case.step(live))
    before = live.objects()
    live.patch(case.victim, case.drift)
    report, outcome = live.run(case.step(live))
    assert report.of("changed") == [f"update {case.victim} ({case.words})"]
    assert outcome.changes[0].last_writer.startswith(SABOTEUR)
    assert live.objects() == before


class Undone:
    """The port, with somebody behind it who undoes each change of one object at once."""

    def __init__(self, live: LiveCluster, case: Case) -> None:
        self._live = live
        self._case = case

    def __getattr__(self, name: str) -> Any:
        return getattr(self._live.port, name)

    def apply(self, wanted: Manifest) -> None:
        self._live.port.apply(wanted)
        if Ref.of(wanted) == self._case.victim:
            self._live.patch(self._case.victim, self._case.drift)


@pytest.mark.parametrize("name", CASES)
def test_whoever_undoes_a_change_is_named(live: LiveCluster, name: str) -> None:
    case = CASES[name]
    case.before(live)
    live.run(case.step(live))
    live.patch(case.victim, case.drift)
    honest: Cluster = live.port
    live.port = Undone(LiveCluster(live.embedded, honest, live.bucket), case)
    with pytest.raises(NotConverging, match=f"last written by {SABOTEUR}"):
        live.run(case.step(live))


def never_bound(live: LiveCluster) -> Step[Any]:
    live.freeze()
    return live.volume(IMPATIENT)


def never_started(live: LiveCluster) -> Step[Any]:
    live.run(live.volume(RELEASE))
    live.freeze()
    return live.rollout(IMPATIENT)


def never_ready(live: LiveCluster) -> Step[Any]:
    for step in (live.volume(RELEASE), live.rollout(RELEASE)):
        live.run(step)
    live.freeze()
    (router,) = live.port.select(POD, "default", {"slipway/role": "router"})
    pods = live.embedded.store.registry.kind("v1", "Pod")
    assert pods is not None
    conditions = [{"type": "Ready", "status": "False"}]
    live.embedded.store.replace(
        pods, {**router, "status": {**router["status"], "conditions": conditions}}, subresource="status"
    )
    return live.promotion(RELEASE)


def never_back(live: LiveCluster) -> Step[Any]:
    live.serve(RELEASE)
    found = live.port.get(GROUP)
    assert found is not None
    live.port.delete(GROUP, found["metadata"]["uid"])
    live.settle(lambda: not live.port.select(POD, "default", {"slipway/service": "qwen3-32b"}))
    live.freeze()
    return live.way_back("smoke-test", of=IMPATIENT.service)


@pytest.mark.parametrize(
    ("stuck", "words"),
    [
        (never_bound, "is Pending"),
        (never_started, "prefill 0/2 ready"),
        (never_ready, "router 0/1 ready"),
        (never_back, "prefill 0/2 ready"),
    ],
)
def test_a_step_gives_up_at_its_deadline_and_says_what_is_missing(
    live: LiveCluster, stuck: Callable[[LiveCluster], Step[Any]], words: str
) -> None:
    step = stuck(live)
    started = live.clock.now()
    with pytest.raises(DeadlineExceeded, match=words):
        live.run(step)
    assert live.clock.now() - started >= step.deadline
