"""Generated files: Argo manifests of one service, and the committed ones, which must not drift from their sources.

`python -m workflows.argo.bundle` writes the committed files again; with `--check` it fails if one has drifted.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from steps.catalogue import CATALOGUE
from steps.document.schema import ModelService, json_schema, load
from steps.errors import Blocked, DocumentError, Exit
from steps.reconcile.plain_text import plain_text
from workflows import packages
from workflows.argo.accounts import RAM_INJECTION, accounts, installation
from workflows.argo.install import KUSTOMIZATION, kustomization, own, permissions_page, policy, shared
from workflows.argo.versions import VERSIONS, argo_version, for_version
from workflows.argo.workflow import cron_workflow, event_binding, workflow_template

REFERENCE = Path("manifests/services/qwen3-32b.yaml")
ARGO = Path("manifests/argo")
INSTALL = Path("manifests/install")
PERMISSIONS = Path("docs/permissions.md")
SCHEMA = Path("manifests/schema/model-service.schema.json")
PYPROJECT = Path("pyproject.toml")
# The layer of the import contract that holds the modules of the steps.
STEP_LAYER = re.compile(r"(?<=; written by `make render`\.\n  )\".*\"")
# Below the folder of `slipway render -o`: one that services share, and one for each service.
SHARED_FOLDER = Path("install")
SERVICE_FOLDER = Path("service")
POLICY_FOLDER = Path("policy")
MODELINE = re.compile(r"^# yaml-language-server:.*\n", re.MULTILINE)  # its path is meaningless inside a cluster


def render(service_path: Path, argo: str) -> dict[Path, str]:
    """Everything that one service needs on an Argo of that version: file name -> text.

    Raises DocumentError for a wrong document and for an unknown version.
    """
    version = argo_version(argo)
    service = load(service_path)
    manifests = {"workflow-template.yaml": workflow_template(service, _document(service_path, service))}
    if service.workflow.schedule:
        manifests["cron-workflow.yaml"] = cron_workflow(service, service.workflow.schedule)
    manifests["event-binding.yaml"] = event_binding(service)
    head = f"# Rendered from {service_path.name} by `slipway render`; change that, not this.\n"
    return {Path(name): head + _as_yaml(for_version(manifest, version)) for name, manifest in manifests.items()}


def service_folder(service_path: Path, argo: str) -> dict[Path, str]:
    """The folder of one service: `render` with the roles of this service, and the policy in a folder of its own."""
    origin, service = service_path.name, load(service_path)
    files = {**own(service, origin), **render(service_path, argo)}
    files[KUSTOMIZATION] = kustomization(origin, files)
    return files | _below(POLICY_FOLDER, policy(service, origin))


def bundle(service_path: Path, argo: str) -> dict[Path, str]:
    """The two folders that set a service up. Neither holds a Namespace, nor an object of another service."""
    service = load(service_path)
    return _below(SHARED_FOLDER, shared(service)) | _below(
        SERVICE_FOLDER / service.name, service_folder(service_path, argo)
    )


def commands(service: ModelService, folder: Path) -> Iterator[str]:
    """The commands that apply `bundle` from `folder`, in this order."""
    runs, serving = service.workflow.namespace, service.namespace
    for name in dict.fromkeys((runs, serving)):
        if name != "default":
            yield f"kubectl create namespace {name}   # unless it exists; it is in no folder, so no delete removes it"
    if service.store.credentials.role:
        yield f"kubectl label namespace {runs} {RAM_INJECTION}=on"
    yield f"kubectl apply -k {folder / SHARED_FOLDER}   # once for all services of namespace {runs}"
    own_folder = folder / SERVICE_FOLDER / service.name
    yield f"kubectl apply -k {own_folder}"
    yield f"kubectl apply -k {own_folder / POLICY_FOLDER}   # Kubernetes 1.30 and later"
    yield f"slipway submit {service.name} -n {runs}"


def write_bundle(service_path: Path, argo: str, folder: Path) -> list[str]:
    """Write `bundle` below `folder`; returns the lines for the person: the files that changed, and what to type next.

    Raises DocumentError as `render` does, and Blocked if it would replace the folder of another installation.
    """
    service, files = load(service_path), bundle(service_path, argo)
    _check_installation(folder / SHARED_FOLDER, service)
    written = [str(folder / path) for path in write(files, folder)]
    return [*written, "Next:", *(f"  {command}" for command in commands(service, folder))]


def _check_installation(folder: Path, service: ModelService) -> None:
    text, wanted = _read(folder / "accounts.yaml"), installation(accounts(service))
    found = wanted if text is None else installation(yaml.safe_load_all(text))
    if found != wanted:
        raise Blocked(
            f"{folder} holds the accounts of {found}, but this document needs those of {wanted}",
            "render with another -o; services with different RAM roles also need a workflow.namespace each",
        )


def write(files: Mapping[Path, str], folder: Path) -> list[Path]:
    """Write the files that differ below `folder`; returns the ones that were written."""
    stale = [path for path, text in files.items() if _read(folder / path) != text]
    for path in stale:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(files[path], encoding="utf-8")
    return stale


def schema_text() -> str:
    """The JSON Schema of the document, as editors read it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def committed(root: Path) -> dict[Path, str]:
    """Every generated file of the repository: path below `root` -> text."""
    service = load(root / REFERENCE)
    files = {SCHEMA: schema_text(), PERMISSIONS: permissions_page(service), **_below(INSTALL, shared(service))}
    files[PYPROJECT] = with_step_layer((root / PYPROJECT).read_text(encoding="utf-8"))
    for name, version in VERSIONS.items():
        files |= _below(ARGO / version.folder, service_folder(root / REFERENCE, name))
    return files


def with_step_layer(pyproject: str) -> str:
    """The same text with the modules of the catalogue in the layer of the steps."""
    modules = " | ".join(spec.module for spec in CATALOGUE.values())
    return STEP_LAYER.sub(f'"{modules}"', pyproject)


def write_all(root: Path) -> list[Path]:
    """Write the generated files of the repository again; returns the ones that changed."""
    for stray in _strays(root):
        (root / stray).unlink()
    return write(committed(root), root)


def drift(root: Path) -> list[str]:
    """One sentence for each generated file that differs from its source; empty without drift."""
    stale = [path for path, text in committed(root).items() if _read(root / path) != text]
    sentences = [f"{path} differs from its source; run `make render`" for path in stale]
    return sentences + [f"{path} has no source; run `make render`" for path in _strays(root)]


def _strays(root: Path) -> list[Path]:
    found = {path.relative_to(root) for folder in (ARGO, INSTALL) for path in (root / folder).rglob("*.yaml")}
    return sorted(found - set(committed(root)))


def _below(folder: Path, files: Mapping[Path, str]) -> dict[Path, str]:
    return {folder / path: text for path, text in files.items()}


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _document(path: Path, service: ModelService) -> str:
    """The text of the document, which reaches the steps unchanged: Argo pastes it, and evaluates the result."""
    text = MODELINE.sub("", path.read_text(encoding="utf-8"))
    # Values stand in the templates, too, and YAML can write braces as escapes. JSON on its own has no `{{`.
    if "{{" in text or "{{" in json.dumps(service.model_dump(mode="json")):
        raise DocumentError(f"{path} holds '{{{{', which Argo would replace; allowed is a document without it")
    lost = sorted(character for character in set(text) if plain_text(character) != character)
    if lost:
        raise DocumentError(f"{path} holds {lost[0]!r}, which Argo cannot pass on; allowed is a document without it")
    return text


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stay readable."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _as_yaml(manifest: dict[str, Any]) -> str:
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def main(arguments: list[str]) -> int:
    """For those who change Slipway itself: the root is the checkout of this file."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m workflows.argo.bundle [--check]\n")
        return Exit.USAGE
    drifted = drift(packages.FOLDER) if arguments else []
    sys.stderr.writelines(f"{sentence}\n" for sentence in drifted)
    sys.stdout.writelines(f"{path}\n" for path in (() if arguments else write_all(packages.FOLDER)))
    return Exit.BUG if drifted else Exit.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
