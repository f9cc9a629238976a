"""The model of the embedded hub: whole for an engine, the same each time, and never half written."""

from pathlib import Path

from workflows.simulator.core.engine import loaded_model
from workflows.simulator.core.hub.sample_model import KV_BYTES_PER_TOKEN, write_model

SIZE, SHARDS = 30_000, 3


def test_an_engine_loads_it(tmp_path: Path) -> None:
    model = loaded_model.load(write_model(tmp_path / "model", SIZE, SHARDS), "/models/sample")
    assert len(model.checksums) == SHARDS
    assert model.kv_bytes_per_token(1) == KV_BYTES_PER_TOKEN


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    digests = [
        loaded_model.load(write_model(tmp_path / name, SIZE, SHARDS, seed), name).digest
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_folder_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    readme = write_model(tmp_path / "model", SIZE, SHARDS) / "README.md"
    readme.write_text("edited by a person", encoding="utf-8")
    write_model(tmp_path / "model", SIZE, SHARDS)
    assert readme.read_text(encoding="utf-8") == "edited by a person"


def test_the_draft_of_a_killed_start_is_not_a_model_and_is_made_anew(tmp_path: Path) -> None:
    draft = tmp_path / ".model.draft"
    draft.mkdir()
    (draft / "left-over.json").write_bytes(b"{")
    model = write_model(tmp_path / "model", SIZE, SHARDS)
    assert not draft.exists()
    assert not (model / "left-over.json").exists()
    loaded_model.load(model, "/models/sample")
