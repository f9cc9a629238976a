"""What people read: four words, progress, and a recap."""

import io
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from steps.reconcile.plan import Change
from steps.reconcile.report import EVERY, Progress, StreamReport, size
from tests.support.fakes import FakeClock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report_to(stream: io.StringIO, clock: FakeClock | None = None, **options: Any) -> StreamReport:
    return StreamReport(stream, clock or FakeClock(), **options)


def test_the_four_words_and_the_recap() -> None:
    stream = io.StringIO()
    report = report_to(stream)
    report.ok(["claim is bound", "secret is as wanted"])
    report.changed(Change("create", "PersistentVolume/llm-model-1a2b3c4d5e", "absent"))
    report.waiting(["claim is Pending"])
    report.failed("no GPU")
    report.note("the model says hello")
    report.recap("create-volume")
    assert stream.getvalue().splitlines() == [
        "ok       claim is bound",
        "ok       secret is as wanted",
        "changed  create PersistentVolume/llm-model-1a2b3c4d5e (absent)",
        "waiting  claim is Pending",
        "failed   no GPU",
        "the model says hello",
        "RECAP create-volume: ok=2 changed=1 failed=1",
    ]


def test_one_line_says_whether_anything_changed_and_names_the_first_changes() -> None:
    report = report_to(io.StringIO())
    report.ok(["a", "b"])
    assert report.in_one_line() == "nothing changed, 2 ok"
    report.failed("no GPU")
    assert report.in_one_line() == "nothing changed, 2 ok, 1 failed"
    for name in "abcde":
        report.changed(Change("create", name))
    assert report.in_one_line() == "5 changed: create a; create b; create c and 2 more"


def test_each_reason_to_wait_is_told_once() -> None:
    stream = io.StringIO()
    report = report_to(stream)
    for reasons in (["a"], ["a"], ["a", "b"], ["b", "a"]):
        report.waiting(reasons)
    assert stream.getvalue().splitlines() == ["waiting  a", "waiting  b"]


def test_a_text_from_outside_is_printed_as_it_is() -> None:
    stream = io.StringIO()
    report = report_to(stream)
    text = "[bold]args[/] [0] " + "x" * 300
    report.note(text)
    report.failed(text)
    assert stream.getvalue().splitlines() == [text, f"failed   {text}"]


def test_a_difference_is_shown_in_diff_mode_only() -> None:
    change = Change("update", "Service/a", before={"port": 1, "name": "a"}, after={"port": 2, "name": "a"})
    plain, diff = io.StringIO(), io.StringIO()
    report_to(plain).changed(change)
    report_to(diff, diff=True).changed(change)
    assert plain.getvalue() == "changed  update Service/a\n"
    assert diff.getvalue().splitlines()[-3:] == [" name: a", "-port: 1", "+port: 2"]


def test_a_new_object_is_shown_whole_in_diff_mode() -> None:
    stream = io.StringIO()
    report_to(stream, diff=True).changed(Change("create", "Service/a", after={"port": 2}))
    assert "+port: 2" in stream.getvalue().splitlines()


HALF = Progress(done=500_000_000, total=1_000_000_000, files_done=1, files_total=3, current="a", rate=1e8)
DONE = Progress(done=1_000_000_000, total=1_000_000_000, files_done=3, files_total=3, rate=1e8)


def test_progress_is_a_log_record_with_numbers_when_nobody_watches(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    with caplog.at_level(logging.INFO, "steps.reconcile.report"):
        report_to(stream).progress(HALF)
    assert stream.getvalue() == ""
    assert vars(caplog.records[0])["progress"] == {
        "done_bytes": 500_000_000,
        "total_bytes": 1_000_000_000,
        "files_done": 1,
        "files_total": 3,
        "bytes_per_second": 100_000_000,
        "seconds_left": 5,
        "current": "a",
    }


def test_progress_is_not_told_too_often_and_its_end_always_is(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    report = report_to(io.StringIO(), clock)
    with caplog.at_level(logging.INFO, "steps.reconcile.report"):
        for _ in range(100):
            report.progress(HALF)
            clock.sleep(EVERY / 10)
        assert len(caplog.records) == 10
        report.progress(DONE)
    assert vars(caplog.records[-1])["progress"]["done_bytes"] == 1_000_000_000


def test_a_terminal_has_one_live_line_that_gives_way_to_the_next_word() -> None:
    stream = Terminal()
    report = report_to(stream)
    report.progress(HALF)
    assert "50%  500.0 MB of 1.0 GB, 1 of 3 files, 100.0 MB/s, 5s left  a" in stream.getvalue()
    assert not stream.getvalue().endswith("\n")
    before = len(stream.getvalue())
    report.note("next")
    assert stream.getvalue()[before:] == "\r\x1b[2Knext\n"


def test_argo_reads_progress_in_megabytes(tmp_path: Path) -> None:
    file = tmp_path / "progress"
    report = report_to(io.StringIO(), progress_file=file)
    report.progress(HALF)
    assert file.read_text() == "500/1000\n"
    report.progress(DONE)
    assert file.read_text() == "1000/1000\n"


def test_argo_never_reads_more_than_all_nor_a_total_of_nothing(tmp_path: Path) -> None:
    file = tmp_path / "progress"
    report_to(io.StringIO(), progress_file=file).progress(Progress(2_000_000, 1_000, 1, 1))
    assert file.read_text() == "1/1\n"


def test_a_transfer_goes_on_without_a_progress_file_that_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = report_to(io.StringIO(), progress_file=tmp_path / "absent" / "progress")
    report.progress(DONE)
    report.progress(DONE)
    assert [record.message.startswith("cannot write the progress file") for record in caplog.records].count(True) == 1


def test_workers_may_report_at_the_same_time() -> None:
    stream = io.StringIO()
    report = report_to(stream)
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for _ in range(50):
            report.changed(Change("create", "oss://bucket/key"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert report.counts["changed"] == 400
    assert set(stream.getvalue().splitlines()) == {"changed  create oss://bucket/key"}


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(0, 0, 0, 0), "100%  0 B of 0 B, 0 of 0 files, 0 B/s"),
        (Progress(1, 3, 0, 1), "33%  1 B of 3 B, 0 of 1 files, 0 B/s"),
        (Progress(0, 65_500_000_000, 0, 29, rate=1e7), "0%  0 B of 65.5 GB, 0 of 29 files, 10.0 MB/s, 1h49m left"),
        (Progress(0, 6_000, 0, 1, rate=50), "0%  0 B of 6.0 kB, 0 of 1 files, 50 B/s, 2m00s left"),
    ],
)
def test_progress_reads_like_a_sentence(progress: Progress, text: str) -> None:
    assert str(progress) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (65_534_000_000, "65.5 GB"), (10**12, "1.0 TB")],
)
def test_sizes_are_in_the_units_that_clouds_bill(count: int, text: str) -> None:
    assert size(count) == text


def test_a_message_from_outside_does_not_move_the_cursor_of_a_log() -> None:
    stream = io.StringIO()

    report_to(stream).note("fine\rcorrupted\x08\x07")

    assert stream.getvalue() == "finecorrupted\n"
