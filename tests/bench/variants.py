"""The ways to bring a model from the hub into the bucket that are measured, each as the processes that do it."""

import os
from collections.abc import Callable, Mapping

from tests.bench.loopback import MODEL, Bench
from tests.bench.measure import Command, Cost, in_turn, together

SHARDS = 2

Variant = Callable[[Bench, str], Cost]  # the prefix in the bucket is for this run alone


def _baseline(bench: Bench, prefix: str) -> Cost:
    model = str(bench.disk / "model")
    download = bench.python("tests.bench.clients", "download", bench.hub, MODEL, model)
    upload = bench.python("tests.bench.clients", "upload", bench.bucket, prefix, model)
    return in_turn([download, upload], bench.log)


def _staged(bench: Bench, prefix: str) -> Cost:
    steps = ("download-model", "upload-model")
    return in_turn([bench.step(step, prefix, mode="staged") for step in steps], bench.log)


def streamed(bench: Bench, prefix: str) -> Cost:
    return together([bench.step("mirror-model", prefix)], bench.log)


def _streamed_in_shards(bench: Bench, prefix: str) -> Cost:
    shards = [bench.step("mirror-model", prefix, f"--shard={number}", shards=SHARDS) for number in range(SHARDS)]
    moved = together(shards, bench.log)
    publish = together([bench.step("mirror-model", prefix, shards=SHARDS)], bench.log)
    return Cost(
        moved.cpu + publish.cpu, moved.wall + publish.wall, max(moved.rss, publish.rss), moved.disk + publish.disk
    )


def _floor(bench: Bench, _prefix: str) -> Cost:
    outputs = [word for file in bench.listing.files for word in ("-o", os.devnull, bench.url(file.path))]
    fetch = Command(("curl", "--silent", "--fail", "--location", *outputs), bench.environment())
    send = bench.python("tests.bench.clients", "send", bench.drain, str(bench.listing.size))
    return in_turn([fetch, send], bench.log)


BASELINE, STREAMED, IN_SHARDS = "baseline", "streamed", f"streamed, {SHARDS} shards"
AS_FAST_AS_IT_GOES: Mapping[str, Variant] = {
    BASELINE: _baseline,
    "staged": _staged,
    STREAMED: streamed,
    IN_SHARDS: _streamed_in_shards,
    "raw floor": _floor,
}
# Where the wire of a pod is the limit, and not the CPUs of one machine that is hub, pods and bucket at once.
SLOW_WIRE, SLOW_WIRE_IN_SHARDS = "slow wire", f"slow wire, {SHARDS} shards"
OVER_A_SLOW_WIRE: Mapping[str, Variant] = {SLOW_WIRE: streamed, SLOW_WIRE_IN_SHARDS: _streamed_in_shards}
