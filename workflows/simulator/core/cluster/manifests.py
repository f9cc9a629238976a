"""Kubernetes objects as plain JSON."""

from datetime import UTC, datetime
from typing import Any

from workflows.simulator.core.cluster.resources import Resource

Manifest = dict[str, Any]


def copied(content: Any) -> Any:
    """A deep copy of JSON, several times faster than copy.deepcopy."""
    if isinstance(content, dict):
        return {key: copied(value) for key, value in content.items()}
    return [copied(item) for item in content] if isinstance(content, list) else content


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rendered(resource: Resource, content: Manifest) -> Manifest:
    """A copy of a stored object in the version of `resource`. Versions differ in name only: conversion is identity."""
    return {**copied(content), "apiVersion": resource.api_version, "kind": resource.kind}
