"""One request and what it moved; which request comes next; what all of them prove.

Other clients may be served meanwhile, and nothing in an answer or in a counter names a request. What each observation
says, by sglang 0.5.23 (python/sglang/srt):

- *A pair answers in a bootstrap room of its own.* Decode goes on only once the prefill that was named has reported the
  transfer for this room, and refuses metadata of another one (disaggregation/decode.py, 2626 to 2667). So KV cache
  came from this prefill for this request. How many bytes it does not say.
- *Prefill counts a handover before it answers* (disaggregation/prefill.py, 1255 and 1266), and both halves of a pair
  are awaited. So the prefill that was asked has moved by one at least. If it moved by exactly one, with the tokens of
  this prompt, the bytes are this request's. If it moved by more, they are not attributable, and that is no failure.
- *Failure counters* also move when a client hangs up: only a broken connection or an explicit abort raises
  num_aborted_requests_total (managers/tokenizer_manager.py, 2241 to 2263), and it ends a handshake or a transfer, too
  (recorded: tests/recorded/sglang/hang-up). Beside an answered request they blame the release only if no other client
  was seen. A pair that cannot transfer refuses the request in its own room, whatever others do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from math import ceil

from steps.ports.sglang import ChatResponse, EngineError
from steps.proof.answers import flaws
from steps.proof.counters import MIB, Counters
from steps.proof.worker_state import WorkerState
from steps.reconcile.plan import Plan

Pair = tuple[str, str]  # short names of prefill and decode

READINGS = 6  # readings that a counter may need to appear; with the pauses of the engine some eight seconds
ATTEMPTS = 4  # of one pair, until its bytes are seen without those of others
TOLERANCE = 0.01


@dataclass(frozen=True)
class ProbeRequest:
    """One request: through the router, or to a pair that was chosen."""

    wanted: tuple[Pair, ...]  # every pair of the release
    pair: Pair | None  # whom it was sent to; None: the router chose
    response: ChatResponse | EngineError
    before: Mapping[str, Counters]
    after: Mapping[str, Counters]
    readings: int = 1  # how often `after` was read

    def again(self, after: Mapping[str, Counters]) -> "ProbeRequest":
        return replace(self, after=after, readings=self.readings + 1)

    @cached_property
    def moved(self) -> dict[str, Counters]:
        return {name: self.after[name] - self.before[name] for name in self.before}

    @property
    def prefill(self) -> dict[str, Counters]:
        """Prefill workers, of those that were asked, that handed over KV cache."""
        return {name: by for name, by in self._side(0).items() if by.handovers > 0}

    @property
    def decode(self) -> dict[str, Counters]:
        """Decode workers, of those that were asked, that finished a request."""
        return {name: by for name, by in self._side(1).items() if by.requests > 0}

    @cached_property
    def pairs(self) -> set[Pair]:
        """The pair whose counters this request alone can have moved; empty if other clients may have a part in it."""
        response = self.response
        if isinstance(response, EngineError) or len(self.prefill) != 1 or len(self.decode) != 1:
            return set()
        ((prefill, sent),), ((decode, received),) = self.prefill.items(), self.decode.items()
        alone = sent.handovers == 1 and sent.ranks_agree and _is_of(sent, response)
        if (
            self.pair is None
        ):  # the engine does not say whom the router received, so all that moved must be this request
            alone = alone and _is_of(received, response) and not self.others
        return {(prefill, decode)} if alone else set()

    @cached_property
    def others(self) -> bool:
        """Whether more arrived, ended or hung up meanwhile than this request explains."""
        prefill, decode = self._all(0).values(), self._all(1).values()
        if any(by.aborted > 0 for by in decode):
            return True  # neither this step nor a router hangs up on a decode worker that answers
        if self.pair:
            return any(_exceeds([by], int(name in self.pair)) for name, by in self.moved.items())
        # A router tries again only after a failure, and each try arrives.
        tries = max(1.0, sum(by.arrived for by in decode))
        failed = sum(by.transfers_failed + by.bootstraps_failed for by in decode)
        return tries != 1 + failed or _exceeds(prefill, tries) or _exceeds(decode, tries)

    @property
    def stable(self) -> bool:
        """The counters have followed the answer, or had their time."""
        followed = bool(self.prefill and self.decode) and (self.others or bool(self.pairs))
        over = isinstance(self.response, EngineError) or any(by.went_back for by in self.moved.values())
        return followed or over or self.readings >= READINGS

    @property
    def hidden(self) -> bool:
        """Answered by the chosen pair, but the counters moved by more: another time they may not."""
        return (
            bool(self.pair and isinstance(self.response, ChatResponse) and self.prefill and self.decode)
            and not self.pairs
        )

    @property
    def trouble(self) -> bool:
        return (
            isinstance(self.response, EngineError) or not self.pairs or any(by.failures for by in self.moved.values())
        )

    def __str__(self) -> str:
        return f"{self.pair[0]} -> {self.pair[1]}" if self.pair else "the request through the router"

    def _all(self, side: int) -> dict[str, Counters]:
        names = {pair[side] for pair in self.wanted}
        return {name: by for name, by in self.moved.items() if name in names}

    def _side(self, side: int) -> dict[str, Counters]:
        return {name: by for name, by in self._all(side).items() if self.pair is None or name == self.pair[side]}


def _is_of(moved: Counters, answer: ChatResponse) -> bool:
    return moved.requests == 1 and moved.prompt_tokens == answer.prompt_tokens


def _exceeds(moved: Iterable[Counters], most: float) -> bool:
    counted = list(moved)
    sums = (sum(getattr(by, name) for by in counted) for name in ("arrived", "requests", "handovers"))
    return any(total > most for total in sums)


@dataclass(frozen=True)
class ThroughRouter:
    """The next request goes where clients send theirs."""


def every_pair(workers: Sequence[WorkerState]) -> tuple[Pair, ...]:
    names = {
        role: [one.endpoint.name for one in workers if one.endpoint.role == role] for role in ("prefill", "decode")
    }
    return tuple(product(names["prefill"], names["decode"]))


def next_request(wanted: Sequence[Pair], requests: Sequence[ProbeRequest]) -> ThroughRouter | Pair | None:
    """None: nothing more to ask now.

    First through the router, as clients do, until it has taken every pair or has had its turns: round robin over two
    prefill and two decode workers never takes all four. The pairs that are left are then asked one by one, in rooms of
    their own, as is everything once something went wrong or other clients are served. A pair whose bytes others hid is
    asked again, in turn with its like.
    """
    if requests and not requests[-1].stable:
        return None
    left = unproved(wanted, requests)
    by_router = [request for request in requests if request.pair is None]
    if not by_router:
        return ThroughRouter()
    sides = (len({prefill for prefill, _ in wanted}), len({decode for _, decode in wanted}))
    if left and len(by_router) < 2 * max(sides) and not any(request.trouble for request in requests):
        return ThroughRouter()
    asks = 1 if any(isinstance(request.response, EngineError) for request in requests) else ATTEMPTS
    tried = {pair: [request for request in requests if request.pair == pair] for pair in left}
    open_ = [pair for pair in left if len(tried[pair]) < asks and all(each.hidden for each in tried[pair])]
    return min(open_, key=lambda pair: len(tried[pair]), default=None)


def unproved(wanted: Sequence[Pair], requests: Sequence[ProbeRequest]) -> list[Pair]:
    proved = {pair for request in requests for pair in request.pairs}
    return [pair for pair in wanted if pair not in proved]


def unattributable(wanted: Sequence[Pair], requests: Sequence[ProbeRequest]) -> dict[Pair, int]:
    """Pairs that answered in rooms of their own, each time while others moved the counters; and how often."""
    asked = [request.pair for request in requests if request.hidden] if others_came(requests) else []
    return {pair: asked.count(pair) for pair in unproved(wanted, requests) if pair in asked}


def others_came(requests: Sequence[ProbeRequest]) -> bool:
    """Whether other clients used these workers at any time since the first reading."""
    between = [second.before[name] - first.after[name] for first, second in pairwise(requests) for name in first.after]
    return any(request.others for request in requests) or any(by.arrived > 0 or by.aborted > 0 for by in between)


def evaluate(workers: Sequence[WorkerState], requests: Sequence[ProbeRequest], model: str) -> Plan:
    """What the requests prove. A wait means: look again, the counters may follow."""
    if requests and not requests[-1].stable:
        return Plan(waiting=(f"the counters of {requests[-1]}, which was answered, to move",))
    found = [fault for request in requests for fault in _faults(request, workers, model)]
    failures = [line for request in requests for line in _failures(request)]
    wanted, others = every_pair(workers), others_came(requests)
    found += [] if others else [f"{line}, expected 0" for line in failures]
    hidden = unattributable(wanted, requests)
    left = [] if found else [pair for pair in unproved(wanted, requests) if pair not in hidden]
    if left:
        pairs = ", ".join(f"{prefill} -> {decode}" for prefill, decode in left)
        found.append(f"no request proved {pairs} in {len(requests)} requests. Next: run the smoke test again")
    lines = [*_kept(requests), *_hidden(hidden, len(wanted))]
    lines += [f"{line}; not attributable, other clients are served" for line in failures] if others else []
    return Plan(ok=tuple(lines), failed=tuple(dict.fromkeys(found)))


def _kept(requests: Sequence[ProbeRequest]) -> list[str]:
    lines: dict[Pair, str] = {}
    for request in requests:
        for prefill, decode in sorted(request.pairs):
            assert isinstance(request.response, ChatResponse)
            moved = mebibytes(request.moved[prefill].mib)
            how = "" if request.pair is None else ", asked directly"
            line = f"{prefill} -> {decode} moved {moved} for {request.response.prompt_tokens} tokens{how}"
            lines.setdefault((prefill, decode), line)
    return list(lines.values())


def _hidden(hidden: Mapping[Pair, int], wanted: int) -> list[str]:
    lines = [
        f"{prefill} -> {decode} answered {_times(asks)}; bytes not attributable, other clients moved the counters"
        for (prefill, decode), asks in hidden.items()
    ]
    return [*lines, f"bytes counted on {wanted - len(hidden)} of {wanted} pairs"] if lines else []


def _times(asks: int) -> str:
    return "in a room of its own" if asks == 1 else f"in {asks} rooms of its own"


def _faults(request: ProbeRequest, workers: Sequence[WorkerState], model: str) -> list[str]:
    found = [
        f"{name}: its counters went back during a request, so it was started again; look at its previous log"
        for name, by in request.moved.items()
        if by.went_back
    ]
    if isinstance(request.response, EngineError):
        return [f"{request}: no answer, found {request.response}", *found]
    found += [f"{request}: {flaw}" for flaw in flaws(request.response, model)]
    return found + ([] if found else _movement_faults(request, request.response, workers))


def _failures(request: ProbeRequest) -> list[str]:
    return [
        f"{name}: {counter} rose by {count} during {request}"
        for name, by in request.moved.items()
        for counter, count in by.failures.items()
    ]


def _movement_faults(request: ProbeRequest, answer: ChatResponse, workers: Sequence[WorkerState]) -> list[str]:
    if not request.prefill:
        return [f"{request}: answered, but no prefill worker handed over KV cache: found 0 transfers, expected 1"]
    if not request.decode:
        return [f"{request}: answered, but no decode worker finished a request: found 0 requests, expected 1"]
    sizes = {worker.endpoint.name: worker for worker in workers}
    return [line for prefill, _ in request.pairs for line in _size_faults(request, answer, sizes[prefill])]


def _size_faults(request: ProbeRequest, answer: ChatResponse, prefill: WorkerState) -> list[str]:
    if prefill.kv_bytes_per_token is None:
        return []
    name, page = prefill.endpoint.name, prefill.info.page_size
    moved = request.moved[name].mib
    least = answer.prompt_tokens * prefill.kv_bytes_per_token / MIB
    most = ceil(answer.prompt_tokens / page) * page * prefill.kv_bytes_per_token / MIB
    if least * (1 - TOLERANCE) <= moved <= most * (1 + TOLERANCE):
        return []
    line = f"{request}: {name} moved {mebibytes(moved)} of KV cache for {answer.prompt_tokens} tokens"
    return [f"{line}, expected {mebibytes(least)} at {prefill.kv_bytes_per_token:g} bytes a token"]


def mebibytes(amount: float) -> str:
    return f"{amount:.1f} MiB" if amount >= 1 else f"{amount:.4f} MiB"
