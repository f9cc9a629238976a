"""Probe requests: their order, the KV cache that each one moved, and the evaluation of all of them.

Other clients may be served at the same time, and neither an answer nor a counter names a request. The meaning of each
observation, by sglang 0.5.23 (python/sglang/srt):

- *A pair answers in a bootstrap room of its own.* Decode continues only after the named prefill has reported the
  transfer for this room, and refuses metadata of another room (disaggregation/decode.py, 2626 to 2667). So KV cache
  came from this prefill for this request. The number of bytes is not part of the report.
- *Prefill counts a transfer before it answers* (disaggregation/prefill.py, 1255 and 1266), and both halves of a pair
  are awaited. So the counter of the requested prefill rises by one at least. If it rose by exactly one, with the tokens
  of this prompt, the bytes belong to this request. If it rose by more, they are not attributable, which is no failure.
- *Failure counters* also rise when a client hangs up: only a broken connection or an explicit abort raises
  num_aborted_requests_total (managers/tokenizer_manager.py, 2241 to 2263), and it ends a handshake or a transfer as
  well (recorded: tests/recorded/sglang/hang-up). Beside an answered request they are evidence against the release only
  if no other client was observed. A pair that cannot transfer refuses the request in its own room in any case.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product

from steps.ports.sglang import ChatResponse, EngineError
from steps.proof.answers import flaws
from steps.proof.counters import Counters
from steps.proof.kv_bytes import mebibytes, size_fault
from steps.proof.worker_state import WorkerState
from steps.reconcile.plan import Plan

Pair = tuple[str, str]  # short names of prefill and decode

READINGS = 6  # within which a counter must appear; with the pauses of the loop some eight seconds
ATTEMPTS = 4  # for one pair, to count its bytes without those of other clients


@dataclass(frozen=True)
class ProbeRequest:
    """One request, through the router or to a chosen pair, with the counters before and after it."""

    wanted: tuple[Pair, ...]  # every pair of the release
    pair: Pair | None  # the receiver; None: chosen by the router
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
        """The prefill workers among the possible receivers that sent KV cache."""
        return {name: by for name, by in self._side(0).items() if by.kv_transfers > 0}

    @property
    def decode(self) -> dict[str, Counters]:
        """The decode workers among the possible receivers that finished a request."""
        return {name: by for name, by in self._side(1).items() if by.requests > 0}

    @cached_property
    def pairs(self) -> set[Pair]:
        """The pair whose counters moved by this request alone; empty if other clients may have moved them as well."""
        response = self.response
        if isinstance(response, EngineError) or len(self.prefill) != 1 or len(self.decode) != 1:
            return set()
        ((prefill, sent),), ((decode, received),) = self.prefill.items(), self.decode.items()
        alone = sent.kv_transfers == 1 and sent.ranks_agree and _belongs_to(sent, response)
        if self.pair is None:  # the engine does not report the choice of the router, so no other request may count
            alone = alone and _belongs_to(received, response) and not self.other_clients
        return {(prefill, decode)} if alone else set()

    @cached_property
    def other_clients(self) -> bool:
        """Whether more requests arrived, ended or were aborted than this one explains."""
        prefill, decode = self._all(0).values(), self._all(1).values()
        if any(by.aborted > 0 for by in decode):
            return True  # neither this step nor a router hangs up on a decode worker that answers
        if self.pair:
            return any(_exceeds([by], int(name in self.pair)) for name, by in self.moved.items())
        # A router retries only after a failure, and each attempt arrives.
        tries = max(1.0, sum(by.arrived for by in decode))
        failed = sum(by.transfers_failed + by.bootstraps_failed for by in decode)
        return tries != 1 + failed or _exceeds(prefill, tries) or _exceeds(decode, tries)

    @property
    def stable(self) -> bool:
        """Whether the counters have followed the answer, or had enough readings."""
        followed = bool(self.prefill and self.decode) and (self.other_clients or bool(self.pairs))
        over = isinstance(self.response, EngineError) or any(by.went_back for by in self.moved.values())
        return followed or over or self.readings >= READINGS

    @property
    def not_attributable(self) -> bool:
        """Answered by the chosen pair, but the counters moved by more, so another attempt may help."""
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


def _belongs_to(moved: Counters, answer: ChatResponse) -> bool:
    return moved.requests == 1 and moved.prompt_tokens == answer.prompt_tokens


def _exceeds(moved: Iterable[Counters], most: float) -> bool:
    counted = list(moved)
    sums = (sum(getattr(by, name) for by in counted) for name in ("arrived", "requests", "kv_transfers"))
    return any(total > most for total in sums)


@dataclass(frozen=True)
class ThroughRouter:
    """The next request goes through the router, as those of clients do."""


def every_pair(workers: Sequence[WorkerState]) -> tuple[Pair, ...]:
    names = {
        role: [one.endpoint.name for one in workers if one.endpoint.role == role] for role in ("prefill", "decode")
    }
    return tuple(product(names["prefill"], names["decode"]))


def next_request(wanted: Sequence[Pair], requests: Sequence[ProbeRequest]) -> ThroughRouter | Pair | None:
    """The receiver of the next request; None if there is no request to send now.

    Requests go through the router first, up to twice the number of workers of the larger role: round robin over two
    prefill and two decode workers never takes all four pairs. The remaining pairs then get a request each, in rooms of
    their own. After a failure, or beside other clients, all requests go to pairs. A pair with bytes that are not
    attributable gets further attempts, in turn with other such pairs.
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
    open_ = [pair for pair in left if len(tried[pair]) < asks and all(each.not_attributable for each in tried[pair])]
    return min(open_, key=lambda pair: len(tried[pair]), default=None)


def unproved(wanted: Sequence[Pair], requests: Sequence[ProbeRequest]) -> list[Pair]:
    proved = {pair for request in requests for pair in request.pairs}
    return [pair for pair in wanted if pair not in proved]


def unattributable(wanted: Sequence[Pair], requests: Sequence[ProbeRequest]) -> dict[Pair, int]:
    """Pairs that answered in rooms of their own, but never without other clients; with the number of attempts."""
    asked = [request.pair for request in requests if request.not_attributable] if other_clients_seen(requests) else []
    return {pair: asked.count(pair) for pair in unproved(wanted, requests) if pair in asked}


def other_clients_seen(requests: Sequence[ProbeRequest]) -> bool:
    """Whether other clients used these workers since the first reading."""
    between = [second.before[name] - first.after[name] for first, second in pairwise(requests) for name in first.after]
    return any(request.other_clients for request in requests) or any(by.arrived > 0 or by.aborted > 0 for by in between)


def evaluate(workers: Sequence[WorkerState], requests: Sequence[ProbeRequest], model: str) -> Plan:
    """The result of all requests. A plan that waits asks for another reading, since the counters may follow."""
    if requests and not requests[-1].stable:
        return Plan(waiting=(f"the counters of {requests[-1]} to follow its answer",))
    found = [fault for request in requests for fault in _faults(request, workers, model)]
    failures = [line for request in requests for line in _failures(request)]
    wanted, others = every_pair(workers), other_clients_seen(requests)
    found += [] if others else [f"{line}, expected 0" for line in failures]
    hidden = unattributable(wanted, requests)
    left = [] if found else [pair for pair in unproved(wanted, requests) if pair not in hidden]
    if left:
        pairs = ", ".join(f"{prefill} -> {decode}" for prefill, decode in left)
        found.append(f"no request proved {pairs} in {len(requests)} requests. Next: run the smoke test again")
    lines = [*_kept(requests), *_not_attributable(hidden, len(wanted))]
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


def _not_attributable(hidden: Mapping[Pair, int], wanted: int) -> list[str]:
    lines = [
        f"{prefill} -> {decode} answered {_times(asks)}; bytes not attributable, other clients moved the counters"
        for (prefill, decode), asks in hidden.items()
    ]
    return [*lines, f"bytes counted on {wanted - len(hidden)} of {wanted} pairs"] if lines else []


def _times(asks: int) -> str:
    return "in a room of its own" if asks == 1 else f"in {asks} rooms of its own"


def _faults(request: ProbeRequest, workers: Sequence[WorkerState], model: str) -> list[str]:
    found = [
        f"{name}: its counters fell during a request, so it was restarted. Next: read its previous log"
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
        return [f"{request}: answered, but no prefill worker sent KV cache: found 0 transfers, expected 1"]
    if not request.decode:
        return [f"{request}: answered, but no decode worker finished a request: found 0 requests, expected 1"]
    sizes = {worker.endpoint.name: worker for worker in workers}
    found = (
        size_fault(sizes[prefill], request.moved[prefill].mib, answer.prompt_tokens) for prefill, _ in request.pairs
    )
    return [f"{request}: {fault}" for fault in found if fault]
