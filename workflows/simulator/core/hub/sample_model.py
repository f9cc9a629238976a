"""A model in the shape of Qwen3 with meaningless weights: the first content of the embedded hub.

It is whole as far as an engine checks one: config, tokenizer files, and safetensors files with an index.
"""

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

DEMO_BYTES, DEMO_SHARDS = 96_000_000, 4
CONTEXT = 4096  # tokens
KV_BYTES_PER_TOKEN = 14 * 2 * 4 * 64 * 2  # layers x (K and V) x KV heads x head size x bytes of bfloat16
_CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "head_dim": 64,
    "hidden_size": 512,
    "max_position_embeddings": CONTEXT,
    "model_type": "qwen3",
    "num_attention_heads": 8,
    "num_hidden_layers": 14,
    "num_key_value_heads": 4,
    "torch_dtype": "bfloat16",
    "vocab_size": 256,
}
_VOCABULARY = {chr(0x100 + byte): byte for byte in range(256)}


def write_model(folder: Path, size: int = DEMO_BYTES, shards: int = DEMO_SHARDS, seed: int = 0) -> Path:
    """Write about `size` bytes to `folder`, unless it exists. The same seed gives the same bytes.

    The files are made in a draft beside it, which is renamed at the end: a start that is killed leaves no model.
    """
    if folder.exists():
        return folder
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    names = {f"model.layers.{number}.weight": _shard_name(number, shards) for number in range(shards)}
    for number, (tensor, name) in enumerate(names.items()):
        (draft / name).write_bytes(_shard(tensor, size // shards // 2 * 2, f"{seed} {number}"))
    texts: dict[str, Any] = {
        "config.json": _CONFIG,
        "configuration.json": {"framework": "pytorch", "task": "text-generation"},
        "model.safetensors.index.json": {"metadata": {"total_size": size}, "weight_map": names},
        "tokenizer.json": {"version": "1.0", "model": {"type": "BPE", "vocab": _VOCABULARY, "merges": []}},
        "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": CONTEXT},
    }
    for name, content in texts.items():
        (draft / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    (draft / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    about = f"# {folder.name}\n\nMeaningless weights in the shape of Qwen3, for rehearsals on one machine.\n"
    (draft / "README.md").write_text(f"---\nlicense: apache-2.0\n---\n{about}", encoding="utf-8")
    return draft.rename(folder)


def _shard_name(number: int, shards: int) -> str:
    return f"model-{number + 1:05}-of-{shards:05}.safetensors"


def _shard(tensor: str, size: int, seed: str) -> bytes:
    """Length of the header, header, data. https://github.com/huggingface/safetensors#format"""
    header = {tensor: {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + Random(seed).randbytes(size)  # noqa: S311  # repeatable, no secret
