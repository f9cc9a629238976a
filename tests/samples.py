"""The documents that tests start from."""

from pathlib import Path

from steps.model import ModelDigest
from steps.overrides import Wanted, given
from steps.release import Release
from steps.service import ModelService, load, read

ROOT = Path(__file__).parents[1]
SERVICES = ROOT / "manifests" / "services"
DIGEST = ModelDigest("sha256:" + "5" * 64)


def service(*overrides: str, name: str = "qwen3-32b") -> ModelService:
    """A committed document, with fields overridden as on the command line."""
    return load(SERVICES / f"{name}.yaml", overrides)


def wanted(*parameters: str, sets: tuple[str, ...] = (), run: str = "nightly-7", name: str = "qwen3-32b") -> Wanted:
    """What a run of a committed document wants by itself; `parameters` as on the command line."""
    return Wanted(read(SERVICES / f"{name}.yaml"), given(parameters), sets, run)


def release(*overrides: str, name: str = "qwen3-32b", digest: str = DIGEST) -> Release:
    return Release(service(*overrides, name=name), ModelDigest(digest))
