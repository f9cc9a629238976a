"""The documents that tests start from."""

from pathlib import Path

from steps.document.overrides import Wanted, given
from steps.document.schema import ModelService, load, read
from steps.model import ModelDigest
from steps.release import Release

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "recorded"
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
