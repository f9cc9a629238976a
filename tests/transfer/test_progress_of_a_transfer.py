"""How far a transfer is: for Argo in megabytes, for logs as JSON lines, for people as one live line."""

import json
import os
import pty
import re
import subprocess  # noqa: TID251  # a terminal belongs to a process
import sys
import threading
from typing import Any

import pytest

from steps.errors import Exit
from steps.transfer.layout import MIB
from tests.support.commands import STATIC, Moment, call, surroundings, words
from tests.support.samples import ROOT
from tests.transfer.test_end_to_end import FILES, Services, total

LARGE = "model-00001-of-00003.safetensors"
ONE = "--set=transfer.workers=1"  # so that parts move one after another
MEGABYTES = total() // 10**6
STEPS: dict[str, list[tuple[str, ...]]] = {
    "streamed": [("mirror-model",)],
    "staged": [("download-model", "--set=transfer.mode=staged"), ("upload-model", "--set=transfer.mode=staged")],
}


def progress(said: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [line["progress"] for line in lines if line["message"] == "progress"]


@pytest.mark.parametrize("mode", STEPS)
def test_argo_reads_megabytes_and_a_log_has_json_lines(found: Services, mode: str) -> None:
    file = found.folder / "progress"
    for step in STEPS[mode]:
        file.unlink(missing_ok=True)
        ended = call(
            found,
            step[0],
            found.release().model_digest,
            *step[1:],
            environment={**STATIC, "ARGO_PROGRESS_FILE": str(file)},
        )
        assert ended.code == Exit.DONE, ended.said
        assert file.read_text() == f"{MEGABYTES}/{MEGABYTES}\n"
        last = progress(ended.said)[-1]
        assert (last["done_bytes"], last["total_bytes"]) == (total(), total())
        assert (last["files_done"], last["files_total"]) == (6, 6)
        assert {"bytes_per_second", "seconds_left", "current"} < last.keys()


def test_a_shard_tells_of_its_own_files_and_two_of_them_add_up(found: Services) -> None:
    sizes = []
    for number in range(2):
        file = found.folder / f"progress-{number}"
        environment = {**STATIC, "ARGO_PROGRESS_FILE": str(file)}
        shard = ("--set=transfer.shards=2", f"--shard={number}")
        ended = call(found, "mirror-model", found.release().model_digest, *shard, environment=environment)
        sizes.append(progress(ended.said)[-1]["total_bytes"])
        assert file.read_text() == f"{sizes[-1] // 10**6}/{sizes[-1] // 10**6}\n"
    assert sum(sizes) == total()


def test_what_an_earlier_run_brought_counts_as_neither_done_nor_to_do(found: Services, moment: Moment) -> None:
    digest, at_hub = found.release().model_digest, found.model / LARGE
    moment.at(6, lambda: at_hub.write_bytes(b"gone for a moment"))
    assert call(found, "mirror-model", digest, ONE).code == Exit.BLOCKED
    at_hub.write_bytes(FILES[LARGE])
    found.hub.requests.clear()
    ended = call(found, "mirror-model", digest, ONE)
    assert ended.code == Exit.DONE, ended.said
    spans = [re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers["range"]) for asked in found.hub.received("/prod/")]
    fetched = sum(int(span[2]) - int(span[1]) + 1 for span in spans if span)
    assert 0 < fetched < total() - 5 * MIB
    last = progress(ended.said)[-1]
    assert (last["done_bytes"], last["total_bytes"]) == (fetched, fetched)


def test_a_terminal_has_one_live_line_with_files_bytes_rate_and_time_left(found: Services, moment: Moment) -> None:
    shown = threading.Event()
    moment.at(5, lambda: shown.wait(60))  # else it may be over before there is anything to see
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "steps", *words(found, "mirror-model", found.release().model_digest)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "200", **surroundings(found)},  # noqa: TID251  # of a test's own process
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    with process:
        said = everything(ours, shown)
    assert process.returncode == Exit.DONE, said
    live = re.findall(r"\r\x1b\[2K  (\d+%  .*?)(?=\r|\n)", said)
    assert live, said
    assert re.match(r"\d+%  [\d.]+ .?B of 13\.6 MB, \d of 6 files, [\d.]+ .?B/s", live[0])
    assert re.match(r"100%  13\.6 MB of 13\.6 MB, 6 of 6 files, [\d.]+ .?B/s, 0s left", live[-1])
    assert any(re.search(r"model-0000\d-of-00003\.safetensors \d+%", line) for line in live)
    # Every line that stays is free of the live one.
    assert "RECAP mirror-model: ok=1 changed=7 failed=0" in said


def everything(terminal: int, shown: threading.Event) -> str:
    """The output at the other end until it is closed, which is EIO on Linux."""
    said = b""
    while True:
        try:
            said += os.read(terminal, 1 << 16)
            if re.search(rb"safetensors \d+%", said):
                shown.set()
        except OSError:
            os.close(terminal)
            return said.decode()
