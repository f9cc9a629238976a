"""`python -m steps STEP --document FILE`: one step, with the same command in a pod and on a laptop."""

import argparse
import gc
import logging
import signal
import sys
from types import FrameType
from typing import NoReturn

from steps import wiring
from steps.catalogue import CATALOGUE
from steps.command_line import parser
from steps.document.overrides import BY_HAND, Wanted, given
from steps.document.schema import read
from steps.errors import DocumentError, Exit, Interrupted, StepError, exit_code
from steps.reconcile import outputs
from steps.reconcile.clock import SystemClock
from steps.reconcile.closed_pipe import run_command
from steps.reconcile.converge import check, converge
from steps.reconcile.logs import set_up
from steps.reconcile.plain_text import make_streams_plain, plain_bytes
from steps.reconcile.report import StreamReport, stdout_report

log = logging.getLogger("steps")

# Objects between two collections. With the default of Python, the import of an SDK alone costs 100 of them, and a step
# leaves hardly any garbage.
GARBAGE = 50_000
TERMINATION_LOG_LIMIT = 4096  # bytes that Kubernetes keeps


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    options = parser(words).parse_args(words)
    gc.set_threshold(GARBAGE)
    clock = SystemClock()
    report = stdout_report(clock, diff=options.diff, progress_file=wiring.progress_file())
    started, reason, verdict, code = clock.now(), "", "", Exit.DONE
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        verdict = _run(options, report, clock)
    except (StepError, DocumentError, Interrupted) as error:
        reason, code = str(error), exit_code(error)
        if not report.counts["failed"]:
            report.failed(reason)
    except Exception:
        reason, code = "a bug in Slipway; the traceback is in the log of this step", Exit.BUG
        log.exception("unexpected error")
        report.failed(reason)
    finally:
        _ignore_signals()  # the end of a step is short, and half a recap is no help
        report.recap(options.step)
    if reason:
        _write_termination_message(reason)
    if options.outputs:
        recap = {**report.counts, "exit": int(code), "reason": reason, "seconds": round(clock.now() - started, 3)}
        outputs.write_json(recap, options.outputs / outputs.RECAP_FILE)
        line = "; ".join(filter(None, (report.in_one_line(), verdict)))
        outputs.write_text(line, options.outputs / outputs.RECAP)
    return int(code)


def _run(options: argparse.Namespace, report: StreamReport, clock: SystemClock) -> str:
    """The verdict of a step that only checks; empty for every other one."""
    run = options.run_name if options.run_name and "{{" not in options.run_name else BY_HAND
    wanted = Wanted(read(options.document), given(options.parameter), tuple(options.set), run)
    resolved = wanted.resolve(options.overrides or ())
    set_up(step=options.step, service=resolved.service.name, verbose=options.verbose)
    step = wiring.build(
        options.step,
        wiring.Invocation(
            service=resolved.service,
            model_digest=options.model_digest,
            proved_release=options.proved_release,
            scratch=options.scratch,
            run_name=options.run_name,
            run_status=options.run_status,
            run_uid=options.run_uid,
            record_counter=options.record_counter,
            shard=options.shard,
            check=options.check,
            wanted=wanted,
            overrides=resolved.overrides,
            inherits=options.overrides is None,
        ),
    )
    if options.check:
        check(step, report)
        return ""
    found = converge(step, report, clock, no_answer_seconds=CATALOGUE[options.step].no_answer_seconds).outputs
    if options.outputs:
        outputs.write(found, options.outputs)
    return found.verdict if isinstance(found, outputs.Judged) else ""


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    _ignore_signals()  # Ctrl-C reaches the whole process group, and the parent signals its steps as well
    raise Interrupted(f"stopped by {signal.Signals(number).name}. Next: run it again, it goes on from here")


def _ignore_signals() -> None:
    # Not SIG_IGN: a signal that already waits for its handler would become an OSError at a random place.
    signal.signal(signal.SIGTERM, _do_nothing)
    signal.signal(signal.SIGINT, _do_nothing)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """A second signal: the step is ending already."""


def _write_termination_message(reason: str) -> None:
    """The termination message shows on the node in Argo, which pastes it into templates (`workflow.failures`)."""
    path = wiring.termination_log()
    if not path.exists():
        return
    try:
        path.write_bytes(plain_bytes(reason, TERMINATION_LOG_LIMIT))
    except OSError as error:
        log.warning("cannot write the termination message: %s", error)


if __name__ == "__main__":
    make_streams_plain()  # of the whole process: Python prints an error that leaves `main`
    sys.exit(run_command(main))
