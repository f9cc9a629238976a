"""A real, small model in the shape of Qwen3, with random weights: what the embedded hub serves when it starts first.

The layout is the one of https://huggingface.co/Qwen/Qwen3-32B: tensors by the names of `Qwen3ForCausalLM`, in several
safetensors files with an index. The same seed gives the same bytes.
"""

import hashlib
import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.simulator.tiny_tokenizer import SPECIALS, VOCABULARY, merges, tokenizer, tokenizer_config

BYTES_OF_BF16 = 2


@dataclass(frozen=True)
class Dimensions:
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head: int  # width of one attention head
    vocabulary: int
    shards: int  # safetensors files


DEMO = Dimensions(
    hidden=512, intermediate=1536, layers=14, heads=8, kv_heads=4, head=64, vocabulary=4096, shards=4
)  # about 96 MB
SMALL = Dimensions(
    hidden=96, intermediate=288, layers=3, heads=4, kv_heads=2, head=24, vocabulary=640, shards=3
)  # about 1 MB, for tests


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        count = BYTES_OF_BF16
        for length in self.shape:
            count *= length
        return count


def write_tiny_model(folder: Path, dimensions: Dimensions = DEMO, *, seed: int = 0) -> None:
    """Write the model to `folder`, unless the folder is there already.

    The files are made in a draft beside it, which is renamed at the end: a start that is killed leaves nothing that
    looks like a model.
    """
    if folder.exists():
        return
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _write_texts(draft, dimensions, folder.name)
    _write_weights(draft, dimensions, seed)
    draft.rename(folder)


def tensors(dimensions: Dimensions) -> list[Tensor]:
    """Names and shapes, as in `transformers` `models/qwen3/modeling_qwen3.py`."""
    hidden, head = dimensions.hidden, dimensions.head
    query, key = dimensions.heads * head, dimensions.kv_heads * head
    of_a_layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query),
        "self_attn.q_norm": (head,),
        "self_attn.k_norm": (head,),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (dimensions.intermediate, hidden),
        "mlp.up_proj": (dimensions.intermediate, hidden),
        "mlp.down_proj": (hidden, dimensions.intermediate),
    }
    layers = [
        Tensor(f"model.layers.{layer}.{name}.weight", shape)
        for layer in range(dimensions.layers)
        for name, shape in of_a_layer.items()
    ]
    embedding = Tensor("model.embed_tokens.weight", (dimensions.vocabulary, hidden))
    head_weight = Tensor("lm_head.weight", (dimensions.vocabulary, hidden))
    return [embedding, *layers, Tensor("model.norm.weight", (hidden,)), head_weight]


def _write_weights(folder: Path, dimensions: Dimensions, seed: int) -> None:
    shards = _split(tensors(dimensions), dimensions.shards)
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map.update(dict.fromkeys((tensor.name for tensor in shard), name))
        with (folder / name).open("wb") as file:
            file.write(_header(shard))
            file.writelines(_values(tensor, seed) for tensor in shard)
    total = sum(tensor.size for tensor in itertools.chain.from_iterable(shards))
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _split(all_tensors: list[Tensor], count: int) -> list[list[Tensor]]:
    """In order, into `count` files of about equal size."""
    total, before = sum(tensor.size for tensor in all_tensors), 0
    shards: list[list[Tensor]] = [[] for _ in range(count)]
    for tensor in all_tensors:
        middle = before + tensor.size // 2
        shards[min(count - 1, middle * count // total)].append(tensor)
        before += tensor.size
    return [shard for shard in shards if shard]


def _header(shard: list[Tensor]) -> bytes:
    """https://github.com/huggingface/safetensors#format: length, then JSON, padded so that tensors are aligned."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in shard:
        header[tensor.name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


# The upper byte of a bfloat16 holds its sign and most of its exponent. These four give weights between 0.002 and 0.031
# of either sign, as a trained model has them, and leave no way to NaN or infinity.
_UPPER_BYTES = bytes((0x3B, 0xBB, 0x3C, 0xBC)[value % 4] for value in range(256))
_ONE = b"\x80\x3f"


def _values(tensor: Tensor, seed: int) -> bytes:
    if len(tensor.shape) == 1:  # scales of a normalisation
        return _ONE * tensor.shape[0]
    count = tensor.size // BYTES_OF_BF16
    drawn = hashlib.shake_128(f"{seed} {tensor.name}".encode()).digest(tensor.size)
    values = bytearray(tensor.size)
    values[0::2] = drawn[:count]
    values[1::2] = drawn[count:].translate(_UPPER_BYTES)
    return bytes(values)


def _write_texts(folder: Path, dimensions: Dimensions, name: str) -> None:
    files = {
        "config.json": _config(dimensions),
        "generation_config.json": {
            "bos_token_id": SPECIALS["<|endoftext|>"],
            "do_sample": True,
            "eos_token_id": [SPECIALS["<|im_end|>"], SPECIALS["<|endoftext|>"]],
            "pad_token_id": SPECIALS["<|endoftext|>"],
            "temperature": 0.6,
            "top_k": 20,
            "top_p": 0.95,
        },
        "configuration.json": {"framework": "pytorch", "task": "text-generation"},
        "vocab.json": VOCABULARY,
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": tokenizer_config(),
    }
    for file_name, content in files.items():
        _write_json(folder / file_name, content)
    (folder / "merges.txt").write_text(merges(), encoding="utf-8")
    (folder / "README.md").write_text(
        f"---\nlicense: apache-2.0\n---\n# {name}\n\nA model in the shape of Qwen3 with random weights, made for "
        "rehearsals on one machine. It answers nothing sensible.\n",
        encoding="utf-8",
    )


def _config(dimensions: Dimensions) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": SPECIALS["<|endoftext|>"],
        "eos_token_id": SPECIALS["<|im_end|>"],
        "head_dim": dimensions.head,
        "hidden_act": "silu",
        "hidden_size": dimensions.hidden,
        "initializer_range": 0.02,
        "intermediate_size": dimensions.intermediate,
        "max_position_embeddings": 40960,
        "max_window_layers": dimensions.layers,
        "model_type": "qwen3",
        "num_attention_heads": dimensions.heads,
        "num_hidden_layers": dimensions.layers,
        "num_key_value_heads": dimensions.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": dimensions.vocabulary,
    }


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
