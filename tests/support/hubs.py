"""Embedded hubs and sources for tests: a small model, and an adapter with pauses of milliseconds."""

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import urllib3

from steps.adapters.modelscope.retries import Patience
from steps.adapters.modelscope.source import ModelScopeSource
from steps.model import Listing, ModelFile
from steps.ports.modelscope import ModelSource
from steps.transfer import hashing
from workflows.simulator.core.hub.sample_model import write_model
from workflows.simulator.http.hub import Hub
from workflows.simulator.http.server import LOOPBACK

MODEL = "slipway/Qwen3-small"
SHARD = "model-00001-of-00003.safetensors"
# Retries as in production, without the pauses. Timeouts keep their length: a busy machine must not pass for a slow hub.
HASTY = Patience(budget=60.0, connect=30.0, silence=30.0, first_pause=0.001, longest_pause=0.01, internal_floor=64_000)
# For bodies that drip: judged early, so a busy machine may cost a good connection, too.
QUICK_TO_JUDGE = replace(HASTY, window=0.3)


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Hub]:
    """A hub with a model of about 1 MB."""
    write_model(folder / MODEL, 1_000_000, 3)
    hub = Hub(folder, **options)
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()


def source_of(hub: Hub, **options: Any) -> ModelScopeSource:
    defaults: dict[str, Any] = {"model_id": MODEL, "revision": "master", "patience": HASTY}
    return ModelScopeSource(endpoint=hub.url, **defaults | options)


def content(source: ModelSource, file: ModelFile, part: int = 1 << 20) -> bytes:
    """A whole file, read in parts of `part` bytes, each with the CRC-64 of its bytes after all retries."""
    buffer = bytearray(file.size)
    for start in range(0, file.size, part):
        piece = memoryview(buffer)[start : start + part]
        assert source.read(file, start, piece) == hashing.crc(piece)
    return bytes(buffer)


def is_right(source: ModelSource, file: ModelFile, part: int = 1 << 20) -> bool:
    return hashlib.sha256(content(source, file, part)).hexdigest() == file.sha256


def named(listing: Listing, path: str) -> ModelFile:
    return next(file for file in listing.files if file.path == path)


@contextmanager
def refusing() -> Iterator[str]:
    """A reserved address without a listener."""
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        yield f"http://{LOOPBACK}:{taken.getsockname()[1]}"


def get(url: str, **headers: str) -> urllib3.BaseHTTPResponse:
    """A plain request without credentials; underscores in header names become dashes."""
    with urllib3.PoolManager(retries=False) as pool:
        return pool.request(
            "GET", url, redirect=False, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
