"""`python -m workflows run | render | submit | status | schema`: everything around the steps."""

import argparse
import sys
from pathlib import Path

from steps.errors import DocumentError, Exit, StepError
from steps.reconcile.closed_pipe import run_command

ROOT = Path(__file__).parents[1]


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.act(options))
    except DocumentError as error:
        sys.stderr.write(f"{error}\n")
        return Exit.DOCUMENT
    except StepError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit


def _run(options: argparse.Namespace) -> int:
    from workflows import rehearsal  # noqa: PLC0415  # each command loads only what it needs
    from workflows.simulator.launch import RehearsalError  # noqa: PLC0415

    try:
        return rehearsal.run(
            rehearsal.Options(options.service, tuple(options.set), options.state, options.port, keep=options.keep)
        )
    except RehearsalError as error:
        sys.stderr.write(f"{error}\n")
        return Exit.BLOCKED


def _render(options: argparse.Namespace) -> int:
    from workflows.argo import bundle  # noqa: PLC0415  # hera alone costs half a second

    if options.service:
        lines = bundle.write_bundle(options.service, options.argo, options.out)
    elif options.check:
        drifted = bundle.drift(ROOT)
        sys.stderr.writelines(f"{sentence}\n" for sentence in drifted)
        return Exit.BUG if drifted else Exit.DONE
    else:
        lines = [str(path) for path in bundle.write_all(ROOT)]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return Exit.DONE


def _submit(options: argparse.Namespace) -> int:
    from workflows.commands import run  # noqa: PLC0415  # no Hera for who only starts a run

    start = run.Start(
        target=options.target,
        overrides=tuple(options.set),
        run_id=options.run_id,
        trigger="ci" if options.event else options.trigger,
        reason=options.reason,
        wait=not options.no_wait,
        minutes=options.timeout,
        recap=options.recap,
    )
    return run.submit(start, run.Place(options.namespace, options.argo_server, options.event))


def _status(options: argparse.Namespace) -> int:
    from workflows.commands import run  # noqa: PLC0415  # no Hera for who only looks at runs

    place = run.Place(options.namespace, options.argo_server)
    return run.status(options.target, place, follow=options.follow, last=options.last)


def _schema(_options: argparse.Namespace) -> int:
    from workflows.argo.bundle import schema_text  # noqa: PLC0415

    sys.stdout.write(schema_text())
    return Exit.DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workflows", description="Run the line, or write its manifests.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the line on this machine, against embedded services")
    run.add_argument("service", type=Path, help="the ModelService document")
    run.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override one field; may repeat")
    run.add_argument(
        "--state", type=Path, default=Path(".slipway"), metavar="DIR", help="folder of the embedded services"
    )
    run.add_argument("--keep", action="store_true", help="keep serving after the run, until Ctrl-C")
    run.add_argument("--port", type=int, default=0, help="port of the Service on this machine; default any free one")
    run.set_defaults(act=_run)
    render = commands.add_parser("render", help="write the Argo manifests of a document, or all generated files again")
    render.add_argument("service", type=Path, nargs="?", help="the ModelService document; default: the committed files")
    render.add_argument("--argo", default="3.5", metavar="3.5…4.1", help="the Argo of the cluster (`argo version`)")
    render.add_argument("--out", type=Path, default=Path("build/argo"), metavar="DIR", help="folder to write to")
    render.add_argument("--check", action="store_true", help="write nothing; fail if a committed file has drifted")
    render.set_defaults(act=_render)
    _add_runs(commands)
    schema = commands.add_parser("schema", help="print the JSON Schema of the document")
    schema.set_defaults(act=_schema)
    return parser


def _add_runs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("-n", "--namespace", default="", help="of the workflow; default: as in the document, or slipway")
    place.add_argument(
        "--argo-server",
        metavar="ADDRESS",
        help="ask Argo Server, as host:port or a URL, with the token in ARGO_TOKEN; default: ARGO_SERVER as Argo's own "
        "command line reads it, and without it, or with an empty ADDRESS, the Kubernetes API of the kubeconfig",
    )
    submit = commands.add_parser(
        "submit",
        parents=[place],
        help="start a run on a cluster and follow it",
        description="Start a run from the WorkflowTemplate of a service and follow it. Ctrl-C ends the following, not "
        "the run.",
        epilog="Exit codes: 0 the run succeeded, 10 an override or the document is wrong, 11 the run failed or could "
        "not be started, 13 gave up waiting, 75 no answer, or stopped following.",
    )
    submit.add_argument(
        "target", metavar="SERVICE", help="name of the WorkflowTemplate, or the document of the service"
    )
    submit.add_argument(
        "-p",
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override one parameter, which later "
        "runs inherit until the document changes; NAME=document resets it; may repeat",
    )
    submit.add_argument(
        "--run-id", default="", metavar="ID", help="end of the name of the run; the same starts one run"
    )
    submit.add_argument("--trigger", choices=("manual", "ci"), default="manual", help="label of the run")
    submit.add_argument(
        "--reason", default="", metavar="TEXT", help="why, for the title of the run; default: its trigger"
    )
    submit.add_argument("--event", action="store_true", help="start it by the event binding instead of submitting it")
    submit.add_argument("--no-wait", action="store_true", help="start it and leave")
    submit.add_argument("--timeout", type=float, metavar="MINUTES", help="give up following after this time")
    submit.add_argument("--recap", type=Path, metavar="FILE", help="write the recap of all tasks as Markdown")
    submit.set_defaults(act=_submit)
    status = commands.add_parser("status", parents=[place], help="show a run with its tasks, or the last runs")
    status.add_argument("target", nargs="?", default="", metavar="RUN|SERVICE", help="default: all services")
    status.add_argument(
        "--follow", action="store_true", help="follow the run to its end, with the exit codes of submit"
    )
    status.add_argument("--last", type=int, default=10, metavar="N", help="how many runs to list")
    status.set_defaults(act=_status)


if __name__ == "__main__":
    sys.exit(run_command(main))
