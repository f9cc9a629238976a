"""The model in a mounted folder: read as an engine reads it, so that a half-copied model fails here, too."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

SAMPLE = 64  # bytes that are read at both ends of each tensor
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPE_BYTES = 2  # bfloat16, also of the KV cache


class ModelLoadError(Exception):
    """The folder does not hold a whole model; the message reads like the engine's own."""


@dataclass(frozen=True)
class LoadedModel:
    config: Mapping[str, Any]
    checksums: Mapping[str, str]  # tensor -> checksum of its header and of sampled bytes

    @cached_property
    def digest(self) -> str:
        """Pins the weights: 64 hex digits."""
        lines = "".join(f"{name}={checksum}\n" for name, checksum in sorted(self.checksums.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def context_length(self) -> int:
        return int(self.config.get("max_position_embeddings", 4096))

    def kv_bytes_per_token(self, tp_size: int) -> int:
        """Of one tensor-parallel rank: layers x (K and V) x its share of the KV heads x head size x 2 bytes."""
        config = self.config
        heads = int(config["num_attention_heads"])
        kv_heads = max(1, int(config.get("num_key_value_heads", heads)) // tp_size)
        head_dim = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
        return int(config["num_hidden_layers"]) * 2 * kv_heads * head_dim * DTYPE_BYTES


def load(folder: Path, name: str) -> LoadedModel:
    """Read config, tokenizer and weights; `name` is the path of the command line.

    Raises ModelLoadError.
    """
    config = _json(folder / "config.json", f"OSError: {name} does not appear to have a file named config.json.")
    missing = [key for key in ("num_hidden_layers", "num_attention_heads", "hidden_size") if key not in config]
    if missing:
        raise ModelLoadError(f"ValueError: config.json of {name} lacks {', '.join(missing)}")
    _check_tokenizer(folder, name)
    return LoadedModel(config, dict(_checksums(folder, name)))


def _check_tokenizer(folder: Path, name: str) -> None:
    _json(folder / "tokenizer_config.json", f"OSError: Can't load tokenizer for '{name}': no tokenizer_config.json.")
    if (folder / "tokenizer.json").is_file():
        _json(folder / "tokenizer.json", "")
    elif not all((folder / part).is_file() for part in ("vocab.json", "merges.txt")):
        raise ModelLoadError(f"OSError: Can't load tokenizer for '{name}': neither tokenizer.json nor vocab.json.")


def _checksums(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    for shard, expected in sorted(_shards(folder, name).items()):
        found = dict(_tensors(folder / shard))
        absent = sorted(expected - found.keys())
        if absent:
            raise ModelLoadError(f"KeyError: {shard} lacks {absent[0]}, which {INDEX} promises")
        yield from found.items()


def _shards(folder: Path, name: str) -> dict[str, set[str]]:
    """Shard -> tensors that it must hold."""
    if not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file():
            raise ModelLoadError(f"RuntimeError: Cannot find any model weights with `{name}`")
        return {SINGLE: set()}
    weight_map = _json(folder / INDEX, "").get("weight_map", {})
    shards: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        shards.setdefault(shard, set()).add(tensor)
    if not shards:
        raise ModelLoadError(f"RuntimeError: Cannot find any model weights with `{name}`")
    return shards


def _tensors(shard: Path) -> Iterator[tuple[str, str]]:
    """Tensor -> checksum, after the checks that safetensors makes. https://github.com/huggingface/safetensors"""
    try:
        size = shard.stat().st_size
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:  # noqa: PLR2004  # the header's length takes eight bytes
                raise _unreadable(shard, "HeaderTooLarge" if size >= 8 else "HeaderTooSmall")  # noqa: PLR2004  # as above
            header = _header(shard, file.read(length))
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            if 8 + length + end != size:
                raise _unreadable(shard, "incomplete metadata, file not fully covered")
            for name, entry in header.items():
                start, stop = entry["data_offsets"]
                file.seek(8 + length + start)
                sample = file.read(min(SAMPLE, stop - start))
                file.seek(8 + length + max(start, stop - SAMPLE))
                sample += file.read(min(SAMPLE, stop - start))
                yield name, hashlib.sha256(json.dumps(entry, sort_keys=True).encode() + sample).hexdigest()[:16]
    except OSError as error:
        raise ModelLoadError(f"FileNotFoundError: {shard.name}: {error.strerror}") from error


def _header(shard: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        for entry in header.values():
            start, stop = entry["data_offsets"]
            if start < 0 or stop < start or not entry["dtype"] or math.prod(entry["shape"]) < 0:
                raise _unreadable(shard, "InvalidOffset")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(shard, "InvalidHeaderDeserialization") from error
    return dict(header)


def _unreadable(shard: Path, why: str) -> ModelLoadError:
    return ModelLoadError(f"safetensors_rust.SafetensorError: Error while deserializing header: {why} ({shard.name})")


def _json(path: Path, absent: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelLoadError(absent or f"FileNotFoundError: {path.name}: {error.strerror}") from error
    except ValueError as error:
        raise ModelLoadError(f"json.decoder.JSONDecodeError: {path.name}: {error}") from error
    if not isinstance(found, dict):
        raise ModelLoadError(f"ValueError: {path.name} is not a JSON object")
    return found
