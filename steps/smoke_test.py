"""smoke-test: real inference on this release alone. Read-only: it sends requests and reads counters.

A 200 proves nothing: a router answers without workers, a pair may be broken while another serves, a decode with other
weights answers with garbage, and RDMA falls back to TCP silently. So workers are compared before the first request,
and their counters are read before and after every one, until KV cache went from every prefill to every decode.
"""

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from steps.kinds import POD, RELEASE_LABEL, SERVICE_LABEL
from steps.objects.services import release_service_ref
from steps.ports.kubernetes import Cluster
from steps.ports.sglang import ChatRequest, ChatResponse, EngineError, Inference, NotServing, Pairing, RoutedWorker
from steps.proof import probe_requests as proving
from steps.proof import worker_endpoints, worker_state
from steps.proof.answers import shown
from steps.proof.counters import Counters, counters, kv_bytes_per_token
from steps.proof.probe_requests import Pair, ProbeRequest, ThroughRouter
from steps.proof.transport import LOG_LINES, transport
from steps.proof.worker_endpoints import WorkerEndpoint
from steps.proof.worker_state import WorkerState
from steps.reconcile.converge import Past
from steps.reconcile.outputs import Word
from steps.reconcile.plan import Change, Plan
from steps.reconcile.report import Report
from steps.release import Release
from steps.rollout.garbage import NO_RELEASE

LONGEST_ANSWER = 300  # characters of it in the outputs
# A pair with bytes that other clients hid is probed again, for the counters alone; a short answer meets few of them.
AGAIN = 16  # tokens
READINGS = 3  # at most, until two that follow each other agree: one may fall between the two halves of an observation

Found = TypeVar("Found")


@dataclass(frozen=True)
class Facts:
    absent: tuple[str, ...] = ()  # objects that an earlier step creates
    waits: tuple[str, ...] = ()  # parts that do not serve yet
    workers: tuple[WorkerState, ...] = ()
    routed: tuple[RoutedWorker, ...] = ()  # as the router sees them
    requests: tuple[ProbeRequest, ...] = ()


@dataclass(frozen=True)
class Outputs:
    proved_release: Word  # id; promote-release moves the traffic to no other
    answer: str
    endpoint: str  # of this release, inside the cluster
    pairs: str  # between which KV cache moved, counted in bytes
    pairs_not_attributable: str  # that answered, while other clients moved their counters
    requests: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class SmokeTest:
    release: Release
    cluster: Cluster
    inference: Inference

    @property
    def deadline(self) -> float:
        return self.release.service.proof.deadline_minutes * 60.0

    def observe(self, past: Past[Facts]) -> Facts:
        """Query each pod once, and send each request once: the other results are those of the past."""
        facts = self._read(past.facts or Facts())
        return self._prove(facts) if unfit(self.release, facts).converged else facts

    def plan(self, facts: Facts) -> Plan:
        return plan(self.release, facts)

    def apply(self, changes: tuple[Change, ...], report: Report) -> None:
        """Never called: a plan of this step has no changes."""

    def outputs(self, facts: Facts) -> Outputs:
        first = facts.requests[0].response
        assert isinstance(first, ChatResponse)
        router = worker_endpoints.router(self.release)
        proved = sorted({pair for request in facts.requests for pair in request.pairs})
        hidden = proving.unattributable(proving.every_pair(facts.workers), facts.requests)
        return Outputs(
            proved_release=self.release.id,
            answer=shown(first.text or first.reasoning, LONGEST_ANSWER),
            endpoint=f"http://{router.host}:{router.port}/v1",
            pairs=_listed(proved),
            pairs_not_attributable=_listed(hidden),
            requests=len(facts.requests),
            prompt_tokens=first.prompt_tokens,
            completion_tokens=first.completion_tokens,
        )

    def _read(self, past: Facts) -> Facts:
        release, namespace = self.release, self.release.service.namespace
        pods = self.cluster.select(POD, namespace, {SERVICE_LABEL: release.service.name, RELEASE_LABEL: release.id})
        service = release_service_ref(release)
        if not pods or self.cluster.get(service) is None:
            what = str(service) if pods else f"pod in namespace {namespace} with {RELEASE_LABEL}={release.id}"
            return Facts(absent=(f"there is no {what}; roll-out-service makes it. Next: {NO_RELEASE}",))
        found = worker_endpoints.workers(release, pods)
        waits = worker_endpoints.missing(release, found)
        known = {worker.endpoint.uid: worker for worker in past.workers}
        workers = [
            known.get(endpoint.uid) or _unless_starting(waits, partial(self._worker_state, endpoint))
            for endpoint in found
        ]
        router = worker_endpoints.router(release)
        routed = _unless_starting(waits, lambda: self.inference.routed_workers(router))
        return Facts(
            waits=tuple(waits),
            workers=tuple(worker for worker in workers if worker),
            routed=tuple(routed or ()),
            # The answers of other pods prove nothing about these.
            requests=past.requests if {endpoint.uid for endpoint in found} <= known.keys() else (),
        )

    def _worker_state(self, endpoint: WorkerEndpoint) -> WorkerState:
        """The state of one worker. Read once: the checksum reads all of its weights."""
        ask, chat_request = self.inference, self._chat_request(endpoint.name)
        log = self.cluster.pod_log(endpoint.http.namespace, endpoint.pod, endpoint.container, lines=LOG_LINES)
        info = ask.engine_info(endpoint.http)
        return WorkerState(
            endpoint=endpoint,
            info=info,
            kv_bytes_per_token=kv_bytes_per_token(ask.metrics(endpoint.http)),
            route=ask.bootstrap_route(endpoint.bootstrap) if info.disaggregation_mode == "prefill" else None,
            direct=ask.chat(endpoint.http, chat_request),
            checksum=ask.weights_checksum(endpoint.http),
            transport=transport(log),
        )

    def _prove(self, facts: Facts) -> Facts:
        """Send the next requests, as long as the counters follow at once."""
        waits, done = list[str](), list(facts.requests)
        _unless_starting(waits, lambda: self._go_on(facts.workers, done))
        return replace(facts, waits=tuple(waits), requests=tuple(done))

    def _go_on(self, workers: tuple[WorkerState, ...], done: list[ProbeRequest]) -> None:
        """Appends to `done`, so that the requests before the one without an answer count."""
        wanted = proving.every_pair(workers)
        if done and not done[-1].stable:
            done[-1] = done[-1].again(self._counters(workers))
        while (chosen := proving.next_request(wanted, done)) is not None:
            before = self._counters(workers)
            response = self._ask(workers, chosen, done)
            pair = None if isinstance(chosen, ThroughRouter) else chosen
            done.append(ProbeRequest(wanted, pair, response, before, self._counters(workers)))

    def _ask(
        self, workers: tuple[WorkerState, ...], chosen: ThroughRouter | Pair, done: Sequence[ProbeRequest]
    ) -> ChatResponse | EngineError:
        if isinstance(chosen, ThroughRouter):
            chat_request = self._chat_request(secrets.token_hex(4) if done else "")
            return self.inference.chat(worker_endpoints.router(self.release), chat_request)
        by_name = {worker.endpoint.name: worker.endpoint for worker in workers}
        prefill, decode = (by_name[name] for name in chosen)
        pairing = Pairing(prefill.http.host, prefill.bootstrap.port, secrets.randbits(63))
        chat_request = self._chat_request(secrets.token_hex(4))
        if any(request.pair == chosen for request in done):
            chat_request = replace(chat_request, max_tokens=min(AGAIN, chat_request.max_tokens))
        return self.inference.chat_on_pair(prefill.http, decode.http, pairing, chat_request)

    def _chat_request(self, mark: str) -> ChatRequest:
        """The document's prompt. A mark at its start keeps a cached prefix from answering for the computation."""
        proof = self.release.service.proof
        prompt = f"({mark}) {proof.prompt}" if mark else proof.prompt
        return ChatRequest(self.release.service.served_model_name, prompt, proof.max_tokens)

    def _counters(self, workers: tuple[WorkerState, ...]) -> dict[str, Counters]:
        found = self._reading(workers)
        for _ in range(READINGS - 1):
            earlier, found = found, self._reading(workers)
            if earlier == found:
                break
        return found

    def _reading(self, workers: tuple[WorkerState, ...]) -> dict[str, Counters]:
        return {worker.endpoint.name: counters(self.inference.metrics(worker.endpoint.http)) for worker in workers}


def plan(release: Release, facts: Facts) -> Plan:
    before = unfit(release, facts)
    if not before.converged:
        return before
    if not facts.requests:
        return Plan(waiting=("the first answer",))
    judged = proving.evaluate(facts.workers, facts.requests, release.service.served_model_name)
    return Plan(ok=(*worker_state.kept(release, facts.workers), *_told(facts.requests))) + judged


def unfit(release: Release, facts: Facts) -> Plan:
    """The reasons why a request would prove nothing now; an empty plan if it would."""
    if facts.absent:
        return Plan(failed=facts.absent)
    faults = worker_state.faults(release, facts.workers, facts.routed)
    return Plan(
        waiting=facts.waits or tuple(worker_state.router_waits(release, facts.routed)),
        failed=tuple(faults),
    )


def _listed(pairs: Iterable[proving.Pair]) -> str:
    return ", ".join(f"{prefill} -> {decode}" for prefill, decode in pairs)


def _told(requests: tuple[ProbeRequest, ...]) -> list[str]:
    first = requests[0].response
    if isinstance(first, EngineError):
        return []
    end = "a full stop" if first.finish_reason == "stop" else f"finish_reason {first.finish_reason}"
    return [f"answered with {first.completion_tokens} tokens, ended by {end}: {shown(first.text or first.reasoning)}"]


def _unless_starting(waits: list[str], ask: Callable[[], Found]) -> Found | None:
    """The result, or None and one more reason to wait."""
    try:
        return ask()
    except NotServing as error:
        waits.append(error.reason)
        return None
