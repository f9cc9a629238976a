"""One request and what it moved; which request comes next; what all of them prove."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from steps.engine.plan import Plan
from steps.ports import Answer, Refusal
from steps.proof.answers import flaws
from steps.proof.counters import MIB, Counters
from steps.proof.portraits import Portrait

Pair = tuple[str, str]  # short names of prefill and decode

LOOKS = 6  # readings that a counter may need to appear; with the pauses of the engine some eight seconds
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

    @property
    def moved(self) -> dict[str, Counters]:
        return {name: self.after[name] - self.before[name] for name in self.before}

    @property
    def givers(self) -> set[str]:
        """Prefill workers that handed over KV cache."""
        return {name for name, by in self.moved.items() if by.transfers > 0 and by.transferred_mib > 0}

    @property
    def takers(self) -> set[str]:
        """Decode workers that finished a request."""
        decode = {taker for _, taker in self.wanted}
        return {name for name, by in self.moved.items() if by.requests > 0 and name in decode}

    @property
    def pairs(self) -> set[Pair]:
        """Pairs that this request proves. With traffic of others beside it, it may be open who fed whom: then none."""
        prefill, decode = ({pair[side] for pair in self.wanted} for side in (0, 1))
        one_giver = len(self.givers) == 1 or len(decode) == 1
        one_taker = len(self.takers) == 1 or len(prefill) == 1
        if isinstance(self.reply, Refusal) or not (one_giver and one_taker):
            return set()
        found = {(giver, taker) for giver in self.givers for taker in self.takers}
        return found if self.pair is None else found & {self.pair}

    @property
    def settled(self) -> bool:
        """The counters have followed the answer, or had their time."""
        followed = bool(self.givers and self.takers) or any(by.went_back for by in self.moved.values())
        return isinstance(self.reply, Refusal) or followed or self.looks >= LOOKS

    @property
    def trouble(self) -> bool:
        return isinstance(self.reply, Refusal) or not self.pairs or any(by.failures for by in self.moved.values())

    def __str__(self) -> str:
        return f"{self.pair[0]} -> {self.pair[1]}" if self.pair else "the request through the router"


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
    prefill and two decode workers never takes all four. The pairs that are left are then asked one by one, as is
    everything once something went wrong: that names the pair.
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
    tried = {exchange.pair for exchange in exchanges}
    return next((pair for pair in left if pair not in tried), None)


def unproved(wanted: Sequence[Pair], exchanges: Sequence[Exchange]) -> list[Pair]:
    proved = {pair for exchange in exchanges for pair in exchange.pairs}
    return [pair for pair in wanted if pair not in proved]


def judge(portraits: Sequence[Portrait], exchanges: Sequence[Exchange], model: str) -> Plan:
    """What the requests prove. A wait means: look again, the counters may follow."""
    if exchanges and not exchanges[-1].settled:
        return Plan(waits=(f"the counters of {exchanges[-1]}, which was answered, to move",))
    found = [fault for exchange in exchanges for fault in _faults(exchange, portraits, model)]
    wanted = every_pair(portraits)
    left = [] if found else unproved(wanted, exchanges)
    if left:
        pairs = ", ".join(f"{giver} -> {taker}" for giver, taker in left)
        found.append(
            f"no request proved {pairs} in {len(exchanges)} requests: too much traffic of others on these workers; "
            "run it again when the release takes less"
        )
    return Plan(kept=tuple(_kept(exchanges)), faults=tuple(dict.fromkeys(found)))


def _kept(exchanges: Sequence[Exchange]) -> list[str]:
    lines: dict[Pair, str] = {}
    for exchange in exchanges:
        for giver, taker in sorted(exchange.pairs):
            assert isinstance(exchange.reply, Answer)
            moved = mebibytes(exchange.moved[giver].transferred_mib)
            how = "" if exchange.pair is None else ", asked directly"
            line = f"{giver} -> {taker} moved {moved} for {exchange.reply.prompt_tokens} tokens{how}"
            lines.setdefault((giver, taker), line)
    return list(lines.values())


def _faults(exchange: Exchange, portraits: Sequence[Portrait], model: str) -> list[str]:
    found = [
        f"{name}: its counters went back during a request, so it was started again; look at its previous log"
        for name, by in exchange.moved.items()
        if by.went_back
    ]
    found += [
        f"{name}: {counter} rose by {count} during {exchange}, expected 0"
        for name, by in exchange.moved.items()
        for counter, count in by.failures.items()
    ]
    if isinstance(exchange.reply, Refusal):
        return [f"{exchange}: no answer, found {exchange.reply}", *found]
    found += [f"{exchange}: {flaw}" for flaw in flaws(exchange.reply, model)]
    return found + ([] if found else _movement_faults(exchange, exchange.reply, portraits))


def _movement_faults(exchange: Exchange, answer: Answer, portraits: Sequence[Portrait]) -> list[str]:
    givers = {name: by for name, by in exchange.moved.items() if by.transfers > 0}
    if not givers:
        return [f"{exchange}: answered, but no prefill worker handed over KV cache: found 0 transfers, expected 1"]
    sizes = {portrait.member.name: portrait for portrait in portraits}
    found = []
    for name, by in givers.items():
        portrait = sizes[name]
        if by.transfers != 1 or portrait.kv_bytes_per_token is None:
            continue  # traffic of others: what one request moved cannot be told
        least = answer.prompt_tokens * portrait.kv_bytes_per_token / MIB
        most = ceil(answer.prompt_tokens / portrait.info.page_size) * portrait.info.page_size
        most_mib = most * portrait.kv_bytes_per_token / MIB
        if not least * (1 - TOLERANCE) <= by.transferred_mib <= most_mib * (1 + TOLERANCE):
            found.append(
                f"{exchange}: {name} moved {mebibytes(by.transferred_mib)} of KV cache for {answer.prompt_tokens} "
                f"tokens, expected {mebibytes(least)} at {portrait.kv_bytes_per_token:g} bytes a token"
            )
    return found


def mebibytes(amount: float) -> str:
    return f"{amount:.1f} MiB" if amount >= 1 else f"{amount:.4f} MiB"
