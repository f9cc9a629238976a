"""Each step uses exactly the rights of its account: all of them, no other, and it says which one it lacks.

Over the real adapter against the embedded cluster, through an API that knows one account. tests/contract/
test_permissions_granted.py holds the roles against the authorizer of a real API server.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from steps import wiring
from steps.adapters.kubernetes.cluster import KubernetesCluster, connect
from steps.catalogue import CATALOGUE, rules
from steps.check_platform import CheckPlatform
from steps.check_release import CheckRelease, Part
from steps.create_scratch import CreateScratch
from steps.create_volume import CreateVolume
from steps.errors import Blocked, StepError
from steps.kinds import POD, V1ALPHA1, Kind, Manifest, Ref
from steps.model import Listing, ModelFile
from steps.objects import scratch_claim, services, volume
from steps.objects.read_only import ReadOnlyCluster
from steps.policy_rules import permissions
from steps.ports.kubernetes import Permission
from steps.ports.sglang import NotServing
from steps.promote_release import PromoteRelease
from steps.reconcile.converge import Past, Step, converge
from steps.release import Release
from steps.report.run_end import RunEnd, workflow_of
from steps.report_run import ReportRun
from steps.resolve_model import ResolveModel
from steps.roll_back import RollBack
from steps.roll_out_service import RollOutService
from steps.rollout.intent import Intent
from steps.rollout.observation import WORKLOAD_TYPE
from steps.rollout.writer_lease import GpuLease, Guarded, Writer, WriterLease
from steps.smoke_test import SmokeTest
from tests.support.argo_cluster import Attempt, definition, nodes
from tests.support.fakes import FakeClock, ListedSource, RecordingReport, stored
from tests.support.live_cluster import KEY, LiveCluster, live_cluster
from tests.support.samples import release, wanted
from workflows.simulator.core.cluster.controllers.operator_style import V08
from workflows.simulator.core.cluster.resources import CUSTOM_RESOURCE_DEFINITIONS
from workflows.simulator.http.api_server import ApiServer

pytestmark = pytest.mark.exhaustive

DECIDED = ("notifications=[{secret: webhook, key: url}]", "proof.deadlineMinutes=1")
OLDEST, OLD, NEW, CANDIDATE = (release(*DECIDED, digest="sha256:" + digit * 64) for digit in "1234")
# What every authenticated caller may do: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#discovery-roles
EVERYBODY = ("create", "selfsubjectaccessreviews")
LISTED = ListedSource(Listing.of(ModelFile(path, 1, "a" * 64) for path in ("config.json", "model.safetensors")))
CRASHED: dict[str, Any] = {
    "conditions": [{"type": "Ready", "status": "False"}],
    "containerStatuses": [
        {
            "name": "worker",
            "ready": False,
            "restartCount": 5,
            "image": "image",
            "imageID": "",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}},
        }
    ],
}

Request = tuple[str, str, str, str]


@dataclass
class Gate:
    """Lets an account do what its table says, without what was taken from it, and remembers what it was asked."""

    rights: tuple[Permission, ...]
    without: set[Permission] = field(default_factory=set)
    used: set[Permission] = field(default_factory=set)
    strange: list[Request] = field(default_factory=list)

    def denied(self, verb: str, rule: str, namespace: str, name: str) -> bool:
        if (verb, rule) == EVERYBODY:
            return False
        # For the API server, a namespace lies in itself.
        found = {right for right in self.rights if _covers(right, (verb, rule, namespace or _own(rule, name), name))}
        if not found:
            self.strange.append((verb, rule, namespace, name))
        self.used |= found
        return not found - self.without


def _own(rule: str, name: str) -> str:
    return name if rule == "namespaces" else ""


def _covers(right: Permission, request: Request) -> bool:
    verb, rule, namespace, name = request
    where = right.namespace in ("", namespace) and right.name in ("", name)
    return (right.verb, right.resource) == (verb, rule) and where


class Silent:
    """An engine that does not answer yet."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def no_answer(*_: Any) -> Any:
            raise NotServing(f"nothing answers {name}")

        return no_answer


@dataclass
class Inbox:
    messages: list[Mapping[str, Any]] = field(default_factory=list)

    def send(self, message: Mapping[str, Any]) -> None:
        self.messages.append(message)


@dataclass
class Stage:
    """What others did before, the step, and the rights of which each must be missed here."""

    prepare: Callable[[], object]
    step: Callable[[], Step[Any]]
    missed: tuple[str, ...]  # "verb resource", in the order in which the step uses them up
    works: bool = True


@dataclass
class World:
    live: LiveCluster
    cluster: KubernetesCluster  # as the account
    gate: Gate

    def run(self, stage: Stage) -> None:
        lease = WriterLease(OLD.service, self.cluster, Writer("nightly-7", 3600, stays=False), self.live.clock)
        step: Step[Any] = stage.step()
        if self.guarded(step):
            intent = Intent("nightly-7", 0 if isinstance(step, CreateVolume) else None)
            gpus = GpuLease(OLD.service, self.cluster, Writer("nightly-7", 120, stays=False), self.live.clock)
            step = Guarded(Guarded(step, gpus, intent) if isinstance(step, RollOutService) else step, lease, intent)
        converge(step, RecordingReport(), self.live.clock)

    @staticmethod
    def guarded(step: Step[Any]) -> bool:
        return isinstance(step, CreateVolume | RollOutService | PromoteRelease | RollBack)

    def up(self, made: Release) -> None:
        """Started by the administrator, not yet promoted."""
        self.live.run(self.live.volume(made))
        self.live.run(self.live.rollout(made))

    def serve(self, made: Release) -> None:
        self.live.serve(made)

    def forget_lease(self) -> None:
        self._delete(Ref(Kind("coordination.k8s.io/v1", "Lease"), "qwen3-32b-writer", "default"))

    def lose_claim(self, made: Release) -> None:
        self._delete(volume.claim_ref(made))
        self.live.settle(lambda: self._phase(volume.volume_ref(made)) == "Released")

    def lose_group(self, made: Release) -> None:
        self._delete(Ref(Kind(V1ALPHA1, "RoleBasedGroup"), made.group, "default"))
        self._delete(services.release_service_ref(made))

    def break_pods(self, made: Release) -> None:
        """Controllers stop; the pods of a release crashed, and its group is one that an operator converted."""
        self.live.freeze()
        for pod in self.live.port.select(POD, "default", {"slipway/release": made.id}):
            statuses = [{**CRASHED["containerStatuses"][0], "name": pod["spec"]["containers"][0]["name"]}]
            self._patch_status(pod["metadata"]["name"], {**CRASHED, "containerStatuses": statuses})
        ref = Ref(Kind(V1ALPHA1, "RoleBasedGroup"), made.group, "default")
        roles = (self.live.port.get(ref) or {})["spec"]["roles"]
        kept = {WORKLOAD_TYPE: "workloads.x-k8s.io/v1alpha2/RoleInstanceSet"}
        self.live.patch(ref, {"spec": {"roles": [{**role, "annotations": kept} for role in roles]}})

    def _patch_status(self, pod: str, status: Mapping[str, Any], namespace: str = "default") -> None:
        answer = requests.patch(
            f"{self.live.embedded.url}/api/v1/namespaces/{namespace}/pods/{pod}/status",
            json={"status": status},
            headers={"Content-Type": "application/merge-patch+json"},
            timeout=30,
        )
        assert answer.ok, answer.text

    def _phase(self, ref: Ref) -> str:
        return str(((self.live.port.get(ref) or {}).get("status") or {}).get("phase", ""))

    def _delete(self, ref: Ref) -> None:
        found = self.live.port.get(ref)
        if found is not None:
            self.live.port.delete(ref, found["metadata"]["uid"])


@contextmanager
def world(folder: Path, step: str) -> Iterator[World]:
    found = rights_of(step)
    gate = Gate(found)
    with live_cluster(folder, V08) as live:
        live.embedded.store.create(CUSTOM_RESOURCE_DEFINITIONS, definition("Workflow"))
        plane = live.embedded._control_plane
        api = ApiServer(
            live.embedded.store, denied=gate.denied, pod_log=plane.pod_log, reviewed=lambda *_: False, token="account"
        )
        api.write_kubeconfig(folder / "account")
        api.start()
        try:
            yield World(live, connect(folder / "account"), gate)
        finally:
            api.stop()


def rights_of(step: str) -> tuple[Permission, ...]:
    return tuple(permission for rule in rules(step, OLD.service) for permission in permissions(rule, OLD.service))


def optional(step: str) -> set[Permission]:
    service = OLD.service
    return {permission for rule in rules(step, service) if rule.explains for permission in permissions(rule, service)}


# In a scenario comes first what is refused before anything is written, and last what is written first: a right that is
# missed at the end lets everything before it happen.
LOOK = ("get statefulsets", "list pods")
CONVERTED = ("get roleinstancesets",)
LEASE = ("get leases", "create leases")


@dataclass(frozen=True)
class Insisting:
    """check-release, which takes a refusal for a reason to walk the line, as a step that fails of it."""

    step: CheckRelease
    deadline: float = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.step, name)

    def observe(self, past: Past[Any]) -> Any:
        facts = self.step.observe(past)
        if "not allowed to" in facts.stale:
            raise Blocked(facts.stale)
        return facts


def resolve_model(world: World) -> list[Stage]:
    def step() -> ResolveModel:
        return ResolveModel(wanted(), lambda _: LISTED, world.cluster)

    return [Stage(lambda: None, step, ("get configmaps",))]


def check_release(world: World) -> list[Stage]:
    view = ReadOnlyCluster(world.cluster)

    def step() -> Any:
        parts = (
            Part("create-volume", lambda: CreateVolume(OLD, view, KEY, stored(OLD))),
            Part("roll-out-service", lambda: RollOutService(OLD, view)),
            Part("promote-release", lambda: PromoteRelease(OLD, view, proved=OLD.id)),
            Part("smoke-test", lambda: SmokeTest(OLD, view, Silent())),
        )
        return Insisting(CheckRelease(OLD, parts))

    listed = ("persistentvolumeclaims", "persistentvolumes", "rolebasedgroups", "services")
    looks = tuple(f"{verb} {kind}" for kind in listed for verb in ("get", "list"))
    return [
        Stage(lambda: world.serve(OLD), step, ("get secrets", "get configmaps", *looks, *LOOK, "get pods/log")),
        Stage(lambda: world.break_pods(OLD), step, CONVERTED),
    ]


def create_volume(world: World) -> list[Stage]:
    def step() -> CreateVolume:
        return CreateVolume(world.live.store(OLD), world.cluster, KEY, stored(OLD))

    objects = ("secrets", "persistentvolumes", "persistentvolumeclaims")
    previews = tuple(f"{verb} {kind}" for kind in objects for verb in ("get", "patch", "create"))
    return [
        Stage(lambda: None, step, ("get configmaps", *previews, *LEASE, "update leases")),
        Stage(lambda: world.lose_claim(OLD), step, ("delete persistentvolumes",)),
    ]


def roll_out_service(world: World) -> list[Stage]:
    def step() -> RollOutService:
        return RollOutService(NEW, world.cluster)

    def prepare() -> None:
        world.serve(OLD)
        world.up(CANDIDATE)  # left behind by a run that was killed
        world.live.run(world.live.volume(NEW))

    group = tuple(f"{verb} rolebasedgroups" for verb in ("get", "list", "patch", "create"))
    service = tuple(f"{verb} services" for verb in ("get", "patch", "create"))
    written = ("delete rolebasedgroups", "update leases")
    return [
        Stage(
            prepare,
            step,
            ("get configmaps", "get persistentvolumeclaims", *service, *group, *LEASE, *written, *LOOK),
        ),
        Stage(lambda: world.break_pods(NEW), step, CONVERTED, works=False),
    ]


def smoke_test(world: World) -> list[Stage]:
    def step() -> SmokeTest:
        return SmokeTest(OLD, world.cluster, Silent())

    return [Stage(lambda: world.up(OLD), step, ("list pods", "get services", "get pods/log"), works=False)]


def promote_release(world: World) -> list[Stage]:
    def promotion(made: Release) -> Callable[[], PromoteRelease]:
        return lambda: PromoteRelease(made, world.cluster, world.live.clock, made.id)

    objects = ("get configmaps", "patch configmaps", "create configmaps", "patch services", "create services")
    look = ("get services", "list services", "get rolebasedgroups", "list rolebasedgroups", *LOOK)
    listed = ("list persistentvolumeclaims", "list persistentvolumes")
    deleted = tuple(
        f"delete {kind}" for kind in ("rolebasedgroups", "services", "persistentvolumeclaims", "persistentvolumes")
    )

    def newest() -> None:
        world.serve(OLD)
        world.up(NEW)

    return [
        Stage(lambda: world.up(OLDEST), promotion(OLDEST), (*objects, *look, *listed, *LEASE)),
        Stage(newest, promotion(NEW), (*deleted, "update leases")),
        Stage(lambda: world.break_pods(NEW), promotion(NEW), CONVERTED, works=False),
    ]


def roll_back(world: World) -> list[Stage]:
    def step() -> RollBack:
        engine: Any = world.live.engine
        run = RunEnd.of("nightly-7", "Failed")
        return RollBack(OLD.service, world.cluster, engine, run, partial(workflow_of, world.cluster, OLD.service, "7"))

    def lose() -> None:
        world.serve(OLD)
        world.lose_group(OLD)

    reads = ("get configmaps", "list services", "list rolebasedgroups")
    writes = ("delete rolebasedgroups", "delete services", "update leases")
    back = tuple(f"{verb} {kind}" for kind in ("services", "rolebasedgroups") for verb in ("get", "patch", "create"))
    return [
        Stage(lambda: world.up(CANDIDATE), step, (*reads, *LEASE, *writes)),
        Stage(lose, step, (*back, *LOOK)),
        Stage(lambda: world.break_pods(OLD), step, CONVERTED),
    ]


def create_scratch(world: World) -> list[Stage]:
    def step() -> CreateScratch:
        return CreateScratch(OLD.service, world.cluster, "nightly-7", "0b1c")

    world.live.port.apply(RUNS)
    verbs = ("get", "patch", "create")
    return [Stage(world.live.freeze, step, tuple(f"{verb} persistentvolumeclaims" for verb in verbs))]


def report_run(world: World) -> list[Stage]:
    """After a run that failed behind its transfer: a Retry needs its scratch volume no more."""

    def read() -> Manifest:
        with suppress(Blocked):
            workflow_of(world.cluster, OLD.service, "nightly-7")
        return MOVED

    def step() -> ReportRun:
        return ReportRun(OLD.service, world.cluster, Inbox, RunEnd.of("nightly-7", "Failed"), read)

    def moved() -> None:
        world.live.freeze()  # the collector would find no Workflow that owns the claim
        for made in (RUNS, scratch_claim.claim(OLD.service, "nightly-7", "0b1c"), ENDED):
            world.live.port.apply(made)
        name, namespace = ENDED["metadata"]["name"], ENDED["metadata"]["namespace"]
        world._patch_status(name, {"phase": "Succeeded"}, namespace)

    missed = ("get persistentvolumeclaims", "list pods", "delete pods", "delete persistentvolumeclaims")
    return [Stage(moved, step, missed)]


RUNS = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OLD.service.workflow.namespace}}
MOVED = {
    "metadata": {"name": "nightly-7"},
    "status": {
        "phase": "Running",
        "nodes": nodes(
            "nightly-7",
            {"create-scratch": (Attempt(),), "upload-model": (Attempt(),), "create-volume": (Attempt("Failed"),)},
        ),
    },
}

ENDED: Manifest = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "nightly-7-upload-model",
        "namespace": OLD.service.workflow.namespace,
        "labels": {scratch_claim.RUN_LABEL: "nightly-7"},
    },
    "spec": {
        "containers": [{"name": "main", "image": "slipway"}],
        "volumes": [{"name": "scratch", "persistentVolumeClaim": {"claimName": scratch_claim.claim_name("nightly-7")}}],
    },
}

SCENARIOS: dict[str, Callable[[World], list[Stage]]] = {
    "resolve-model": resolve_model,
    "check-release": check_release,
    "create-scratch": create_scratch,
    "create-volume": create_volume,
    "roll-out-service": roll_out_service,
    "smoke-test": smoke_test,
    "promote-release": promote_release,
    "roll-back": roll_back,
    "report-run": report_run,
}


@pytest.mark.parametrize("step", SCENARIOS)
def test_a_step_uses_exactly_its_rights_and_names_the_one_that_it_lacks(step: str, tmp_path: Path) -> None:
    with world(tmp_path, step) as here:
        missed: set[Permission] = set()
        for stage in SCENARIOS[step](here):
            stage.prepare()
            for text in stage.missed:
                missed |= _miss(here, stage, text)
            _run_with_all(here, stage)
        _collide(here, step)
        assert here.gate.strange == []
        assert sorted(map(str, set(here.gate.rights) - here.gate.used)) == []
        assert sorted(map(str, set(here.gate.rights) - missed - optional(step) - _in_a_race(step))) == []


def _miss(here: World, stage: Stage, text: str) -> set[Permission]:
    """Take a right away, and be told which. It may be granted twice, by name and without; then both go."""
    if text == "create leases":
        here.forget_lease()
    taken = {right for right in here.gate.rights if f"{right.verb} {right.resource}" == text}
    here.gate.without = taken
    with pytest.raises(Blocked) as refused:
        here.run(stage)
    here.gate.without = set()
    right = next(iter(taken))
    resource = f"{right.resource}.{right.group}" if right.group else right.resource
    assert f"grant `{right.verb}` on `{resource}`" in str(refused.value), str(refused.value)
    return taken


def _run_with_all(here: World, stage: Stage) -> None:
    if stage.works:
        here.run(stage)
        return
    with pytest.raises(StepError) as ended:
        here.run(stage)
    assert "not allowed" not in str(ended.value)


def _collide(here: World, step: str) -> None:
    """What only a race needs: between plan and act, somebody made the object anew."""
    if step != "promote-release":
        return
    for ref in (volume.claim_ref(NEW), volume.volume_ref(NEW)):
        here.cluster.delete(ref, "another-uid")
        assert here.cluster.get(ref) is not None


def _in_a_race(step: str) -> set[Permission]:
    volumes = ("persistentvolumes", "persistentvolumeclaims")
    return {
        right
        for right in rights_of(step)
        if step == "promote-release" and right.verb == "get" and right.resource in volumes
    }


def test_the_platform_check_uses_exactly_its_rights_and_says_what_it_could_not_look_at(tmp_path: Path) -> None:
    with world(tmp_path, "check-platform") as here:
        step = CheckPlatform(OLD, here.cluster, _Stored(), LISTED, run="nightly-7", own_accounts=True)  # type: ignore[arg-type]
        found = step.observe(Past())
        assert here.gate.strange == []
        assert sorted(map(str, set(here.gate.rights) - here.gate.used)) == []
        assert all(found.rights.values())
        for right in here.gate.rights:
            here.gate.without = {right}
            with pytest.raises(Blocked, match="not allowed to") as refused:
                converge(step, RecordingReport(), FakeClock())
            resource = f"{right.resource}.{right.group}" if right.group else right.resource
            assert f"{right.verb} {resource}" in str(refused.value)


@pytest.mark.parametrize("step", sorted(set(CATALOGUE) - set(SCENARIOS) - {"check-platform"}))
def test_a_transfer_has_no_rights_on_the_cluster_and_no_way_to_it(step: str) -> None:
    assert rules(step, OLD.service) == ()


def test_who_writes_is_guarded_and_may_hold_the_lease() -> None:
    holders = {step for step in CATALOGUE if any(rule.resource == "leases" for rule in rules(step, OLD.service))}
    assert holders == {step for step, spec in CATALOGUE.items() if spec.writes}
    assert set(CATALOGUE) == set(wiring.STEPS)


class _Stored:
    """A bucket that holds nothing yet."""

    def get(self, _key: str) -> None:
        return None

    def start_upload(self, key: str) -> str:
        return key

    def abort_upload(self, upload: str) -> None:
        pass
