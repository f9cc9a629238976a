"""The measurements as rows of figures, as a table, and beside the goals."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from crcmod import crcmod
from rich.console import Console
from rich.table import Table

from tests.bench.loopback import GB
from tests.bench.measure import Cost
from tests.bench.variants import IN_SHARDS, SLOW_WIRE, SLOW_WIRE_IN_SHARDS, STREAMED

Row = dict[str, Any]

# Goals: (variant, measure, comparison, factor).
TARGETS = (
    ("staged", "ratio_cpu", "at least", 2.5),
    (STREAMED, "ratio_cpu", "at least", 3.5),
    (STREAMED, "ratio_wall", "at least", 2.5),
    (STREAMED, "disk_bytes", "at most", 0),
    (STREAMED, "rss_mib", "at most", 400),
    (SLOW_WIRE_IN_SHARDS, "speedup", "at least", 1.6),
)
MOST_MEMORY = 400  # MiB, for every size of one file
MUCH_LARGER = 1.25  # times as much memory for a file of ten times the size would be
SATURATED = 0.9  # share of the cores at which more processes cannot be faster; starts and ends leave some idle


@dataclass(frozen=True)
class Measured:
    cost: Cost
    services: float  # CPU seconds of hub and bucket meanwhile

    @property
    def busy_cores(self) -> float:
        return (self.cost.cpu + self.services) / self.cost.wall


def row(found: Sequence[Measured], size: int, base: Sequence[Measured] = ()) -> Row:
    """Medians; `base` is the reference of the ratios, and `size` the bytes of the model."""
    cpu, wall = (median(getattr(one.cost, what) for one in found) for what in ("cpu", "wall"))
    ratios = {
        f"ratio_{what}": round(median(getattr(one.cost, what) for one in base) / own, 2) if base else None
        for what, own in (("cpu", cpu), ("wall", wall))
    }
    return {
        "cpu_s_per_gb": round(cpu / (size / GB), 3),
        "wall_s": round(wall, 2),
        "gb": round(size / GB, 3),
        "rss_mib": round(max(one.cost.rss for one in found) / 1024),
        "disk_bytes": max(one.cost.disk for one in found),
        **ratios,
        "busy_cores": round(median(one.busy_cores for one in found), 2),
        "runs": [{"cpu_s": round(one.cost.cpu, 2), "wall_s": round(one.cost.wall, 2)} for one in found],
    }


def add_speedup(rows: Mapping[str, Row]) -> None:
    """How much faster two shards are than one, as fast as it goes and over a slow wire."""
    for one, several in ((STREAMED, IN_SHARDS), (SLOW_WIRE, SLOW_WIRE_IN_SHARDS)):
        rows[several]["speedup"] = round(rows[one]["wall_s"] / rows[several]["wall_s"], 2)


def targets(rows: Mapping[str, Row], single: Sequence[str]) -> list[Row]:
    """`single` are the rows of one file alone, by size."""
    memory = [(name, "rss_mib", "at most", MOST_MEMORY) for name in single]
    found = [_target(rows, *target) for target in (*TARGETS, *memory)]
    if len(single) > 1:
        smallest, largest = (rows[name]["rss_mib"] for name in (single[0], single[-1]))
        wanted = f"the same as for the smallest, {smallest}, within {MUCH_LARGER:g} times"
        found.append(
            {
                "variant": single[-1],
                "what": "rss_mib",
                "wanted": wanted,
                "found": largest,
                "met": largest <= smallest * MUCH_LARGER,
            }
        )
    return found


def _target(rows: Mapping[str, Row], name: str, what: str, how: str, limit: float) -> Row:
    found = rows[name][what]
    met = found >= limit if how == "at least" else found <= limit
    return {"variant": name, "what": what, "wanted": f"{how} {limit:g}", "found": found, "met": met}


def scaling(rows: Mapping[str, Row]) -> str:
    """Why shards on this machine are, or are not, faster than one process."""
    cores, one, several = len(os.sched_getaffinity(0)), rows[STREAMED], rows[IN_SHARDS]
    text = (
        f"{IN_SHARDS}: {several['speedup']:.2f} times as fast as one; together with hub and bucket, one keeps "
        f"{one['busy_cores']:.2f} of {cores} cores busy and {several['busy_cores']:.2f} are busy with shards"
    )
    return text + (", so the cores are what saturates" if several["busy_cores"] >= SATURATED * cores else "")


def machine() -> Row:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_before": os.getloadavg(),
        # The pure one, of an image without a compiler, is ten times slower still.
        "crcmod_of_baseline": "C extension" if crcmod._usingExtension else "pure Python",
    }


def show(result: Mapping[str, Any]) -> None:
    table = Table(title="hub to bucket, on loopback; medians, processes of the client only", title_justify="left")
    headings = ("variant", "CPU s/GB", "wall s", "GB", "peak RSS MiB", "to disk MB", "CPU ratio", "wall ratio", "busy")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for name, found in result["variants"].items():
        ratios = ["-" if found[what] is None else f"{found[what]:.2f}" for what in ("ratio_cpu", "ratio_wall")]
        table.add_row(
            name,
            f"{found['cpu_s_per_gb']:.2f}",
            f"{found['wall_s']:.1f}",
            f"{found['gb']:.2f}",
            str(found["rss_mib"]),
            f"{found['disk_bytes'] / 1e6:.1f}",
            *ratios,
            f"{found['busy_cores']:.2f}",
        )
    console = Console(width=120, highlight=False)
    console.print(table)
    about = result["machine"]
    loads = " to ".join(f"{about[when][0]:.1f}" for when in ("load_before", "load_after"))
    console.print(
        f"busy: cores that client, hub and bucket kept busy, of {about['cores']}; load {loads}; "
        f"CRC-64 of the baseline: crcmod, {about['crcmod_of_baseline']}"
    )
    console.print(result["scaling"])
    for target in result["targets"]:
        word = "met   " if target["met"] else "MISSED"
        console.print(f"{word} {target['variant']}: {target['what']} {target['found']}, wanted {target['wanted']}")
