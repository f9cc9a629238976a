"""The smoke test as a laptop runs it: rolled-out pods, reached through the proxy of the API server."""

from dataclasses import replace
from pathlib import Path

import pytest

from steps.adapters.kubernetes.cluster import connect as connect_cluster
from steps.adapters.sglang.client import connect as connect_inference
from steps.create_volume import CreateVolume
from steps.errors import Blocked
from steps.ports.oss import AccessKey
from steps.reconcile.clock import SystemClock
from steps.reconcile.converge import Outcome, check, converge
from steps.release import Release
from steps.roll_out_service import RollOutService
from steps.smoke_test import SmokeTest
from tests.support.fakes import RecordingReport, stored
from tests.support.pd_group import FAST as FAST_ENGINE
from tests.support.pd_group import write_model
from tests.support.samples import release
from workflows.simulator.core.cluster.controllers.timing import FAST
from workflows.simulator.faults.engine_faults import EngineFaults
from workflows.simulator.http.cluster import EmbeddedCluster
from workflows.simulator.http.engine import SglangRuntime

KEY = AccessKey("dummy-id", "dummy-secret")


def smoke_after_rollout(folder: Path, made: Release, script: EngineFaults, report: RecordingReport) -> Outcome:
    write_model(folder / "bucket" / "objects" / made.service.store.bucket / made.prefix)
    timing = replace(FAST, probe_scale=0.01)
    cluster = EmbeddedCluster(folder / "cluster", SglangRuntime(script, FAST_ENGINE), folder / "bucket", timing=timing)
    cluster.start()
    try:
        api, clock = connect_cluster(cluster.kubeconfig), SystemClock()
        converge(CreateVolume(made, api, KEY, stored(made)), RecordingReport(), clock)
        converge(RollOutService(made, api), RecordingReport(), clock)
        inference = connect_inference(cluster.kubeconfig)
        check(SmokeTest(made, api, inference), RecordingReport())
        return converge(SmokeTest(made, api, inference), report, clock)
    finally:
        cluster.stop()


def test_a_release_that_was_rolled_out_is_proved(tmp_path: Path) -> None:
    report = RecordingReport()
    outcome = smoke_after_rollout(tmp_path, release(name="demo"), EngineFaults(), report)
    assert outcome.outputs.pairs == "prefill-0 -> decode-0, prefill-1 -> decode-0"
    assert outcome.outputs.answer.startswith("simulated answer")
    assert "KV cache goes over RDMA device erdma_0 on every worker" in report.of("ok")


def test_a_pair_that_moves_nothing_is_found_although_all_is_ready(tmp_path: Path) -> None:
    broken = EngineFaults(broken_pairs=frozenset({("prefill-1", "decode-0")}))
    with pytest.raises(Blocked, match="prefill-1 -> decode-0: no answer, found 500: decode: KVTransferError"):
        smoke_after_rollout(tmp_path, release(name="demo"), broken, RecordingReport())
