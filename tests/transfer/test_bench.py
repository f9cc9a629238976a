"""The benchmark runs, at a size without meaning for its figures."""

import json
from pathlib import Path

import pytest

from tests.bench.report import TARGETS
from tests.bench.transfer import main
from tests.bench.variants import AS_FAST_AS_IT_GOES, OVER_A_SLOW_WIRE

VARIANTS = {**AS_FAST_AS_IT_GOES, **OVER_A_SLOW_WIRE}
COLUMNS = {"cpu_s_per_gb", "wall_s", "gb", "rss_mib", "disk_bytes", "ratio_cpu", "ratio_wall"}


@pytest.mark.exhaustive
def test_a_tiny_bench_moves_everything_in_every_way_and_prints_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bench" / "transfer.json"
    small = ["--gb=0.02", "--runs=1", "--single=0.02,0.03", f"--folder={tmp_path}", f"--output={output}"]
    assert main(small) == 0
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["variants"].keys() == {*VARIANTS, "one file of 0.02 GB", "one file of 0.03 GB"}
    for row in written["variants"].values():
        assert row.keys() >= COLUMNS
    assert written["variants"]["baseline"]["ratio_cpu"] == 1.0
    assert written["variants"]["streamed"]["disk_bytes"] == 0
    judged = [(target["variant"], target["what"]) for target in written["targets"]]
    assert judged[: len(TARGETS)] == [item[:2] for item in TARGETS]
    assert judged[len(TARGETS) :] == [(f"one file of {size} GB", "rss_mib") for size in ("0.02", "0.03", "0.03")]
    assert written["variants"]["streamed, 2 shards"]["speedup"] > 0
    said = capsys.readouterr().out
    assert all(name in said for name in VARIANTS)
    assert [path.name for path in tmp_path.iterdir()] == ["bench"]
