"""Startup, readiness and liveness probes.

Fields with a default in the API server are written out: RBG operators up to v0.4 compare their template with the
defaulted one and would roll for ever. https://github.com/sgl-project/rbg/issues/85
"""

from typing import Any

from steps.document.schema import Serving
from steps.sglang.flags import has_ready_endpoint

Probe = dict[str, Any]

START_BUDGET = 180  # probes, 10 seconds apart: half an hour to read 65 GB and to compile kernels
# `/health` sleeps a second at least and waits up to 20 for one generated token, so the default of 1 s always fails.
_HEALTH_TIMEOUT = 25


def worker_probes(serving: Serving) -> dict[str, Probe]:
    """`/v1/models` and an open port answer before the end of the warm-up, so neither proves that a worker is ready."""
    instant = has_ready_endpoint(serving.version)
    port = serving.ports.http
    liveness = _probe("/health", port, period=30, timeout=_HEALTH_TIMEOUT, failures=4)
    if instant:
        startup = _probe("/ready", port, period=10, timeout=3, failures=START_BUDGET)
        readiness = _probe("/ready", port, period=5, timeout=3, failures=3)
    else:
        startup = _probe("/health", port, period=10, timeout=_HEALTH_TIMEOUT, failures=START_BUDGET)
        readiness = _probe("/health", port, period=30, timeout=_HEALTH_TIMEOUT, failures=3)
    return {"startupProbe": startup, "readinessProbe": readiness, "livenessProbe": liveness}


def router_probes(serving: Serving) -> dict[str, Probe]:
    """`/health` and `/liveness` of the router are always 200, even without a single worker; `/readiness` is not."""
    port = serving.ports.http
    return {
        "startupProbe": _probe("/liveness", port, period=5, timeout=3, failures=24),
        "readinessProbe": _probe("/readiness", port, period=5, timeout=3, failures=3),
        "livenessProbe": _probe("/liveness", port, period=10, timeout=5, failures=6),
    }


def _probe(path: str, port: int, *, period: int, timeout: int, failures: int) -> Probe:
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "successThreshold": 1,
        "failureThreshold": failures,
    }
