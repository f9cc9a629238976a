"""Errors by the action of the reader.

StepError
├── Blocked           11   a precondition is missing or contradicted  -> correct it, run again
├── NotConverging     12   a change was made and is needed again      -> find the writer that undoes it
├── DeadlineExceeded  13   late                                       -> raise the deadline, or check the pods
└── TransientError    75   no answer                                  -> Argo retries
Interrupted           75   SIGTERM or Ctrl-C                          -> run again, which resumes
DocumentError         10   the document is wrong                      -> correct the document

The command line exits with 2; any other exception is a bug: 1. Argo's executor keeps 64 and 65.
https://argo-workflows.readthedocs.io/en/latest/workflow-executors/
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import ClassVar


class Exit(IntEnum):
    DONE = 0
    BUG = 1
    USAGE = 2
    DOCUMENT = 10
    BLOCKED = 11
    NOT_CONVERGING = 12
    DEADLINE = 13
    NO_ANSWER = 75  # the only code that Argo retries


# Of commands and of pods, as `slipway --help` and `python -m steps --help` show them.
MEANINGS: Mapping[Exit, str] = {
    Exit.DONE: "done",
    Exit.BUG: "a bug",
    Exit.USAGE: "wrong usage",
    Exit.DOCUMENT: "the document is wrong",
    Exit.BLOCKED: "blocked, refused or not proved",
    Exit.NOT_CONVERGING: "not converging",
    Exit.DEADLINE: "deadline exceeded",
    Exit.NO_ANSWER: "no answer, or interrupted: run it again; the only code that Argo retries",
}


class DocumentError(Exception):
    """The document is wrong; the message lists each error with its path, the value found and the values allowed."""


class StepError(Exception):
    """An error that a person can act on.

    `reason` names the failed operation, its object, the state found and the state expected; `hint` is the next action.
    """

    exit: ClassVar[Exit]

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.reason}. Next: {self.hint}" if self.hint else self.reason


class Blocked(StepError):
    exit = Exit.BLOCKED


class NotConverging(StepError):
    exit = Exit.NOT_CONVERGING


class DeadlineExceeded(StepError):
    exit = Exit.DEADLINE


class TransientError(StepError):
    exit = Exit.NO_ANSWER


class Interrupted(BaseException):
    """SIGTERM or Ctrl-C arrived; finished work is kept, and the next run resumes.

    Like KeyboardInterrupt it is no Exception, so that handlers of errors and retries let it pass.
    """

    exit: ClassVar[Exit] = Exit.NO_ANSWER


def exit_code(error: BaseException) -> Exit:
    """The exit code of the kind of failure, for Argo and for the person on call."""
    if isinstance(error, (StepError, Interrupted)):
        return error.exit
    return Exit.DOCUMENT if isinstance(error, DocumentError) else Exit.BUG


def exit_codes() -> str:
    """The table of exit codes for the end of a help text."""
    return "exit codes:\n" + "\n".join(f"  {code:>2}  {meaning}" for code, meaning in MEANINGS.items())
