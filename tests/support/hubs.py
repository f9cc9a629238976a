"""Embedded hubs and sources for tests: a small model, and an adapter with pauses of milliseconds."""

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import urllib3

from steps.adapters.modelscope.retries import HubLimits
from steps.adapters.modelscope.source import ModelScopeSource
from steps.adapters.throughput import MinimumThroughput
from steps.model import Listing, ModelFile
from steps.ports.modelscope import ModelSource
from steps.transfer import hashing
from workflows.simulator.core.hub.sample_model import write_model
from workflows.simulator.http.hub import Hub
from workflows.simulator.http.server import LOOPBACK

MODEL = "slipway/Qwen3-small"
SHARD = "model-00001-of-00003.safetensors"
# Real retries, but with short pauses. Timeouts keep their time: a machine that is busy for seconds must not be taken
# for a slow hub.
HASTY = HubLimits(
    retries=replace(HubLimits.retries, budget=60.0, first_pause=0.001, longest_pause=0.01),
    connect=30.0,
    silence=30.0,
    internal_throughput=MinimumThroughput(64_000, window=10.0),
)
# For slow bodies: measured early, so a busy machine may cost a good connection, too.
EARLY_MEASURED = replace(
    HASTY,
    throughput=replace(HASTY.throughput, window=0.3),
    internal_throughput=replace(HASTY.internal_throughput, window=0.3),
)


def with_budget(limits: HubLimits, seconds: float) -> HubLimits:
    return replace(limits, retries=replace(limits.retries, budget=seconds))


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
    defaults: dict[str, Any] = {"model_id": MODEL, "revision": "master", "limits": HASTY}
    return ModelScopeSource(endpoint=hub.url, **defaults | options)


def content(source: ModelSource, file: ModelFile, part: int = 1 << 20) -> bytes:
    """A whole file, read in parts of `part` bytes, each with the CRC-64 of its bytes after every fault."""
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
    """An address without a server, reserved meanwhile."""
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        yield f"http://{LOOPBACK}:{taken.getsockname()[1]}"


def get(url: str, **headers: str) -> urllib3.BaseHTTPResponse:
    """A plain request without credentials; underscores in header names become dashes."""
    with urllib3.PoolManager(retries=False) as pool:
        return pool.request(
            "GET", url, redirect=False, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
