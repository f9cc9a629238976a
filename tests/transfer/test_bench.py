"""The benchmark runs, at a size at which its figures mean nothing."""

import json
from pathlib import Path

import pytest

from tests.bench.transfer import TARGETS, VARIANTS, main

COLUMNS = {"cpu_s_per_gb", "wall_s", "gb", "rss_mib", "disk_bytes", "ratio_cpu", "ratio_wall"}


def test_a_tiny_bench_moves_everything_in_every_way_and_prints_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bench" / "transfer.json"
    small = ["--gb=0.02", "--runs=1", "--single=0.02", f"--folder={tmp_path}", f"--output={output}"]
    assert main(small) == 0
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["variants"].keys() == {*VARIANTS, "streamed, one file of 0.02 GB"}
    for row in written["variants"].values():
        assert row.keys() >= COLUMNS
    assert written["variants"]["baseline"]["ratio_cpu"] == 1.0
    assert written["variants"]["streamed"]["disk_bytes"] == 0
    assert [(target["variant"], target["what"]) for target in written["targets"]] == [item[:2] for item in TARGETS]
    said = capsys.readouterr().out
    assert all(name in said for name in VARIANTS)
    assert [path.name for path in tmp_path.iterdir()] == ["bench"]
