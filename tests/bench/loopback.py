"""Where a transfer is measured: a hub with a model, an empty bucket and a drain, each in a process of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.adapters.modelscope.source import ModelScopeSource
from steps.catalogue import CATALOGUE
from steps.model import Listing
from tests.bench.measure import Command, cpu_of
from tests.bench.services import KEY_ID, KEY_SECRET
from tests.support.samples import ROOT, SERVICES

MODEL = "bench/model"
GB = 10**9
SMALL = {"config.json": 700, "generation_config.json": 240, "tokenizer.json": 7_000_000, "vocab.json": 2_800_000}
CHUNK = 1 << 24  # bytes
KINDS = ("hub", "bucket", "drain")


@dataclass(frozen=True)
class Bench:
    """Where everything is."""

    hub: str  # URL
    bucket: str  # URL
    drain: str  # host:port
    services: tuple[int, ...]  # process ids
    listing: Listing
    disk: Path  # folder for the files of a client
    log: Any  # output of the clients

    @property
    def cpu_of_services(self) -> float:
        """CPU seconds of hub, bucket and drain since they began."""
        return sum(cpu_of(process) for process in self.services)

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
            f"--document={SERVICES / 'demo.yaml'}",
            f"--model-digest={self.listing.digest}",
            *(
                [f"--scratch={self.disk / 'scratch'}"]
                if name in CATALOGUE and "scratch" in CATALOGUE[name].options
                else []
            ),
            *(f"--set={field}={value}" for field, value in sets.items()),
            *arguments,
        )

    def url(self, path: str) -> str:
        query = urllib.parse.urlencode({"Revision": "master", "FilePath": path})
        return f"{self.hub}/api/v1/models/{MODEL}/repo?{query}"

    def clean(self) -> None:
        shutil.rmtree(self.disk)
        self.disk.mkdir()
        os.sync()  # no client pays for the unwritten bytes of another one


@contextmanager
def bench(folder: Path, gb: float, files: int, log: Any, *, rate: int = 0) -> Iterator[Bench]:
    """A model of `gb` GB in so many large files at a hub, and an empty bucket; all of it is gone afterwards.

    One file alone is a hole, because only the memory that it takes is measured. `rate` is what one connection to the
    hub gets, in bytes a second.
    """
    here = Path(tempfile.mkdtemp(dir=folder))
    try:
        _write_model(here / "hub" / MODEL, gb, files)
        with ExitStack() as stack:
            started = [stack.enter_context(service(kind, here / kind, rate)) for kind in KINDS]
            hub, bucket, drain = (address for address, _ in started)
            listing = ModelScopeSource(endpoint=hub, model_id=MODEL, revision="master").listing()
            (here / "disk").mkdir()
            yield Bench(hub, bucket, drain, tuple(process for _, process in started), listing, here / "disk", log)
    finally:
        shutil.rmtree(here)


@contextmanager
def service(kind: str, folder: Path, rate: int = 0) -> Iterator[tuple[str, int]]:
    """One service in a process of its own: its address and its process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.services", kind, str(folder), f"--rate={rate}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    with process, process.stdin:
        yield process.stdout.readline().strip(), process.pid


def _write_model(folder: Path, gb: float, count: int) -> None:
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
