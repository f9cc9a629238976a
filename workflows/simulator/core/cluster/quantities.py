"""Amounts as Kubernetes writes them. https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_FACTORS = {"": Decimal(1), "m": Decimal("0.001")}
_FACTORS |= {letter: Decimal(1000) ** power for power, letter in enumerate("kMGTP", start=1)}
_FACTORS |= {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTP", start=1)}
_QUANTITY = re.compile(r"^(?P<number>[0-9.]+)(?P<unit>[a-zA-Z]*)$")

Amounts = dict[str, Decimal]


def quantity(text: Any) -> Decimal:
    """`2`, `500m` or `48Gi` as a number. Raises ValueError for anything else."""
    found = _QUANTITY.match(str(text))
    if not found or found["unit"] not in _FACTORS:
        raise ValueError(f"{text!r} is not a quantity")
    return Decimal(found["number"]) * _FACTORS[found["unit"]]


def amounts(resources: Mapping[str, Any] | None) -> Amounts:
    return {name: quantity(amount) for name, amount in (resources or {}).items()}


def requested(pod_spec: Mapping[str, Any]) -> Amounts:
    """The resource requests of a pod; limits stand in for absent requests, as in the API server."""
    total: Amounts = {}
    for container in pod_spec.get("containers", []):
        resources = container.get("resources") or {}
        for name, amount in (amounts(resources.get("limits")) | amounts(resources.get("requests"))).items():
            total[name] = total.get(name, Decimal(0)) + amount
    return total
