"""A small but valid byte-level BPE tokenizer: every byte is a token, so it can encode any text.

The files are those of Qwen3; their format is that of https://huggingface.co/docs/tokenizers.
"""

import itertools
from collections.abc import Iterator
from typing import Any


def _byte_characters() -> Iterator[str]:
    """One visible character for each byte, as byte-level BPE has them since GPT-2."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    substitutes = itertools.count(256)
    for byte in range(256):
        yield chr(byte if byte in visible else next(substitutes))


_MERGES = (("t", "h"), ("th", "e"), ("i", "n"), ("a", "n"), ("Ġ", "the"))
_TOKENS = [*_byte_characters(), *(first + second for first, second in _MERGES)]
_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")

VOCABULARY = {token: number for number, token in enumerate(_TOKENS)}
SPECIALS = {token: len(VOCABULARY) + number for number, token in enumerate(_SPECIAL_TOKENS)}


def merges() -> str:
    """Content of merges.txt."""
    return "#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in _MERGES)


def tokenizer() -> dict[str, Any]:
    """Content of tokenizer.json."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, **_added(token)} for token, number in SPECIALS.items()],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": VOCABULARY,
            "merges": [f"{first} {second}" for first, second in _MERGES],
        },
    }


def tokenizer_config() -> dict[str, Any]:
    """Content of tokenizer_config.json."""
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): _added(token) for token, number in SPECIALS.items()},
        "bos_token": None,
        "chat_template": "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>"
        "\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _added(token: str) -> dict[str, Any]:
    return {
        "content": token,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": token.startswith("<|"),
    }
