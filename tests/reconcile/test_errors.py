"""The exit code says what the reader should do."""

import pytest

from steps.errors import (
    Blocked,
    DeadlineExceeded,
    DocumentError,
    Exit,
    Interrupted,
    NotConverging,
    StepError,
    TransientError,
    exit_code,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DocumentError("wrong"), 10),
        (Blocked("no GPU"), 11),
        (NotConverging("undone"), 12),
        (DeadlineExceeded("late"), 13),
        (TransientError("no answer"), 75),
        (Interrupted("SIGTERM"), 75),
        (KeyError("a bug"), 1),
        (KeyboardInterrupt(), 1),
    ],
)
def test_each_kind_of_failure_has_its_code(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_every_error_of_a_step_has_a_code_of_the_table() -> None:
    def kinds(of: type[StepError]) -> set[type[StepError]]:
        return {of, *(kind for sub in of.__subclasses__() for kind in kinds(sub))}

    codes = {kind.exit for kind in kinds(StepError) - {StepError}}
    assert codes == {Exit.BLOCKED, Exit.NOT_CONVERGING, Exit.DEADLINE, Exit.NO_ANSWER}


def test_an_error_says_what_to_do_next_if_there_is_something_to_do() -> None:
    assert str(Blocked("no GPU", "add a node")) == "no GPU. Next: add a node"
    assert str(Blocked("no GPU")) == "no GPU"


def test_an_interruption_passes_whatever_tries_again_or_forgives() -> None:
    assert not issubclass(Interrupted, Exception)
    assert str(Interrupted("stopped by SIGTERM")) == "stopped by SIGTERM"
