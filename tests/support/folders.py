"""What the folders that `render` writes hold."""

from pathlib import Path

import yaml

from steps.document.schema import ModelService
from steps.kinds import Manifest
from workflows.argo.install import KUSTOMIZATION

Identity = tuple[str, str, str]  # kind, namespace, name


def built(folder: Path) -> list[Manifest]:
    """What kustomize would build: a kustomization may name another folder, but files of its own folder only."""
    found: list[Manifest] = []
    for resource in yaml.safe_load((folder / KUSTOMIZATION).read_text(encoding="utf-8"))["resources"]:
        path = folder / resource
        if path.is_dir():
            found += built(path)
            continue
        assert path.resolve().is_relative_to(folder.resolve()), f"{path} is outside of {folder}"
        found += list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return found


def identity(one: Manifest) -> Identity:
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]


def every_object(folder: Path) -> list[Manifest]:
    """Of every file, as `kubectl delete -R -f` finds them."""
    files = [path for path in folder.rglob("*.yaml") if path.name != str(KUSTOMIZATION)]
    return [one for path in files for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def document(folder: Path, of: ModelService) -> Path:
    path = folder / f"{of.name}.yaml"
    path.write_text(yaml.safe_dump(of.model_dump(by_alias=True, exclude_none=True)), encoding="utf-8")
    return path
