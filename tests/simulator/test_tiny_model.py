import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from workflows.simulator.tiny_model import DEMO, SMALL, Dimensions, tensors, write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "slipway" / "Qwen3-small"
    write_tiny_model(folder, SMALL)
    return folder


def header_of(shard: Path) -> tuple[dict[str, Any], bytes]:
    """The tensors of a safetensors file and its data. https://github.com/huggingface/safetensors#format"""
    content = shard.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    return header, content[8 + length :]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_tensors_of_each_shard_cover_its_bytes_without_a_gap(model: Path) -> None:
    for shard in model.glob("*.safetensors"):
        header, data = header_of(shard)
        end = 0
        for tensor in header.values():
            begin, stop = tensor["data_offsets"]
            count = 1
            for length in tensor["shape"]:
                count *= length
            assert (tensor["dtype"], begin, stop - begin) == ("BF16", end, 2 * count)
            end = stop
        assert end == len(data)


def test_the_data_of_each_shard_is_aligned(model: Path) -> None:
    for shard in model.glob("*.safetensors"):
        assert struct.unpack("<Q", shard.read_bytes()[:8])[0] % 8 == 0


def test_no_weight_is_infinite_or_not_a_number_and_all_are_small(model: Path) -> None:
    for shard in model.glob("*.safetensors"):
        _, data = header_of(shard)
        # A bfloat16 is the upper half of a float32; the exponent of infinity and of NaN is all ones.
        exponents = {(value >> 7) & 0xFF for (value,) in struct.iter_unpack("<H", data)}
        assert 0xFF not in exponents
        assert exponents <= {118, 119, 120, 121, 127}  # 0.002 to 0.031, and 1.0


def test_the_weights_are_not_all_the_same(model: Path) -> None:
    shard = next(model.glob("*.safetensors"))
    header, data = header_of(shard)
    begin, end = next(tensor["data_offsets"] for tensor in header.values() if len(tensor["shape"]) > 1)
    values = [value for (value,) in struct.iter_unpack("<H", data[begin:end])]
    assert len(set(values)) > 500
    assert 0.4 < sum(value >> 15 for value in values) / len(values) < 0.6  # signs


def test_the_index_names_the_shard_of_every_tensor(model: Path) -> None:
    index = read_json(model / "model.safetensors.index.json")
    found = {name: shard.name for shard in model.glob("*.safetensors") for name in header_of(shard)[0]}
    assert index["weight_map"] == found
    assert set(found) == {tensor.name for tensor in tensors(SMALL)}
    assert index["metadata"]["total_size"] == sum(tensor.size for tensor in tensors(SMALL))


def test_the_config_tells_the_shapes_of_the_weights(model: Path) -> None:
    config = read_json(model / "config.json")
    shapes = {
        name: tensor["shape"] for shard in model.glob("*.safetensors") for name, tensor in header_of(shard)[0].items()
    }
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert shapes["model.embed_tokens.weight"] == [config["vocab_size"], config["hidden_size"]]
    assert shapes["model.layers.0.self_attn.k_proj.weight"] == [
        config["num_key_value_heads"] * config["head_dim"],
        config["hidden_size"],
    ]
    assert shapes["model.layers.2.mlp.down_proj.weight"] == [config["hidden_size"], config["intermediate_size"]]
    assert f"model.layers.{config['num_hidden_layers']}.input_layernorm.weight" not in shapes


def test_the_tokenizer_files_agree_with_each_other_and_fit_the_vocabulary(model: Path) -> None:
    config, tokenizer = read_json(model / "config.json"), read_json(model / "tokenizer.json")
    vocabulary = read_json(model / "vocab.json")
    merges = (model / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert tokenizer["model"]["vocab"] == vocabulary
    assert tokenizer["model"]["merges"] == merges
    assert all(merge.replace(" ", "") in vocabulary for merge in merges)
    ids = [*vocabulary.values(), *added.values()]
    assert sorted(ids) == list(range(len(ids)))
    assert len(ids) <= config["vocab_size"]
    assert config["eos_token_id"] == added["<|im_end|>"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        shards = sorted(folder.glob("*.safetensors"))
        return hashlib.sha256(b"".join(shard.read_bytes() for shard in shards)).hexdigest()

    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_tiny_model(tmp_path / name, SMALL, seed=seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_the_model_of_the_demo_has_about_96_megabytes_in_several_even_shards(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model", DEMO)
    sizes = [shard.stat().st_size for shard in (tmp_path / "model").glob("*.safetensors")]
    assert len(sizes) == 4
    assert 90e6 < sum(sizes) < 102e6
    assert max(sizes) < 1.3 * min(sizes)


def test_a_folder_that_is_there_already_is_left_as_it_is(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model", SMALL)
    (tmp_path / "model" / "README.md").write_text("edited by a person", encoding="utf-8")
    write_tiny_model(tmp_path / "model", SMALL)
    assert (tmp_path / "model" / "README.md").read_text(encoding="utf-8") == "edited by a person"


def test_what_a_killed_start_left_is_not_a_model_and_is_made_anew(tmp_path: Path) -> None:
    draft = tmp_path / ".model.draft"
    draft.mkdir()
    (draft / "model-00001-of-00003.safetensors").write_bytes(b"half")
    (draft / "left-over.json").write_bytes(b"{")
    write_tiny_model(tmp_path / "model", SMALL)
    assert not draft.exists()
    assert not (tmp_path / "model" / "left-over.json").exists()
    header_of(tmp_path / "model" / "model-00001-of-00003.safetensors")


def test_there_are_never_more_shards_than_tensors(tmp_path: Path) -> None:
    tiny = Dimensions(hidden=8, intermediate=8, layers=1, heads=1, kv_heads=1, head=8, vocabulary=300, shards=50)
    write_tiny_model(tmp_path / "model", tiny)
    shards = [shard.name for shard in (tmp_path / "model").glob("*.safetensors")]
    assert 1 < len(shards) <= len(tensors(tiny))
    assert {name[-17:] for name in shards} == {f"{len(shards):05}.safetensors"}
