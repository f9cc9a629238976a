"""`python -m tests.bench.transfer`: the cost of a transfer from the hub to the bucket.

Hub and bucket are the embedded services, each in its own process, on loopback; only the client's processes are
measured. The bucket keeps checksums and drops the bytes, so that its disk is no part of the comparison. Ours are the
commands of a pod, `python -m steps …`, from the start of the interpreter to its end.

All variants take turns, so that a busy machine is busy for all of them. The figures are medians of the runs.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.loopback import Bench, bench
from tests.bench.measure import ClientFailedError
from tests.bench.report import Measured, Row
from tests.bench.variants import AS_FAST_AS_IT_GOES, BASELINE, OVER_A_SLOW_WIRE, Variant, streamed
from tests.support.samples import ROOT

FILES = 8  # large ones, beside the small ones that every model has
WARM_UP = 0.004  # GB
# Of one connection. A pod has eight, so its wire is 1.6 Gbit/s; two pods then need less than this machine can do.
SLOW_WIRE = 25_000_000  # bytes a second
SAID = 4000  # last characters of the output of failed clients


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    result: dict[str, Any] = {"machine": report.machine(), "variants": {}}
    rows: dict[str, Row] = result["variants"]
    with (
        tempfile.TemporaryDirectory(prefix="slipway-bench-", dir=options.folder) as folder,
        # In memory, because the output of a client is no byte of its transfer on the disk.
        os.fdopen(os.memfd_create("log"), "w+b") as log,
    ):
        try:
            single = _measure_all(rows, Path(folder), options, log)
        except ClientFailedError:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-SAID:])
            raise
    result["machine"]["load_after"] = os.getloadavg()
    report.add_speedup(rows)
    result |= {"scaling": report.scaling(rows), "targets": report.targets(rows, single)}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    report.show(result)
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
    return tuple(sorted(float(size) for size in text.split(",") if size))


def _measure_all(rows: dict[str, Row], folder: Path, options: argparse.Namespace, log: Any) -> list[str]:
    """Fill the rows; the names of those of one file alone, by its size."""
    with bench(folder, WARM_UP, FILES, log) as here:
        # At the first read of a new file the kernel writes its access time: bytes of no transfer.
        _measure(here, AS_FAST_AS_IT_GOES, 1, said="warm-up")
    with bench(folder, options.gb, FILES, log) as here:
        rows |= _measure(here, AS_FAST_AS_IT_GOES, options.runs)
    with bench(folder, options.gb, FILES, log, rate=SLOW_WIRE) as here:
        rows |= _measure(here, OVER_A_SLOW_WIRE, options.runs)
    single = {f"one file of {size:g} GB": size for size in options.single}
    for name, size in single.items():
        with bench(folder, size, 1, log) as here:
            rows |= _measure(here, {name: streamed}, 1)
    return list(single)


def _measure(here: Bench, variants: Mapping[str, Variant], runs: int, said: str = "run") -> dict[str, Row]:
    found: dict[str, list[Measured]] = {name: [] for name in variants}
    for run in range(runs):
        for number, (name, variant) in enumerate(variants.items()):
            before = here.cpu_of_services
            cost = variant(here, f"run-{run}-{number}")
            found[name].append(Measured(cost, here.cpu_of_services - before))
            _progress(f"{said} {run + 1}", name, found[name][-1])
            here.clean()
    return {name: report.row(costs, here.listing.size, found.get(BASELINE, ())) for name, costs in found.items()}


def _progress(run: str, name: str, one: Measured) -> None:
    cost = one.cost
    line = f"{run}  {name:<24} {cost.cpu:7.2f} CPU s  {cost.wall:7.2f} s  {cost.rss // 1024:5} MiB"
    print(f"{line}  {one.busy_cores:.2f} cores  load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
