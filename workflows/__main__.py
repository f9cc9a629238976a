"""`python -m workflows run | render | schema`: everything around the steps."""

import argparse
import sys
from pathlib import Path

from steps.engine.errors import Exit
from steps.service import DocumentError

ROOT = Path(__file__).parents[1]


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.act(options))
    except DocumentError as error:
        sys.stderr.write(f"{error}\n")
        return Exit.DOCUMENT


def _run(options: argparse.Namespace) -> int:
    from workflows import local  # noqa: PLC0415  # each command loads only what it needs
    from workflows.rehearsal.launch import RehearsalError  # noqa: PLC0415

    try:
        return local.run(
            local.Options(options.service, tuple(options.set), options.state, options.port, keep=options.keep)
        )
    except RehearsalError as error:
        sys.stderr.write(f"{error}\n")
        return Exit.BLOCKED


def _render(options: argparse.Namespace) -> int:
    from workflows import render  # noqa: PLC0415  # hera alone costs half a second

    if options.service:
        written = render.write(render.render(options.service, options.argo), options.out)
    elif options.check:
        drifted = render.drift(ROOT)
        sys.stderr.writelines(f"{name} is not what it would be generated as. Next: make render\n" for name in drifted)
        return Exit.BUG if drifted else Exit.DONE
    else:
        written = render.write_all(ROOT)
    sys.stdout.writelines(f"{path}\n" for path in written)
    return Exit.DONE


def _schema(_options: argparse.Namespace) -> int:
    from workflows.render import schema_text  # noqa: PLC0415

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
    schema = commands.add_parser("schema", help="print the JSON Schema of the document")
    schema.set_defaults(act=_schema)
    return parser


if __name__ == "__main__":
    sys.exit(main())
