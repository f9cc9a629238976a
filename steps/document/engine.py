"""What Slipway knows of SGLang before any image is pulled: versions that can be proved, and arguments of its own.

Sources: the wheels of sglang 0.5.9, 0.5.10, 0.5.14, 0.5.17 and 0.5.23, and of sglang-router 0.3.2.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from steps.document.section import AsTuple
from steps.document.tokens import not_a_token

# 0.5.9 cannot be proved: its bootstrap server answers no `/route` with `prefill_dp_rank`
# (srt/disaggregation/common/conn.py), and `sglang:kv_transfer_total_mb` is a gauge, no histogram, so that no transfer
# can be counted (srt/metrics/collector.py).
OLDEST = (0, 5, 10)
NEWEST_PROVED = "0.5.23"

# Argument -> field of the document that sets it; "" where no field does. Aliases: srt/server_args.py.
WORKER_ARGUMENTS: Mapping[str, str] = {
    **dict.fromkeys(("--model-path", "--model"), "serving.modelPath"),
    "--served-model-name": "serving.servedModelName",
    **dict.fromkeys(("--tp", "--tp-size", "--tensor-parallel-size"), "serving.tensorParallel"),
    "--host": "",
    "--port": "serving.ports.http",
    "--disaggregation-mode": "",
    "--disaggregation-transfer-backend": "serving.fabric",
    "--disaggregation-bootstrap-port": "serving.ports.bootstrap",
    "--disaggregation-ib-device": "serving.rdmaDevices",
    "--context-length": "serving.contextLength",
    "--enable-metrics": "",
}
ROUTER_ARGUMENTS: Mapping[str, str] = {
    "--pd-disaggregation": "",
    "--prefill": "serving.prefill.replicas",
    "--decode": "serving.decode.replicas",
    "--host": "",
    "--port": "serving.ports.http",
    "--policy": "serving.router.policy",
    **dict.fromkeys(
        (
            "--prometheus-host",
            "--prometheus-port",
            "--health-check-endpoint",
            "--health-check-interval-secs",
            "--health-check-timeout-secs",
            "--health-failure-threshold",
            "--health-success-threshold",
            "--cb-timeout-duration-secs",
            "--request-timeout-secs",
        ),
        "",
    ),
}
_SHORTEST = len("--t")  # argparse takes an unambiguous beginning of an argument for the whole


def parsed(version: str) -> tuple[int, ...]:
    """`0.5.3.post3` as numbers that compare as versions do."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def provable(version: str) -> bool:
    return parsed(version) >= OLDEST


def _checked(arguments: tuple[str, ...], ours: Mapping[str, str]) -> tuple[str, ...]:
    for argument in arguments:
        name = _ours(argument.partition("=")[0], ours)
        if name:
            field = f"; the field for it is {ours[name]}" if ours[name] else ""
            raise PydanticCustomError(
                "own_argument",
                "arguments without {argument}, which Slipway sets itself{field}",
                {"argument": argument, "field": field},
            )
        not_a_token("", argument)
    return arguments


def _ours(name: str, ours: Iterable[str]) -> str:
    if not name.startswith("--") or len(name) < _SHORTEST:
        return ""
    return next((own for own in ours if own == name), "") or next((own for own in ours if own.startswith(name)), "")


WorkerArguments = Annotated[tuple[str, ...], AsTuple, AfterValidator(lambda found: _checked(found, WORKER_ARGUMENTS))]
RouterArguments = Annotated[tuple[str, ...], AsTuple, AfterValidator(lambda found: _checked(found, ROUTER_ARGUMENTS))]
