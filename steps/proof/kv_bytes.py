"""KV cache of a request: the predicted size beside the counted one."""

from math import ceil

from steps.proof.counters import MIB
from steps.proof.worker_state import WorkerState

TOLERANCE = 0.01


def size_fault(prefill: WorkerState, moved: float, prompt_tokens: int) -> str:
    """The difference between `moved` (MiB) and the size of the prompt's KV cache; empty without one.

    A transfer moves whole pages, so the size lies between the tokens and the pages of the prompt. An engine that does
    not report its bytes per token is not compared.
    """
    if prefill.kv_bytes_per_token is None:
        return ""
    name, page = prefill.endpoint.name, prefill.info.page_size
    least = prompt_tokens * prefill.kv_bytes_per_token / MIB
    most = ceil(prompt_tokens / page) * page * prefill.kv_bytes_per_token / MIB
    if least * (1 - TOLERANCE) <= moved <= most * (1 + TOLERANCE):
        return ""
    line = f"{name} moved {mebibytes(moved)} of KV cache for {prompt_tokens} tokens"
    return f"{line}, expected {mebibytes(least)} at {prefill.kv_bytes_per_token:g} bytes a token"


def mebibytes(amount: float) -> str:
    return f"{amount:.1f} MiB" if amount >= 1 else f"{amount:.4f} MiB"
