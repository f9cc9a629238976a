"""check-release as it is wired, beside a release that really serves: what it finds, and that it writes nothing.

Bucket, cluster and engine are embedded. Each case spoils one thing, is found stale, is mended by the very steps of the
line, and is found current again.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from steps import wiring
from steps.adapters.kubernetes.cluster import KubernetesCluster, connect
from steps.adapters.oss.store import OssStore
from steps.check_release import CURRENT, STALE, CheckRelease, Outputs
from steps.errors import Blocked
from steps.kinds import V1ALPHA1, Kind, Manifest, Ref
from steps.model import Listing, ModelFile
from steps.objects import record, services, volume
from steps.objects.read_only import ReadOnlyCluster
from steps.ports.kubernetes import Cluster
from steps.promote_release import PromoteRelease
from steps.reconcile.clock import SystemClock
from steps.reconcile.converge import Past, Step, converge
from steps.release import Release
from steps.transfer import manifest
from steps.transfer.manifest import ManifestFile
from tests.support.fakes import FakeClock, RecordingReport
from tests.support.live_cluster import LiveCluster
from tests.support.pd_group import FAST as FAST_ENGINE
from tests.support.pd_group import write_model
from tests.support.samples import release, service
from workflows.pipeline import tasks
from workflows.simulator.core.cluster.controllers.timing import FAST
from workflows.simulator.faults.engine_faults import EngineFaults
from workflows.simulator.http.bucket import Bucket
from workflows.simulator.http.cluster import EmbeddedCluster
from workflows.simulator.http.engine import SglangRuntime

DECIDED = ("metadata.annotations={owner: search}",)
# In the order of the line; without the transfer, whose files are there.
LINE = ("create-volume", "roll-out-service", "smoke-test", "promote-release")
KEY_ID, KEY_SECRET = "dummy-id", "dummy-secret"


@dataclass(frozen=True)
class Pinned:
    """The hub, of which only the listing is asked for."""

    found: Listing

    def listing(self) -> Listing:
        return self.found


@dataclass
class World:
    live: LiveCluster
    script: EngineFaults
    store: OssStore
    release: Release
    environment: dict[str, str]

    def build(
        self, step: str, *overrides: str, run: str = "nightly-7", counter: int | None = None, proved: str = ""
    ) -> Step[Any]:
        service = release(*DECIDED, *overrides, name="demo").service
        digest = self.release.model_digest
        said = wiring.Invocation(service, digest, run_name=run, record_counter=counter, proved_release=proved)
        return wiring.build(step, said)

    def ask(self, *overrides: str, run: str = "nightly-7", counter: int | None = None) -> Outputs:
        """What check-release says; it leaves every object as it was."""
        before = self.live.objects()
        step = self.build("check-release", *overrides, run=run, counter=counter)
        found: Outputs = converge(step, RecordingReport(), SystemClock()).outputs
        assert self.live.objects() == before
        return found

    def walk(self, *overrides: str) -> None:
        proved = ""
        for step in LINE:
            found = converge(self.build(step, *overrides, proved=proved), RecordingReport(), SystemClock()).outputs
            proved = getattr(found, "proved_release", proved)

    def delete(self, ref: Ref) -> None:
        found = self.live.port.get(ref)
        assert found is not None
        self.live.port.delete(ref, found["metadata"]["uid"])

    @property
    def group(self) -> Ref:
        return Ref(Kind(V1ALPHA1, "RoleBasedGroup"), self.release.group, "default")

    @property
    def record(self) -> Ref:
        return record.record_ref(self.release.service)


def listing_of(folder: Path) -> Listing:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return Listing.of(
        ModelFile(str(path.relative_to(folder)), path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in files
    )


def publish(store: OssStore, made: Release, listing: Listing) -> None:
    """Write the manifest over files that are there."""
    found = {file.path: store.head(f"{made.prefix}/{file.path}") for file in listing.files}
    files = [ManifestFile(file.path, file.size, file.sha256, found[file.path].crc64) for file in listing.files]  # type: ignore[union-attr,arg-type]
    manifest.publish(store, made, manifest.compose(made, files, 1_790_000_000.0))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A release that went the whole line."""
    folder = tmp_path_factory.mktemp("served")
    listing = listing_of(write_model(folder / "model"))
    made = release(*DECIDED, name="demo", digest=listing.digest)
    script = EngineFaults()
    runtime = SglangRuntime(script, FAST_ENGINE)
    # A group that is ready stays ready: what is found does not depend on the moment of the question.
    timing = replace(FAST, probe_scale=0.01, flap=0.0)
    cluster = EmbeddedCluster(folder / "cluster", runtime, folder / "bucket", timing=timing)
    name = made.service.store.bucket
    bucket = Bucket(folder / "bucket", access_key_id=KEY_ID, access_key_secret=KEY_SECRET, buckets=(name,))
    patch = pytest.MonkeyPatch()
    cluster.start()
    bucket.start()
    try:
        environment = {
            "KUBECONFIG": str(cluster.kubeconfig),
            "SLIPWAY_OSS_ENDPOINT": bucket.url,
            "OSS_ACCESS_KEY_ID": KEY_ID,
            "OSS_ACCESS_KEY_SECRET": KEY_SECRET,
        }
        patch.setattr(wiring, "ENVIRONMENT", environment)
        patch.setattr(wiring, "_source", lambda _: Pinned(listing))
        live = LiveCluster(cluster, connect(cluster.kubeconfig), folder / "bucket" / "objects")
        store = wiring._store(made.service)
        assert isinstance(store, OssStore)
        for file in listing.files:
            store.put(f"{made.prefix}/{file.path}", (folder / "model" / file.path).read_bytes())
        publish(store, made, listing)
        served = World(live, script, store, made, environment)
        served.walk()
        yield served
    finally:
        patch.undo()
        bucket.stop()
        cluster.stop()


def test_a_release_that_serves_is_current_and_proved_by_what_it_answered_now(world: World) -> None:
    found = world.ask()
    assert (found.state, found.release) == (CURRENT, world.release.id)
    assert found.answer.startswith("simulated answer")
    assert found.endpoint == "http://sglang-pd.default.svc:8000/v1"


def test_a_run_that_another_one_overtook_finds_nothing_current_and_each_of_its_steps_is_refused(world: World) -> None:
    assert world.ask(counter=0).state == CURRENT  # it promoted itself
    found = world.ask(run="nightly-6", counter=0)
    assert found.state == STALE
    assert found.reason.startswith(f"nightly-7 promoted release {world.release.id} at ")
    before = world.live.objects()
    for step, override in (
        ("create-volume", "metadata.annotations={}"),
        ("roll-out-service", "serving.prefill.replicas=3"),
        ("roll-out-service", "serving.contextLength=1024"),
        ("promote-release", "metadata.annotations={}"),
    ):
        with pytest.raises(Blocked, match="nightly-7 promoted release"):
            converge(world.build(step, override, run="nightly-6", counter=0), RecordingReport(), SystemClock())
    assert world.live.objects() == before


def test_every_step_that_may_be_left_out_is_asked_in_the_order_of_the_line_and_the_answer_comes_last(
    world: World,
) -> None:
    """A step that joins the line must be asked, too; the checks of the platform only say whether others could work."""
    step = world.build("check-release", "transfer.mode=streamed")
    assert isinstance(step, CheckRelease)
    asked = [part.step for part in step.parts]
    line = [task.step for task in tasks(service("transfer.mode=streamed", name="demo")) if task.spec.skippable]
    assert sorted(asked) == sorted(set(line) - {"check-platform"})
    assert [name for name in asked if name != "smoke-test"] == [
        name for name in line if name in asked and name != asked[-1]
    ]
    assert asked[-1] == "smoke-test"


def scale_down(world: World) -> None:
    live = world.live.port.get(world.group)
    assert live is not None
    roles = [
        {**role, "replicas": 1 if role["name"] == "prefill" else role["replicas"]} for role in live["spec"]["roles"]
    ]
    world.live.patch(world.group, {"spec": {"roles": roles}})


def kill_promotion(world: World) -> None:
    """The traffic has moved, and the record still names the release before."""
    found = record.read(world.live.port.get(world.record))
    assert found.current is not None
    older = replace(found.current, release="0ld00000", group="demo-0ld00000")
    world.live.port.apply(record.record(world.release.service, replace(found, current=older)))


def leave_an_old_release(world: World) -> None:
    other = release(*DECIDED, "serving.contextLength=1024", name="demo", digest=world.release.model_digest)
    world.live.port.apply(services.release_service(other))


def lose_the_manifest(world: World) -> None:
    world.store.delete([world.release.manifest_key])


def write_the_manifest(world: World) -> None:
    publish(world.store, world.release, wiring._source(world.release.service).listing())


def rotate(world: World) -> None:
    secret = volume.secret(world.release, wiring._access_key())
    world.live.patch(Ref.of(secret), {"data": {"akSecret": "cm90YXRlZA=="}})


def nothing(_world: World) -> None:
    """The line itself mends it."""


GROUP = "RoleBasedGroup/default/{group}"
CASES: dict[str, tuple[Callable[[World], None], str, Callable[[World], None]]] = {
    "a drifted replica count": (
        scale_down,
        f"roll-out-service would update {GROUP} (spec.roles[prefill].replicas: 1 -> 2",
        nothing,
    ),
    "a promotion that was killed": (
        kill_promotion,
        "promote-release would update ConfigMap/default/demo-release (data.counter: ",
        nothing,
    ),
    "a promotion that was never recorded": (
        lambda world: world.delete(world.record),
        "promote-release would create ConfigMap/default/demo-release (absent)",
        nothing,
    ),
    "an old release that was left": (
        leave_an_old_release,
        "promote-release would delete Service/default/demo-",
        nothing,
    ),
    "traffic that goes astray": (
        lambda world: world.live.patch(
            services.traffic_service_ref(world.release.service), {"spec": {"selector": {"slipway/release": "0ld"}}}
        ),
        "promote-release would update Service/default/sglang-pd (spec.selector[slipway/release]: 0ld -> ",
        nothing,
    ),
    "a key that was rotated": (
        rotate,
        "create-volume would update Secret/default/demo-oss (data.akSecret: (hidden) -> another value)",
        nothing,
    ),
    "a missing manifest": (lose_the_manifest, "upload-model ", write_the_manifest),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_as_wanted_is_stale_until_the_line_was_walked(world: World, case: str) -> None:
    spoil, reason, mend = CASES[case]
    assert world.ask().state == CURRENT
    spoil(world)
    found = world.ask()
    assert (found.state, found.release) == (STALE, "")
    assert found.reason.startswith(reason.format(group=world.release.group)), found.reason
    mend(world)
    world.walk()
    assert world.ask().state == CURRENT


def test_an_engine_that_answers_and_moves_no_kv_cache_is_stale_and_then_fails_the_smoke_test(world: World) -> None:
    silent = frozenset({"prefill-0", "prefill-1"})
    object.__setattr__(world.script, "no_transfer", silent)  # the engine asks it at every request
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wiring, "LOOKS_AT_ANSWERS", 1)  # later ones would find no other counters
            found = world.ask()
        with pytest.raises(Blocked) as failed:
            converge(world.build("smoke-test"), RecordingReport(), FakeClock())
    finally:
        object.__setattr__(world.script, "no_transfer", frozenset())
    assert (found.state, found.reason.partition(":")[0]) == (STALE, "smoke-test waits for")
    assert "no prefill worker sent KV cache" in str(failed.value)
    assert world.ask().state == CURRENT


def test_an_engine_that_answers_from_other_weights_is_stale_and_then_fails_the_smoke_test(world: World) -> None:
    object.__setattr__(world.script, "wrong_weights", frozenset({"decode-0"}))  # the engine asks it at every request
    try:
        found = world.ask()
        with pytest.raises(Blocked) as failed:
            converge(world.build("smoke-test"), RecordingReport(), SystemClock())
    finally:
        object.__setattr__(world.script, "wrong_weights", frozenset())
    assert (found.state, found.reason.partition(":")[0]) == (STALE, "smoke-test finds")
    assert "the workers differ in weights: decode-0 has" in found.reason
    assert "the workers differ in weights: decode-0 has" in str(failed.value)
    assert world.ask().state == CURRENT


@pytest.mark.parametrize(
    ("override", "step"),
    [
        ("serving.prefill.replicas=3", "roll-out-service"),
        ("serving.contextLength=1024", "roll-out-service"),
        ("volume.client=ossfs", "create-volume"),
        ("endpoint.service=another", "promote-release"),
        ("metadata.annotations={}", "create-volume"),
    ],
)
def test_another_wish_is_stale(world: World, override: str, step: str) -> None:
    found = world.ask(override)
    assert (found.state, found.reason.partition(" ")[0]) == (STALE, step), found.reason


@dataclass(frozen=True)
class Forgetful:
    """A cluster that has forgotten who wrote what, so that nothing tells which fields were ours."""

    cluster: Cluster

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    def get(self, ref: Ref) -> Manifest | None:
        live = self.cluster.get(ref)
        return live and {**live, "metadata": {**live["metadata"], "managedFields": []}}


def test_what_was_taken_out_of_the_document_shows_in_the_record_of_the_release_even_if_nobody_knows_whose_it_was(
    world: World,
) -> None:
    """An annotation is no part of the id of a release, and stays on objects that nobody owns any more."""
    without = release(name="demo", digest=world.release.model_digest)
    assert without.id == world.release.id
    cluster: Any = Forgetful(world.live.port)
    step = PromoteRelease(without, ReadOnlyCluster(cluster), proved=without.id)
    assert [change.target for change in step.plan(step.observe(Past())).changes] == [str(world.record)]
    same = PromoteRelease(world.release, ReadOnlyCluster(cluster))
    assert same.plan(same.observe(Past())).converged


def test_a_key_that_is_missing_or_refused_is_stale_and_the_line_tells_it(world: World) -> None:
    for change, words in (
        ({"OSS_ACCESS_KEY_SECRET": ""}, "OSS_ACCESS_KEY_SECRET"),
        ({"OSS_ACCESS_KEY_SECRET": "x"}, ""),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wiring, "ENVIRONMENT", {**world.environment, **change})
            found = world.ask()
        assert found.state == STALE
        assert found.reason.startswith("upload-model: ")
        assert words in found.reason


def test_nothing_of_it_is_asked_for_by_a_write(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("check-release writes")

    for method in ("apply", "preview", "delete", "swap", "create"):
        monkeypatch.setattr(KubernetesCluster, method, refuse)
    assert converge(world.build("check-release"), RecordingReport(), SystemClock()).outputs.state == CURRENT
