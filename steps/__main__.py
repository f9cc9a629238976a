"""`python -m steps STEP --service FILE`: run one step, on a laptop or in a pod, with the same words."""

import argparse
import gc
import logging
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from steps import wiring
from steps.catalogue import CATALOGUE
from steps.document.overrides import BY_HAND, InForce, Wanted, given, of_text
from steps.document.schema import read
from steps.errors import DocumentError, Exit, Interrupted, StepError, exit_code
from steps.model import MalformedDigestError, ModelDigest
from steps.reconcile import outputs
from steps.reconcile.clock import SystemClock
from steps.reconcile.closed_pipe import run_command
from steps.reconcile.converge import check, converge
from steps.reconcile.logs import set_up
from steps.reconcile.plain_text import make_streams_plain, plain_bytes
from steps.reconcile.report import StreamReport, stdout_report

log = logging.getLogger("steps")

# Objects between two looks of the garbage collector. With its default, the import of an SDK alone costs 100 of them,
# and a step leaves hardly any garbage that it would find.
GARBAGE = 50_000
TERMINATION_LOG_LIMIT = 4096  # bytes that Kubernetes keeps


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
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
        _ignore_signals()  # the end of a step is short, and half a recap helps nobody
        report.recap(options.step)
    if reason:
        _tell_kubernetes(reason)
    if options.outputs:
        recap = {**report.counts, "exit": int(code), "reason": reason, "seconds": round(clock.now() - started, 3)}
        outputs.write_json(recap, options.outputs / outputs.RECAP_FILE)
        said = "; ".join(filter(None, (report.in_one_line(), verdict)))
        outputs.write_text(said, options.outputs / outputs.RECAP)
    return int(code)


def _run(options: argparse.Namespace, report: StreamReport, clock: SystemClock) -> str:
    """The verdict of a step that only judges, else nothing."""
    run = options.run_name if options.run_name and "{{" not in options.run_name else BY_HAND
    wanted = Wanted(read(options.service), given(options.parameter), tuple(options.set), run)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m steps",
        description="Run one step of the line: look, change only what differs, say what was found.",
        epilog="Exit codes: 0 done, 2 usage, 10 the document is wrong, 11 blocked, 12 not converging, 13 deadline, "
        "75 no answer (run again), 1 a bug.",
    )
    parser.add_argument("step", choices=sorted(CATALOGUE), metavar="STEP", help=", ".join(CATALOGUE))
    parser.add_argument("--service", type=Path, required=True, metavar="FILE", help="the ModelService document")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="edit one field of the document for this step alone; may repeat. No later run inherits it",
    )
    parser.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="parameter of the run, such as image=…, which later runs inherit once it is promoted; document: as in the "
        "document; empty: as inherited; may repeat",
    )
    parser.add_argument(
        "--overrides",
        type=_overrides,
        metavar="TEXT",
        help="the overrides that resolve-model found in force; document: none. Default: those of the release record; "
        "none for a transfer and for the exit handler",
    )
    parser.add_argument("--model-digest", type=_digest, metavar="sha256:…", help="the digest that resolve-model pinned")
    parser.add_argument(
        "--proved-release", default="", metavar="ID", help="promote-release: the release that smoke-test proved"
    )
    parser.add_argument(
        "--scratch", type=Path, default=Path("/scratch"), metavar="DIR", help="scratch volume of a transfer"
    )
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="NUMBER",
        help="mirror-model: move only the files of this shard, from 0 to transfer.shards - 1; all (the default): move "
        "what is left, and write the manifest",
    )
    parser.add_argument("--outputs", type=Path, metavar="DIR", help="write outputs here, one file each")
    parser.add_argument(
        "--run-name", default="", help="name of the run, in whose name the service is changed; default: this step alone"
    )
    parser.add_argument(
        "--run-status", default="", help="roll-back, report-run: Succeeded, Failed or Error; default: started by hand"
    )
    parser.add_argument("--run-uid", default="", help="create-scratch: the uid of the Workflow that owns the claim")
    parser.add_argument(
        "--record-counter",
        type=int,
        metavar="NUMBER",
        help="counter of the release record that resolve-model read: the step changes nothing once another run has "
        "raised it; default: no matter which release was promoted last",
    )
    parser.add_argument("--check", action="store_true", help="say what would be done, and change nothing")
    parser.add_argument("--diff", action="store_true", help="show each object before and after")
    parser.add_argument("--verbose", action="store_true", help="log more to stderr")
    return parser


def _digest(text: str) -> ModelDigest:
    try:
        return ModelDigest(text)
    except MalformedDigestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _overrides(text: str) -> tuple[InForce, ...]:
    try:
        return of_text(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _shard(text: str) -> int | None:
    return None if text == "all" else int(text)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    _ignore_signals()  # Ctrl-C reaches the whole process group, and then the parent asks again
    raise Interrupted(f"stopped by {signal.Signals(number).name}. Next: run it again, it goes on from here")


def _ignore_signals() -> None:
    # Not SIG_IGN: a signal that already waits for its handler would become an OSError at a random place.
    signal.signal(signal.SIGTERM, _do_nothing)
    signal.signal(signal.SIGINT, _do_nothing)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Somebody asks again; the step is ending already."""


def _tell_kubernetes(reason: str) -> None:
    """The termination message shows on the node in Argo, which pastes it into templates (`workflow.failures`)."""
    path = wiring.termination_log()
    if not path.exists():
        return
    try:
        path.write_bytes(plain_bytes(reason, TERMINATION_LOG_LIMIT))
    except OSError as error:
        log.warning("cannot write the termination message: %s", error)


if __name__ == "__main__":
    make_streams_plain()  # for the whole process: an error that leaves `main` is printed after it
    sys.exit(run_command(main))
