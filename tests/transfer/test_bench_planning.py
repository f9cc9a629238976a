"""The benchmark of planning runs, at a size without meaning for its figures."""

import json
from pathlib import Path

import pytest

from tests.bench.planning import BASELINE, TARGETS, main


@pytest.mark.parametrize("commands", [0, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_a_tiny_bench_plans_in_every_way_and_prints_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], commands: int
) -> None:
    output = tmp_path / "bench" / "planning.json"
    small = ["--files=20", "--runs=1", f"--commands={commands}", f"--folder={tmp_path}", f"--output={output}"]
    assert main(small) == 0
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["cases"][BASELINE]["ratio"] == 1.0
    assert all(row.keys() == {"s", "ratio", "slowest_s"} for row in written["cases"].values())
    assert len(written.get("commands", ())) == 3 * commands
    assert [target["case"] for target in written["targets"]] == [name for name, _ in TARGETS]
    said = capsys.readouterr().out
    assert all(name in said for name in (*written["cases"], *written.get("commands", ())))
    assert [path.name for path in tmp_path.iterdir()] == ["bench"]
