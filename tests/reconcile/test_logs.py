"""Logs are JSON lines on stderr when nobody watches, and never hold what an SDK prints while it debugs."""

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from steps.reconcile.logs import set_up


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, steps = logging.getLogger(), logging.getLogger("steps")
    handlers, level, steps_level = root.handlers[:], root.level, steps.level
    root.handlers = []  # else `set_up` would close the ones of the test runner
    yield
    root.handlers = handlers
    root.setLevel(level)
    steps.setLevel(steps_level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_is_json_and_says_which_step_of_which_service(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(step="upload-model", service="qwen3-32b", verbose=False)
    logging.getLogger("steps.transfer").info("sent %s", "part 3", extra={"bytes": 16})
    (line,) = lines(capsys)
    assert line.pop("time")
    assert line == {
        "level": "info",
        "logger": "steps.transfer",
        "step": "upload-model",
        "service": "qwen3-32b",
        "message": "sent part 3",
        "bytes": 16,
    }


def test_a_traceback_is_one_field_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(step="a", service="b", verbose=False)
    logging.getLogger("steps").error("unexpected error", exc_info=KeyError("lost"))
    (line,) = lines(capsys)
    assert "KeyError: 'lost'" in line["traceback"]


def test_what_is_no_json_is_shown_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(step="a", service="b", verbose=False)
    logging.getLogger("steps").warning("odd", extra={"path": sys})
    (line,) = lines(capsys)
    assert "module 'sys'" in line["path"]


@pytest.mark.parametrize("verbose", [False, True])
def test_an_sdk_that_debugs_is_not_heard(capsys: pytest.CaptureFixture[str], verbose: bool) -> None:
    set_up(step="a", service="b", verbose=verbose)
    logging.getLogger("oss2.api").debug("signed with secret %s", "dummy")
    assert lines(capsys) == []


def test_verbose_lets_our_own_debugging_be_heard(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(step="a", service="b", verbose=False)
    logging.getLogger("steps.a").debug("quiet")
    set_up(step="a", service="b", verbose=True)
    logging.getLogger("steps.a").debug("loud")
    assert [line["message"] for line in lines(capsys)] == ["loud"]
