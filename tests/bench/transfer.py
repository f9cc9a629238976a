"""`python -m tests.bench.transfer`: what it costs to bring a model from the hub into the bucket.

Hub and bucket are the embedded services, each in a process of its own, on loopback; only the client's processes are
measured. The bucket keeps checksums and forgets the bytes, so that its disk is no part of the comparison. Ours are the
commands of a pod, `python -m steps …`, from the start of the interpreter to its end.

All variants take turns, so that a busy machine is busy for all of them, and what is told is the median of the runs.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from crcmod import crcmod
from rich.console import Console
from rich.table import Table

from steps.adapters.modelscope import ModelScopeSource
from steps.model import Listing
from tests.bench.measure import ClientFailedError, Command, Cost, in_turn, together
from tests.bench.services import KEY_ID, KEY_SECRET
from tests.samples import ROOT, SERVICES

MODEL = "bench/model"
GB = 10**9
FILES = 8  # large ones, beside the small ones that every model has
SMALL = {"config.json": 700, "generation_config.json": 240, "tokenizer.json": 7_000_000, "vocab.json": 2_800_000}
CHUNK = 1 << 24  # bytes
SAID = 4000  # last characters of what failed clients said
SHARDS = 2
# What must be reached: (variant, what, how, by how much).
TARGETS = (
    ("staged", "ratio_cpu", "at least", 2.5),
    ("streamed", "ratio_cpu", "at least", 3.5),
    ("streamed", "ratio_wall", "at least", 2.5),
    ("streamed", "disk_bytes", "at most", 0),
    ("streamed", "rss_mib", "at most", 400),
)


@dataclass(frozen=True)
class Bench:
    """Where everything is."""

    hub: str  # URL
    bucket: str  # URL
    drain: str  # host:port
    listing: Listing
    disk: Path  # folder for whatever a client writes
    log: Any  # what the clients say

    def environment(self) -> dict[str, str]:
        home = str(self.disk / "home")
        return {
            **{name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",  # else a first run would write more than a later one
            "HOME": home,
            "MODELSCOPE_HOME": home,
            "MODELSCOPE_CACHE": home,
            "SLIPWAY_MODELSCOPE_ENDPOINT": self.hub,
            "SLIPWAY_OSS_ENDPOINT": self.bucket,
            "SLIPWAY_TERMINATION_LOG": os.devnull,
            "OSS_ACCESS_KEY_ID": KEY_ID,
            "OSS_ACCESS_KEY_SECRET": KEY_SECRET,
        }

    def python(self, module: str, *arguments: str) -> Command:
        return Command((sys.executable, "-m", module, *arguments), self.environment())

    def step(self, name: str, prefix: str, *arguments: str, mode: str = "streamed", shards: int = 1) -> Command:
        sets = {
            "model.id": MODEL,
            "store.prefix": prefix,
            "transfer.mode": mode,
            "transfer.shards": str(shards),
        }
        return self.python(
            "steps",
            name,
            f"--service={SERVICES / 'demo.yaml'}",
            f"--model-digest={self.listing.digest}",
            f"--scratch={self.disk / 'scratch'}",
            *(f"--set={field}={value}" for field, value in sets.items()),
            *arguments,
        )

    def url(self, path: str) -> str:
        query = urllib.parse.urlencode({"Revision": "master", "FilePath": path})
        return f"{self.hub}/api/v1/models/{MODEL}/repo?{query}"


Variant = Callable[[Bench, str], Cost]  # the prefix in the bucket is for this run alone


def _baseline(bench: Bench, prefix: str) -> Cost:
    model = str(bench.disk / "model")
    download = bench.python("tests.bench.clients", "download", bench.hub, MODEL, model)
    upload = bench.python("tests.bench.clients", "upload", bench.bucket, prefix, model)
    return in_turn([download, upload], bench.log)


def _staged(bench: Bench, prefix: str) -> Cost:
    steps = ("download-model", "upload-model")
    return in_turn([bench.step(step, prefix, mode="staged") for step in steps], bench.log)


def _streamed(bench: Bench, prefix: str) -> Cost:
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


VARIANTS: Mapping[str, Variant] = {
    "baseline": _baseline,
    "staged": _staged,
    "streamed": _streamed,
    f"streamed, {SHARDS} shards": _streamed_in_shards,
    "raw floor": _floor,
}


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    result: dict[str, Any] = {"machine": _machine(), "variants": {}}
    with tempfile.TemporaryDirectory(prefix="slipway-bench-", dir=options.folder) as folder:
        here = Path(folder)
        # In memory, because what a client says is no byte that its transfer wrote to disk.
        with os.fdopen(os.memfd_create("log"), "w+b") as log:
            try:
                with _bench(here, options.gb, FILES, log) as bench:
                    result["variants"] = _measure(bench, options.runs)
                for size in options.single:
                    with _bench(here, size, 1, log) as bench:
                        result["variants"] |= _single(bench, size)
            except ClientFailedError:
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace")[-SAID:])
                raise
    result["machine"]["load_after"] = os.getloadavg()
    result["targets"] = _targets(result["variants"])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _print(result)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.transfer", description=__doc__)
    parser.add_argument("--gb", type=float, default=3.2, help="size of the model")
    parser.add_argument("--runs", type=int, default=3, help="runs of each variant")
    parser.add_argument(
        "--single", type=_sizes, default=(1.0, 10.0), metavar="GB,GB", help="also stream one sparse file of each size"
    )
    parser.add_argument("--folder", type=Path, help="where the model and all that is written goes; default: as TMPDIR")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench" / "transfer.json")
    return parser.parse_args(arguments)


def _sizes(text: str) -> tuple[float, ...]:
    return tuple(float(size) for size in text.split(",") if size)


@contextmanager
def _bench(folder: Path, gb: float, count: int, log: Any) -> Iterator[Bench]:
    """A model at a hub and an empty bucket, both gone afterwards."""
    here = Path(tempfile.mkdtemp(dir=folder))
    try:
        _write_model(here / "hub" / MODEL, gb, count)
        with ExitStack() as stack:
            hub, bucket, drain = (stack.enter_context(_service(kind, here / kind)) for kind in _KINDS)
            listing = ModelScopeSource(endpoint=hub, model_id=MODEL, revision="master").listing()
            (here / "disk").mkdir()
            yield Bench(hub, bucket, drain, listing, here / "disk", log)
    finally:
        shutil.rmtree(here)


_KINDS = ("hub", "bucket", "drain")


@contextmanager
def _service(kind: str, folder: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.services", kind, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    with process, process.stdin:
        yield process.stdout.readline().strip()


def _write_model(folder: Path, gb: float, count: int) -> None:
    """Random bytes; a single file is a hole, because only the memory that it takes is measured."""
    folder.mkdir(parents=True)
    size = int(gb * GB) // count
    for number in range(1, count + 1):
        with (folder / f"model-{number:05}-of-{count:05}.safetensors").open("wb") as file:
            if count == 1:
                file.truncate(size)
            else:
                _fill(file, size)
    for name, length in SMALL.items() if count > 1 else ():
        (folder / name).write_bytes(os.urandom(length))


def _fill(file: Any, size: int) -> None:
    for start in range(0, size, CHUNK):
        file.write(os.urandom(min(CHUNK, size - start)))


def _measure(bench: Bench, runs: int) -> dict[str, Any]:
    costs: dict[str, list[Cost]] = {name: [] for name in VARIANTS}
    for run in range(runs):
        for number, (name, variant) in enumerate(VARIANTS.items()):
            costs[name].append(variant(bench, f"run-{run}-{number}"))
            _progress(name, run, costs[name][-1])
            _clean(bench)
    base = costs["baseline"]
    return {name: _row(found, bench.listing.size, base) for name, found in costs.items()}


def _single(bench: Bench, gb: float) -> dict[str, Any]:
    cost = _streamed(bench, "single")
    name = f"streamed, one file of {gb:g} GB"
    _progress(name, 0, cost)
    return {name: _row([cost], bench.listing.size)}


def _clean(bench: Bench) -> None:
    shutil.rmtree(bench.disk)
    bench.disk.mkdir()
    os.sync()  # nobody pays for what another one has left to be written


def _row(costs: list[Cost], size: int, base: list[Cost] | None = None) -> dict[str, Any]:
    cpu, wall = (median(getattr(cost, what) for cost in costs) for what in ("cpu", "wall"))
    row: dict[str, Any] = {
        "cpu_s_per_gb": round(cpu / (size / GB), 3),
        "wall_s": round(wall, 2),
        "gb": round(size / GB, 3),
        "rss_mib": round(max(cost.rss for cost in costs) / 1024),
        "disk_bytes": max(cost.disk for cost in costs),
        "ratio_cpu": None,
        "ratio_wall": None,
        "runs": [{"cpu_s": round(cost.cpu, 2), "wall_s": round(cost.wall, 2)} for cost in costs],
    }
    if base:
        row["ratio_cpu"] = round(median(cost.cpu for cost in base) / cpu, 2)
        row["ratio_wall"] = round(median(cost.wall for cost in base) / wall, 2)
    return row


def _targets(variants: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [
        {"variant": name, "what": what, "wanted": f"{how} {limit:g}", "found": variants[name][what]}
        for name, what, how, limit in TARGETS
    ]
    for target, (_, _, how, limit) in zip(found, TARGETS, strict=True):
        target["met"] = target["found"] >= limit if how == "at least" else target["found"] <= limit
    return found


def _machine() -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_before": os.getloadavg(),
        # The pure one is ten times slower still, and is what an image without a compiler gets.
        "crcmod_of_baseline": "C extension" if crcmod._usingExtension else "pure Python",
    }


def _progress(name: str, run: int, cost: Cost) -> None:
    line = f"run {run + 1}  {name:<28} {cost.cpu:7.2f} CPU s  {cost.wall:7.2f} s  {cost.rss // 1024:5} MiB"
    print(f"{line}  load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)


def _print(result: Mapping[str, Any]) -> None:
    table = Table(title="hub to bucket, on loopback; medians, processes of the client only", title_justify="left")
    for heading in ("variant", "CPU s/GB", "wall s", "GB", "peak RSS MiB", "to disk MB", "CPU ratio", "wall ratio"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for name, row in result["variants"].items():
        ratios = ["-" if row[what] is None else f"{row[what]:.2f}" for what in ("ratio_cpu", "ratio_wall")]
        table.add_row(
            name,
            f"{row['cpu_s_per_gb']:.2f}",
            f"{row['wall_s']:.1f}",
            f"{row['gb']:.2f}",
            str(row["rss_mib"]),
            f"{row['disk_bytes'] / 1e6:.1f}",
            *ratios,
        )
    console = Console(width=110, highlight=False)
    console.print(table)
    machine = result["machine"]
    loads = " to ".join(f"{machine[when][0]:.1f}" for when in ("load_before", "load_after"))
    console.print(
        f"{machine['cores']} cores, load {loads}; CRC-64 of the baseline: crcmod, {machine['crcmod_of_baseline']}"
    )
    for target in result["targets"]:
        word = "met   " if target["met"] else "MISSED"
        console.print(f"{word} {target['variant']}: {target['what']} {target['found']}, wanted {target['wanted']}")


if __name__ == "__main__":
    sys.exit(main())
