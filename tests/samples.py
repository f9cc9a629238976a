"""The documents that tests start from."""

from pathlib import Path

from steps.model import ModelDigest
from steps.release import Release
from steps.service import ModelService, load

ROOT = Path(__file__).parents[1]
SERVICES = ROOT / "manifests" / "services"
DIGEST = ModelDigest("sha256:" + "5" * 64)


def service(*overrides: str, name: str = "qwen3-32b") -> ModelService:
    """A committed document, with fields overridden as on the command line."""
    return load(SERVICES / f"{name}.yaml", overrides)


def release(*overrides: str, name: str = "qwen3-32b", digest: str = DIGEST) -> Release:
    return Release(service(*overrides, name=name), ModelDigest(digest))
