"""A local run that was killed goes on as the same writer; one that ended makes room for a name of its own."""

from pathlib import Path

from workflows.rehearsal import RUN_NAME, _run_name


def test_a_killed_run_goes_on_under_its_name(tmp_path: Path) -> None:
    (tmp_path / RUN_NAME).write_text("local-20261122-030000", encoding="utf-8")
    assert _run_name(tmp_path) == "local-20261122-030000"


def test_a_new_run_is_named_and_remembered_until_it_ends(tmp_path: Path) -> None:
    name = _run_name(tmp_path)
    assert name.startswith("local-20")
    assert (tmp_path / RUN_NAME).read_text(encoding="utf-8") == name
