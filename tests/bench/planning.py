"""`python -m tests.bench.planning`: the time to plan the transfer of a model with thousands of files.

Two views. In this process, without a socket: reading and pinning the listing, and planning from the content of the
bucket; the ratio is to `json.loads` of the same listing, the unavoidable part. As a pod: the whole command
`python -m steps mirror-model --check`, with the embedded hub and bucket in their own processes.

All cases take turns, so that a busy machine is busy for all of them. The figures are medians of the runs.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from steps.adapters.modelscope.listing import LISTING_LIMIT, listing_of
from steps.adapters.modelscope.source import ModelScopeSource
from steps.adapters.oss.credentials import static_credentials
from steps.adapters.oss.store import OssStore
from steps.document.schema import load
from steps.mirror_model import Facts, plan
from steps.model import Listing
from steps.ports.oss import AccessKey, StoredObject, Upload
from steps.reconcile.plan import Plan
from steps.release import Release
from steps.transfer import manifest
from steps.transfer.bucket import object_key, state_key
from steps.transfer.inventory import Inventory, Unfinished
from steps.transfer.manifest import ManifestFile
from steps.transfer.shards import Shard
from tests.bench import report
from tests.bench.loopback import service
from tests.bench.services import BUCKET, KEY_ID, KEY_SECRET, REGION
from tests.support.samples import ROOT, SERVICES

MODEL = "bench/many-files"
MOST = LISTING_LIMIT - 1  # files of one listing that may be trusted
GIB = 1 << 30
SHARDS = 8
BASELINE = "json.loads of the listing"
WHOLE = "in all: read, pin and plan an update"
# Goals: (case, most seconds).
TARGETS = ((WHOLE, 1.0),)


class Cases:
    """Measurements in this process; inputs are made once, before."""

    def __init__(self, files: int) -> None:
        self.service = load(SERVICES / "demo.yaml", ("transfer.mode=streamed", f"model.id={MODEL}"))
        self.body = json.dumps(_answer(files)).encode()
        self.listing = self._read()
        self.release = Release(self.service, self.listing.digest)
        self.manifest = manifest.encode(
            manifest.compose(self.release, [ManifestFile(f.path, f.size, f.sha256, 1) for f in self.listing.files], 0.0)
        )
        self.elsewhere = {file.sha256: self._stored(file.path, file.size) for file in self.listing.files[2:]}
        self.half_way = self._half_way()

    def all(self) -> Mapping[str, Callable[[], object]]:
        return {
            BASELINE: lambda: json.loads(self.body),
            "read the listing": self._read,
            "plan a new model": lambda: self._plan(Inventory()),
            "plan an update, two files changed": lambda: self._plan(Inventory(elsewhere=self.elsewhere)),
            "plan after a kill half-way": lambda: self._plan(self.half_way),
            f"plan one of {SHARDS} shards": lambda: self._plan(Inventory(), Shard(0, SHARDS)),
            "read the manifest: nothing to do": lambda: manifest.decode(self.manifest),
            WHOLE: lambda: self._plan(Inventory(elsewhere=self.elsewhere), listing=self._read()),
        }

    def _read(self) -> Listing:
        return listing_of(self.body, "application/json", MODEL)

    def _plan(self, found: Inventory, shard: Shard | None = None, listing: Listing | None = None) -> Plan:
        # A listing caches its digest, so each run gets a new one.
        fresh = listing or Listing(self.listing.files)
        made = plan(self.release, Facts(None, fresh, found), shard)
        assert made.changes
        return made

    def _stored(self, path: str, size: int) -> StoredObject:
        return StoredObject(object_key(self.release, path), size, "etag", 1, {})

    def _half_way(self) -> Inventory:
        """Every second file is stored, every tenth of the others has an upload, and so many uploads are orphans."""
        there, absent = self.listing.files[::2], self.listing.files[1::2]
        begun = {
            file.path: Unfinished(
                Upload(object_key(self.release, file.path), f"upload-{number}"), state_key(self.release, file.path), 1
            )
            for number, file in enumerate(absent[::10])
        }
        return Inventory(
            stored={file.path: self._stored(file.path, file.size) for file in there},
            unfinished=begun,
            orphans=tuple(Upload(object_key(self.release, path), "orphan") for path in begun),
        )


def _answer(files: int) -> dict[str, Any]:
    """The hub's answer for so many files, in folders of a hundred."""
    entries = [
        {
            "CommitMessage": "Upload the model",
            "CommittedDate": 1_726_665_606,
            "CommitterName": "bench",
            "InCheck": False,
            "IsLFS": True,
            "Mode": "33188",
            "Name": f"part-{number:05}.safetensors",
            "Path": f"folder-{number // 100:03}/part-{number:05}.safetensors",
            "Revision": f"{number:040x}",
            "Sha256": hashlib.sha256(str(number).encode()).hexdigest(),
            "Size": GIB + number,
            "Type": "blob",
        }
        for number in range(files)
    ]
    return {"Code": 200, "Data": {"Files": entries}, "Message": "success", "RequestId": "bench", "Success": True}


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    result: dict[str, Any] = {"machine": report.machine(), "files": options.files}
    result["cases"] = _in_process(Cases(options.files), options.runs)
    if options.commands:
        with tempfile.TemporaryDirectory(prefix="slipway-bench-", dir=options.folder) as folder:
            result["commands"] = _commands(Path(folder), options.files, options.commands)
    result["machine"]["load_after"] = os.getloadavg()
    result["targets"] = [
        {"case": name, "wanted": f"at most {limit:g} s", "found": result["cases"][name]["s"]} for name, limit in TARGETS
    ]
    for target, (_, limit) in zip(result["targets"], TARGETS, strict=True):
        target["met"] = target["found"] <= limit
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _print(result)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.planning", description=__doc__)
    parser.add_argument("--files", type=_files, default=MOST, help=f"of the model; the hub lists at most {MOST}")
    parser.add_argument("--runs", type=int, default=9, help="runs of each case in this process")
    parser.add_argument("--commands", type=int, default=3, help="runs of each command; 0 for none")
    parser.add_argument("--folder", type=Path, help="where model and bucket go; default: as TMPDIR")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench" / "planning.json")
    return parser.parse_args(arguments)


def _files(text: str) -> int:
    if not 4 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"4 to {MOST}")
    return int(text)


def _in_process(cases: Cases, runs: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in cases.all()}
    for _ in range(runs):
        for name, case in cases.all().items():
            started = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - started)
    base = median(seconds[BASELINE])
    return {
        name: {"s": round(median(found), 4), "ratio": round(median(found) / base, 2), "slowest_s": round(max(found), 4)}
        for name, found in seconds.items()
    }


def _commands(folder: Path, files: int, runs: int) -> dict[str, Any]:
    """The command of a pod, from the start of the interpreter to its end, at three moments of a model's life."""
    for number in range(files):
        # In no folder: folders are entries of the listing, too, and count towards its limit.
        path = folder / "hub" / MODEL / f"part-{number:05}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number:016}", encoding="ascii")
    with service("hub", folder / "hub") as (hub, _), service("bucket", folder / "bucket") as (bucket, _):
        # The hub hashes its files once, which is no part of a plan.
        listing = ModelScopeSource(endpoint=hub, model_id=MODEL, revision="master").listing()
        store = OssStore(bucket, REGION, BUCKET, static_credentials(AccessKey(KEY_ID, KEY_SECRET)))
        release = Release(load(SERVICES / "demo.yaml", (f"model.id={MODEL}",)), listing.digest)
        step = _Step(hub, bucket, listing.digest)
        found = {"--check, nothing is stored": step.median(runs, "--check")}
        step.run()
        found["nothing to do"] = step.median(runs)
        store.delete([release.manifest_key])
        found["--check, only the manifest is missing"] = step.median(runs, "--check")
    return found


class _Step:
    def __init__(self, hub: str, bucket: str, digest: str) -> None:
        sets = ("model.id=" + MODEL, "transfer.mode=streamed")
        self._words = [
            *(sys.executable, "-m", "steps", "mirror-model", f"--document={SERVICES / 'demo.yaml'}"),
            *(f"--set={field}" for field in sets),
            f"--model-digest={digest}",
        ]
        self._environment = {
            "PATH": os.environ["PATH"],
            "SLIPWAY_MODELSCOPE_ENDPOINT": hub,
            "SLIPWAY_OSS_ENDPOINT": bucket,
            "SLIPWAY_TERMINATION_LOG": os.devnull,
            "OSS_ACCESS_KEY_ID": KEY_ID,
            "OSS_ACCESS_KEY_SECRET": KEY_SECRET,
        }

    def run(self, *more: str) -> float:
        """Seconds."""
        started = time.perf_counter()
        subprocess.run([*self._words, *more], cwd=ROOT, env=self._environment, check=True, capture_output=True)
        return time.perf_counter() - started

    def median(self, runs: int, *more: str) -> dict[str, float]:
        seconds = [self.run(*more) for _ in range(runs)]
        return {"s": round(median(seconds), 2), "slowest_s": round(max(seconds), 2)}


def _print(result: Mapping[str, Any]) -> None:
    console = Console(width=110, highlight=False)
    table = Table(title=f"{result['files']} files, without a socket; medians", title_justify="left")
    for heading in ("case", "ms", "slowest ms", "ratio to json.loads"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for name, row in result["cases"].items():
        table.add_row(name, f"{row['s'] * 1000:.1f}", f"{row['slowest_s'] * 1000:.1f}", f"{row['ratio']:.1f}")
    console.print(table)
    if "commands" in result:
        table = Table(title="python -m steps mirror-model, from start to end", title_justify="left")
        for heading in ("command", "s", "slowest s"):
            table.add_column(heading, justify="left" if heading == "command" else "right")
        for name, row in result["commands"].items():
            table.add_row(name, f"{row['s']:.2f}", f"{row['slowest_s']:.2f}")
        console.print(table)
    loads = " to ".join(f"{result['machine'][when][0]:.1f}" for when in ("load_before", "load_after"))
    console.print(f"{result['machine']['cores']} cores, load {loads}")
    for target in result["targets"]:
        word = "met   " if target["met"] else "MISSED"
        console.print(f"{word} {target['case']}: {target['found'] * 1000:.0f} ms, wanted {target['wanted']}")


if __name__ == "__main__":
    sys.exit(main())
