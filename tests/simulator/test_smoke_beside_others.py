"""The smoke test while other clients are served: a healthy release is never red, and a broken one is where it shows."""

from collections import Counter
from pathlib import Path

import pytest

from steps.check_release import CheckRelease, Part
from steps.errors import Blocked, DeadlineExceeded
from steps.proof.probe_requests import ATTEMPTS
from steps.reconcile.converge import Past, converge
from steps.smoke_test import Outputs, SmokeTest
from steps.wiring import LOOKS_AT_ANSWERS
from tests.support.busy_group import Broken, BusyGroup, busy
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.pd_cluster import PdCluster
from tests.support.pd_group import PdGroup, pd_group


@pytest.fixture(scope="module")
def pd(tmp_path_factory: pytest.TempPathFactory) -> PdGroup:
    return pd_group(tmp_path_factory.mktemp("pd"))


def smoke(group: BusyGroup, report: RecordingReport | None = None) -> Outputs:
    last = [0.0]

    def during(seconds: float) -> None:
        group.advance(seconds - (last[0] or 1_000.0))
        last[0] = seconds

    step = SmokeTest(group.pd.release, PdCluster(group.pd), group)
    outputs: Outputs = converge(step, report or RecordingReport(), FakeClock(during)).outputs
    return outputs


@pytest.mark.parametrize(
    ("rate", "runs", "overrides"),
    [
        (1, 70, ()),
        (3, 72, ()),
        (10, 24, ()),
        (33, 4, ()),
        (3, 26, ("serving.tensorParallel=2",)),
        (3, 4, ("serving.prefill.replicas=4", "serving.decode.replicas=2")),
    ],
)
def test_a_healthy_release_is_green_whatever_others_ask(
    tmp_path: Path, rate: float, runs: int, overrides: tuple[str, ...]
) -> None:
    group, found = pd_group(tmp_path, None, *overrides), Counter[str]()
    wanted = group.release.replicas["prefill"] * group.release.replicas["decode"]
    for seed in range(runs):
        outputs = smoke(busy(group, rate, seed, hang_up=0.2))
        counted, hidden = outputs.pairs.count("->"), outputs.pairs_not_attributable.count("->")
        assert counted + hidden == wanted, seed
        assert outputs.requests <= 2 * max(wanted, 2) + ATTEMPTS * wanted, seed
        found.update(counted=counted, hidden=hidden)
    assert found["counted"] or rate > 10
    assert found["hidden"] or rate < 10


@pytest.mark.parametrize("rate", [3, 10])
def test_a_quiet_night_finds_nothing_to_do_beside_others(pd: PdGroup, rate: float) -> None:
    for seed in range(10):
        group = busy(pd, rate, seed, hang_up=0.2)
        step = SmokeTest(group.pd.release, PdCluster(group.pd), group)
        night = CheckRelease(group.pd.release, (Part("smoke-test", lambda step=step: step, looks=LOOKS_AT_ANSWERS),))  # type: ignore[misc]
        while (facts := night.observe(Past())).waits:
            group.advance(1.0)
        assert facts.stale == ""


def test_a_quiet_release_has_all_its_bytes_counted(pd: PdGroup) -> None:
    for seed in range(5):
        outputs = smoke(busy(pd, 0, seed))
        assert (outputs.pairs.count("->"), outputs.pairs_not_attributable, outputs.requests) == (2, "", 2)


@pytest.mark.parametrize("rate", [0, 1, 3, 10])
@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (Broken(pairs=frozenset({("prefill-1", "decode-0")})), "prefill-1 -> decode-0: no answer, found 500"),
        (Broken(wrong=frozenset({"decode-0"})), "decode works with other weights or broken KV cache"),
        (Broken(hung=frozenset({"prefill-1"})), "no answer, found no end of the request within 60 s"),
        (Broken(silent=frozenset({"prefill-1"})), "no prefill worker sent KV cache: found 0 transfers"),
    ],
)
def test_what_an_answer_shows_is_red_whatever_others_ask(pd: PdGroup, broken: Broken, says: str, rate: float) -> None:
    for seed in range(3):
        with pytest.raises(Blocked) as caught:
            smoke(busy(pd, rate, seed, broken))
        assert says in caught.value.reason


def test_a_worker_that_is_down_is_no_success_either(pd: PdGroup) -> None:
    with pytest.raises(DeadlineExceeded, match="decode-0:8000 cannot be reached"):
        smoke(busy(pd, 3, 1, Broken(down=frozenset({"decode-0"}))))


@pytest.mark.parametrize("overrides", [(), ("serving.tensorParallel=2",)])
def test_a_tenth_of_the_kv_cache_is_red_at_rest_and_never_counts_as_proved(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    group, tenth = pd_group(tmp_path, None, *overrides), Broken(share=0.1)
    with pytest.raises(Blocked, match="of KV cache for"):
        smoke(busy(group, 0, 1, tenth))
    for seed in range(8):
        try:
            pairs = smoke(busy(group, 10, seed, tenth)).pairs
        except Blocked:
            continue
        assert pairs == ""
