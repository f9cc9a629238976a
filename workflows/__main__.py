"""`slipway`, the same as `python -m workflows`: the arguments of every verb."""

import argparse
import sys
from pathlib import Path
from typing import TypeAlias

from steps import __version__
from steps.errors import DocumentError, Exit, StepError, exit_code
from steps.reconcile.closed_pipe import run_command
from workflows.commit import commit
from workflows.overview import VERBS, full_help, overview

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  # it has no public name
STEP = "step"
# Completion of a path: shtab.FILE, which costs an import.
FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}


def console() -> int:
    return run_command(main)


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words[:1] == [STEP]:  # it has a command line of its own
            from workflows.commands.step import step  # noqa: PLC0415  # each verb loads only what it needs

            step(words[1:])
        options = parser().parse_args(words)
        return int(options.act(options))
    except (DocumentError, StepError) as error:
        sys.stderr.write(f"{error}\n")
        return exit_code(error)
    except KeyboardInterrupt:
        return Exit.NO_ANSWER


class Slipway(argparse.ArgumentParser):
    """Its help shows the verbs by group."""

    def format_help(self) -> str:
        return full_help()


def parser() -> argparse.ArgumentParser:
    found = Slipway(prog="slipway")
    found.add_argument("--version", action="version", version=f"slipway {__version__} (commit {commit()})")
    found.set_defaults(act=_overview)
    verbs = found.add_subparsers(metavar="VERB", parser_class=argparse.ArgumentParser)
    _add_check(verbs)
    _add_render(verbs)
    _add_rehearse(verbs)
    connection = _connection()
    _add_submit(verbs, connection)
    _add_runs(verbs, connection)
    _add_logs(verbs, connection)
    _add_hidden(verbs)
    return found


def _overview(_options: argparse.Namespace) -> int:
    sys.stdout.write(overview())
    return Exit.DONE


def _add_check(verbs: Verbs) -> None:
    check = _verb(
        verbs, "check", "Exit codes: 0 no finding, 10 the document is wrong, 11 a check failed, 75 no answer."
    )
    _add_document(check)
    check.add_argument("--offline", action="store_true", help="read the document alone")
    check.add_argument(
        "--only", type=_areas, default=(), metavar="AREA,...", help="cluster, oss, hub, image, fabric, nodes, argo"
    )
    _add_output(check)
    check.set_defaults(act=_check)


def _check(options: argparse.Namespace) -> int:
    from workflows.commands import document  # noqa: PLC0415  # as above

    as_json = options.output == "json"
    return document.check(
        document.Check(options.document, tuple(options.set), options.offline, options.only, as_json=as_json)
    )


def _areas(text: str) -> tuple[str, ...]:
    from workflows.commands.document import areas  # noqa: PLC0415  # as above

    try:
        return areas(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _add_render(verbs: Verbs) -> None:
    render = _verb(verbs, "render")
    _add_document(render, editable=False)
    render.add_argument(
        "--argo", default="3.5", metavar="3.5…4.1", help="Argo of the cluster (`argo version`); default: 3.5"
    )
    render.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the manifests")
    render.set_defaults(act=_render)


def _render(options: argparse.Namespace) -> int:
    from workflows.commands import document  # noqa: PLC0415  # as above

    return document.render(options.document, options.argo, options.output)


def _add_rehearse(verbs: Verbs) -> None:
    rehearse = _verb(verbs, "rehearse", "No cluster, GPU or cloud account is used.")
    _add_document(rehearse, optional=True)
    rehearse.add_argument(
        "--state", type=Path, default=Path(".slipway"), metavar="DIR", help="folder of the embedded services"
    )
    rehearse.add_argument("--keep", action="store_true", help="keep serving after the run, until Ctrl-C")
    rehearse.add_argument(
        "--port", type=int, default=0, help="port of the Service on this machine; default: a free one"
    )
    rehearse.set_defaults(act=_rehearse)


def _rehearse(options: argparse.Namespace) -> int:
    from workflows.commands import document  # noqa: PLC0415  # as above

    sets = tuple(options.set)
    return document.rehearse(options.document, sets, options.state, options.port, keep=options.keep)


def _add_submit(verbs: Verbs, connection: argparse.ArgumentParser) -> None:
    submit = _verb(
        verbs,
        "submit",
        "Exit codes: 0 the run succeeded, 10 a parameter or the document is wrong, 11 the run failed or could not be "
        "started, 13 gave up waiting, 75 no answer, or stopped following. Ctrl-C ends the following, not the run.",
        connection,
    )
    submit.add_argument("target", metavar="NAME", help="name of the service, or its document")
    submit.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="parameter of the run, inherited by later runs until the document changes; NAME=document resets it; may "
        "repeat",
    )
    submit.add_argument("--run-id", default="", metavar="ID", help="end of the run's name; one ID starts one run")
    submit.add_argument("--trigger", choices=("manual", "ci"), default="manual", help="label of the run")
    submit.add_argument("--reason", default="", metavar="TEXT", help="for the title of the run; default: its trigger")
    submit.add_argument("--event", action="store_true", help="start the run by the event binding of the service")
    submit.add_argument("--no-wait", action="store_true", help="do not follow the run")
    submit.add_argument("--timeout", type=float, metavar="MINUTES", help="stop following after this time")
    submit.add_argument("--recap", type=Path, metavar="FILE", help="write the recap of all tasks as Markdown")
    submit.set_defaults(act=_submit)


def _submit(options: argparse.Namespace) -> int:
    from workflows.commands import run  # noqa: PLC0415  # as above

    start = run.Start(
        target=options.target,
        parameters=tuple(options.parameter),
        run_id=options.run_id,
        trigger="ci" if options.event else options.trigger,
        reason=options.reason,
        wait=not options.no_wait,
        minutes=options.timeout,
        recap=options.recap,
    )
    return run.submit(start, run.Place(options.namespace, options.argo_server, options.event))


def _add_runs(verbs: Verbs, connection: argparse.ArgumentParser) -> None:
    runs = _verb(verbs, "runs", "With --follow, the exit codes are those of submit.", connection)
    runs.add_argument("target", nargs="?", default="", metavar="NAME|RUN", help="service or run; default: all services")
    how = runs.add_mutually_exclusive_group()
    how.add_argument("--follow", action="store_true", help="follow the run to its end")
    _add_output(how)
    runs.add_argument("--last", type=int, default=10, metavar="N", help="number of runs in the list; default: 10")
    runs.set_defaults(act=_runs)


def _runs(options: argparse.Namespace) -> int:
    from workflows.commands import run  # noqa: PLC0415  # as above

    query = run.Query(options.target, options.follow, options.last, as_json=options.output == "json")
    return run.runs(query, run.Place(options.namespace, options.argo_server))


def _add_logs(verbs: Verbs, connection: argparse.ArgumentParser) -> None:
    logs = _verb(verbs, "logs", "Exit codes: 0 printed, 11 no such run or pod, 75 no answer.", connection)
    logs.add_argument("run", metavar="RUN", help="name of the run")
    logs.add_argument("task", nargs="?", default="", metavar="TASK", help="default: all tasks")
    logs.set_defaults(act=_logs)


def _logs(options: argparse.Namespace) -> int:
    from workflows.commands import run  # noqa: PLC0415  # as above

    return run.logs(options.run, options.task, run.Place(options.namespace, options.argo_server))


def _add_hidden(verbs: Verbs) -> None:
    """For pods, editors and shells: without `help`, argparse and completion leave a verb out."""
    verbs.add_parser(STEP, add_help=False)
    schema = verbs.add_parser("schema", description="Print the JSON Schema of the document.")
    schema.set_defaults(act=_schema)
    completion = verbs.add_parser("completion", description="Print the completion script of a shell.")
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    completion.set_defaults(act=_completion)


def _schema(_options: argparse.Namespace) -> int:
    from workflows.commands.document import schema  # noqa: PLC0415  # as above

    return schema()


def _completion(options: argparse.Namespace) -> int:
    import shtab  # noqa: PLC0415  # as above

    sys.stdout.write(shtab.complete(parser(), options.shell))
    return Exit.DONE


def _verb(verbs: Verbs, name: str, more: str = "", *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
    does = VERBS[name].does
    description = f"{does[0].upper()}{does[1:]}."
    return verbs.add_parser(name, help=does, description=description, epilog=more, parents=parents)


def _connection() -> argparse.ArgumentParser:
    """Options of the verbs that read runs of a cluster."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "-n", "--namespace", default="", help="namespace of the workflow; default: of the document, or slipway"
    )
    parent.add_argument(
        "--argo-server",
        metavar="ADDRESS",
        help="host:port or URL of Argo Server, with its token in ARGO_TOKEN; default: ARGO_SERVER and the other "
        "variables of Argo's own command line; without them, or with an empty ADDRESS, the Kubernetes API of the "
        "kubeconfig",
    )
    return parent


def _add_document(verb: argparse.ArgumentParser, *, optional: bool = False, editable: bool = True) -> None:
    meaning = "the ModelService document" + ("; default: a demo with a small model" if optional else "")
    path = verb.add_argument("document", type=Path, nargs="?" if optional else None, metavar="DOC", help=meaning)
    path.complete = FILE  # type: ignore[attr-defined]  # read by shtab
    if editable:
        verb.add_argument(
            "--set", action="append", default=[], metavar="PATH=VALUE", help="change one field; may repeat"
        )


def _add_output(verb: argparse._ActionsContainer) -> None:
    verb.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default: text")


if __name__ == "__main__":
    sys.exit(console())
