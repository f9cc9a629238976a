"""Every step once, each in a container or pod of its own, against the embedded services: what is common to both."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from steps.reconcile.outputs import file_name
from tests.support.samples import ROOT, SERVICES, service
from workflows.pipeline import EXIT, MIRROR, Places, Task, arguments, command, tasks
from workflows.simulator.http.server import LOOPBACK
from workflows.simulator.launch import Addresses, embedded_services

DEMO = service(name="demo")
USER = 65532
PLACES = Places("/service/service.yaml", "/outputs", "/scratch")
KUBECONFIG = "/kubeconfig/config"
# Mirrored beside the staged files, so that both ways have real work to do.
BESIDE = "store.prefix=mirrored"


@dataclass(frozen=True)
class Work:
    """One task, as the pod of a workflow would get it."""

    task: Task
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folders: Mapping[str, Path]  # path inside -> folder on this machine; everybody may write


Start = Callable[[Work], tuple[int, str]]
"""Runs the work to its end; its exit code, and what it said."""


@contextmanager
def embedded(state: Path, host: str = LOOPBACK) -> Iterator[Addresses]:
    document = SERVICES / "demo.yaml"
    with embedded_services(ROOT, state, [f"--document={document}", f"--host={host}"]) as addresses:
        yield addresses


def run_every_step(start: Start, addresses: Addresses, state: Path) -> dict[str, str]:
    """What each task said, by its name. Fails at the first that does not end well."""
    folders = _folders(state, addresses)
    said: dict[str, str] = {}
    for task, overrides in _line():
        options = {option: _output(folders, source.task, source.field) for option, source in task.options.items()}
        facts = {"run-name": "in-the-image", "run-status": "Succeeded"}
        values = options | {fact: facts[fact] for fact in task.run_facts}
        outputs = folders[PLACES.outputs] / task.name
        outputs.mkdir(mode=0o777)
        outputs.chmod(0o777)
        places = Places(PLACES.document, f"{PLACES.outputs}/{task.name}", PLACES.scratch)
        words = (*command(task), *arguments(task, places, values, sets=overrides))
        code, said[task.name] = start(Work(task, words, _environment(addresses), folders))
        assert code == 0, f"{task.name} ended with {code}:\n{said[task.name]}"
    return said


def changed(said: str) -> int:
    """How many changes the recap counts."""
    return int(said.rsplit("changed=", 1)[1].split(maxsplit=1)[0])


def _line() -> list[tuple[Task, tuple[str, ...]]]:
    line: list[tuple[Task, tuple[str, ...]]] = [(task, ()) for task in tasks(DEMO, in_pods=False)]
    preflight = next(place for place, (task, _) in enumerate(line) if task.name == "preflight")
    return [*line[: preflight + 1], (MIRROR, (BESIDE,)), *line[preflight + 1 :], *((task, ()) for task in EXIT)]


def _folders(state: Path, addresses: Addresses) -> dict[str, Path]:
    folders = {
        path: state / "mounted" / path.strip("/") for path in ("/service", "/outputs", "/scratch", "/kubeconfig")
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
        folder.chmod(0o777)  # the step is nobody, and these are its volumes
    shutil.copyfile(SERVICES / "demo.yaml", folders["/service"] / "service.yaml")
    shutil.copyfile(addresses.kubeconfig, folders["/kubeconfig"] / "config")
    return folders


def _output(folders: Mapping[str, Path], task: str, field: str) -> str:
    return (folders[PLACES.outputs] / task / file_name(field)).read_text(encoding="utf-8")


def _environment(addresses: Addresses) -> dict[str, str]:
    return {
        "KUBECONFIG": KUBECONFIG,
        "SLIPWAY_MODELSCOPE_ENDPOINT": addresses.hub,
        "SLIPWAY_OSS_ENDPOINT": addresses.bucket,
        "OSS_ACCESS_KEY_ID": addresses.access_key_id,
        "OSS_ACCESS_KEY_SECRET": addresses.access_key_secret,
    }
