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
from itertools import pairwise
from math import ceil

from steps.ports.sglang import Answer, Refusal
from steps.proof.answers import flaws
from steps.proof.counters import MIB, Counters
from steps.proof.worker_state import Portrait
from steps.reconcile.plan import Plan

Pair = tuple[str, str]  # short names of prefill and decode

LOOKS = 6  # readings that a counter may need to appear; with the pauses of the engine some eight seconds
ASKS = 4  # of one pair, until its bytes are seen without those of others
TOLERANCE = 0.01


@dataclass(frozen=True)
class Exchange:
    """One request: through the router, or to a pair that was chosen."""

    wanted: tuple[Pair, ...]  # every pair of the release
    pair: Pair | None  # whom it was sent to; None: the router chose
    reply: Answer | Refusal
    before: Mapping[str, Counters]
    after: Mapping[str, Counters]
    looks: int = 1  # how often `after` was read

    def again(self, after: Mapping[str, Counters]) -> "Exchange":
        return replace(self, after=after, looks=self.looks + 1)

    @cached_property
    def moved(self) -> dict[str, Counters]:
        return {name: self.after[name] - self.before[name] for name in self.before}

    @property
    def givers(self) -> dict[str, Counters]:
        """Prefill workers, of those that were asked, that handed over KV cache."""
        return {name: by for name, by in self._side(0).items() if by.handovers > 0}

    @property
    def takers(self) -> dict[str, Counters]:
        """Decode workers, of those that were asked, that finished a request."""
        return {name: by for name, by in self._side(1).items() if by.requests > 0}

    @cached_property
    def pairs(self) -> set[Pair]:
        """The pair whose counters this request alone can have moved; empty if other clients may have a part in it."""
        reply, givers, takers = self.reply, self.givers, self.takers
        if isinstance(reply, Refusal) or len(givers) != 1 or len(takers) != 1:
            return set()
        ((giver, gave),), ((taker, took),) = givers.items(), takers.items()
        alone = gave.handovers == 1 and gave.ranks_agree and _is_of(gave, reply)
        if self.pair is None:  # the engine does not say whom the router took, so all that moved must be this request
            alone = alone and _is_of(took, reply) and not self.others
        return {(giver, taker)} if alone else set()

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
    def settled(self) -> bool:
        """The counters have followed the answer, or had their time."""
        followed = bool(self.givers and self.takers) and (self.others or bool(self.pairs))
        over = isinstance(self.reply, Refusal) or any(by.went_back for by in self.moved.values())
        return followed or over or self.looks >= LOOKS

    @property
    def hidden(self) -> bool:
        """Answered by the chosen pair, but the counters moved by more: another time they may not."""
        return bool(self.pair and isinstance(self.reply, Answer) and self.givers and self.takers) and not self.pairs

    @property
    def trouble(self) -> bool:
        return isinstance(self.reply, Refusal) or not self.pairs or any(by.failures for by in self.moved.values())

    def __str__(self) -> str:
        return f"{self.pair[0]} -> {self.pair[1]}" if self.pair else "the request through the router"

    def _all(self, side: int) -> dict[str, Counters]:
        names = {pair[side] for pair in self.wanted}
        return {name: by for name, by in self.moved.items() if name in names}

    def _side(self, side: int) -> dict[str, Counters]:
        return {name: by for name, by in self._all(side).items() if self.pair is None or name == self.pair[side]}


def _is_of(moved: Counters, answer: Answer) -> bool:
    return moved.requests == 1 and moved.prompt_tokens == answer.prompt_tokens


def _exceeds(moved: Iterable[Counters], most: float) -> bool:
    counted = list(moved)
    sums = (sum(getattr(by, name) for by in counted) for name in ("arrived", "requests", "handovers"))
    return any(total > most for total in sums)


@dataclass(frozen=True)
class ThroughRouter:
    """The next request goes where clients send theirs."""


def every_pair(portraits: Sequence[Portrait]) -> tuple[Pair, ...]:
    prefill = [portrait.member.name for portrait in portraits if portrait.member.role == "prefill"]
    decode = [portrait.member.name for portrait in portraits if portrait.member.role == "decode"]
    return tuple((giver, taker) for giver in prefill for taker in decode)


def next_request(wanted: Sequence[Pair], exchanges: Sequence[Exchange]) -> ThroughRouter | Pair | None:
    """None: nothing more to ask now.

    First through the router, as clients do, until it has taken every pair or has had its turns: round robin over two
    prefill and two decode workers never takes all four. The pairs that are left are then asked one by one, in rooms of
    their own, as is everything once something went wrong or other clients are served. A pair whose bytes others hid is
    asked again, in turn with its like.
    """
    if exchanges and not exchanges[-1].settled:
        return None
    left = unproved(wanted, exchanges)
    by_router = [exchange for exchange in exchanges if exchange.pair is None]
    if not by_router:
        return ThroughRouter()
    sides = (len({giver for giver, _ in wanted}), len({taker for _, taker in wanted}))
    if left and len(by_router) < 2 * max(sides) and not any(exchange.trouble for exchange in exchanges):
        return ThroughRouter()
    asks = 1 if any(isinstance(exchange.reply, Refusal) for exchange in exchanges) else ASKS
    tried = {pair: [exchange for exchange in exchanges if exchange.pair == pair] for pair in left}
    open_ = [pair for pair in left if len(tried[pair]) < asks and all(each.hidden for each in tried[pair])]
    return min(open_, key=lambda pair: len(tried[pair]), default=None)


def unproved(wanted: Sequence[Pair], exchanges: Sequence[Exchange]) -> list[Pair]:
    proved = {pair for exchange in exchanges for pair in exchange.pairs}
    return [pair for pair in wanted if pair not in proved]


def unattributable(wanted: Sequence[Pair], exchanges: Sequence[Exchange]) -> dict[Pair, int]:
    """Pairs that answered in rooms of their own, each time while others moved the counters; and how often."""
    asked = [exchange.pair for exchange in exchanges if exchange.hidden] if others_came(exchanges) else []
    return {pair: asked.count(pair) for pair in unproved(wanted, exchanges) if pair in asked}


def others_came(exchanges: Sequence[Exchange]) -> bool:
    """Whether other clients used these workers at any time since the first reading."""
    between = [second.before[name] - first.after[name] for first, second in pairwise(exchanges) for name in first.after]
    return any(exchange.others for exchange in exchanges) or any(by.arrived > 0 or by.aborted > 0 for by in between)


def judge(portraits: Sequence[Portrait], exchanges: Sequence[Exchange], model: str) -> Plan:
    """What the requests prove. A wait means: look again, the counters may follow."""
    if exchanges and not exchanges[-1].settled:
        return Plan(waiting=(f"the counters of {exchanges[-1]}, which was answered, to move",))
    found = [fault for exchange in exchanges for fault in _faults(exchange, portraits, model)]
    failures = [line for exchange in exchanges for line in _failures(exchange)]
    wanted, others = every_pair(portraits), others_came(exchanges)
    found += [] if others else [f"{line}, expected 0" for line in failures]
    hidden = unattributable(wanted, exchanges)
    left = [] if found else [pair for pair in unproved(wanted, exchanges) if pair not in hidden]
    if left:
        pairs = ", ".join(f"{giver} -> {taker}" for giver, taker in left)
        found.append(f"no request proved {pairs} in {len(exchanges)} requests. Next: run the smoke test again")
    lines = [*_kept(exchanges), *_hidden(hidden, len(wanted))]
    lines += [f"{line}; not attributable, other clients are served" for line in failures] if others else []
    return Plan(ok=tuple(lines), failed=tuple(dict.fromkeys(found)))


def _kept(exchanges: Sequence[Exchange]) -> list[str]:
    lines: dict[Pair, str] = {}
    for exchange in exchanges:
        for giver, taker in sorted(exchange.pairs):
            assert isinstance(exchange.reply, Answer)
            moved = mebibytes(exchange.moved[giver].mib)
            how = "" if exchange.pair is None else ", asked directly"
            line = f"{giver} -> {taker} moved {moved} for {exchange.reply.prompt_tokens} tokens{how}"
            lines.setdefault((giver, taker), line)
    return list(lines.values())


def _hidden(hidden: Mapping[Pair, int], wanted: int) -> list[str]:
    lines = [
        f"{giver} -> {taker} answered {_times(asks)}; bytes not attributable, other clients moved the counters"
        for (giver, taker), asks in hidden.items()
    ]
    return [*lines, f"bytes counted on {wanted - len(hidden)} of {wanted} pairs"] if lines else []


def _times(asks: int) -> str:
    return "in a room of its own" if asks == 1 else f"in {asks} rooms of its own"


def _faults(exchange: Exchange, portraits: Sequence[Portrait], model: str) -> list[str]:
    found = [
        f"{name}: its counters went back during a request, so it was started again; look at its previous log"
        for name, by in exchange.moved.items()
        if by.went_back
    ]
    if isinstance(exchange.reply, Refusal):
        return [f"{exchange}: no answer, found {exchange.reply}", *found]
    found += [f"{exchange}: {flaw}" for flaw in flaws(exchange.reply, model)]
    return found + ([] if found else _movement_faults(exchange, exchange.reply, portraits))


def _failures(exchange: Exchange) -> list[str]:
    return [
        f"{name}: {counter} rose by {count} during {exchange}"
        for name, by in exchange.moved.items()
        for counter, count in by.failures.items()
    ]


def _movement_faults(exchange: Exchange, answer: Answer, portraits: Sequence[Portrait]) -> list[str]:
    if not exchange.givers:
        return [f"{exchange}: answered, but no prefill worker handed over KV cache: found 0 transfers, expected 1"]
    if not exchange.takers:
        return [f"{exchange}: answered, but no decode worker finished a request: found 0 requests, expected 1"]
    sizes = {portrait.member.name: portrait for portrait in portraits}
    return [line for giver, _ in exchange.pairs for line in _size_faults(exchange, answer, sizes[giver])]


def _size_faults(exchange: Exchange, answer: Answer, giver: Portrait) -> list[str]:
    if giver.kv_bytes_per_token is None:
        return []
    name, page = giver.member.name, giver.info.page_size
    moved = exchange.moved[name].mib
    least = answer.prompt_tokens * giver.kv_bytes_per_token / MIB
    most = ceil(answer.prompt_tokens / page) * page * giver.kv_bytes_per_token / MIB
    if least * (1 - TOLERANCE) <= moved <= most * (1 + TOLERANCE):
        return []
    line = f"{exchange}: {name} moved {mebibytes(moved)} of KV cache for {answer.prompt_tokens} tokens"
    return [f"{line}, expected {mebibytes(least)} at {giver.kv_bytes_per_token:g} bytes a token"]


def mebibytes(amount: float) -> str:
    return f"{amount:.1f} MiB" if amount >= 1 else f"{amount:.4f} MiB"
