"""A step that needs what an earlier task leaves looks for it first: without it, it ends with 11 and writes nothing.

Each row is the command of a task over the real adapters, beside a release that serves; hub, bucket and cluster are
embedded. Every object of the cluster, the bucket and the scratch folder is compared before and after.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from steps import wiring
from steps.adapters.kubernetes.cluster import connect
from steps.catalogue import CATALOGUE
from steps.document.schema import load
from steps.errors import Blocked, Exit
from steps.kinds import Manifest, Ref
from steps.model import ModelDigest
from steps.objects import services, volume
from steps.release import Release
from tests.support.commands import STATIC, Ended, call
from tests.support.live_cluster import LiveCluster, live_cluster
from tests.support.samples import SERVICES, release
from tests.support.toy_cluster import ToyRuntime
from tests.transfer.test_end_to_end import OVERRIDES, Services
from tests.transfer.test_end_to_end import services as started
from workflows.pipeline import tasks
from workflows.simulator.core.cluster.controllers.operator_style import V06
from workflows.simulator.core.cluster.controllers.timing import FAST
from workflows.simulator.core.cluster.seed import Seed
from workflows.simulator.http.cluster import EmbeddedCluster

SMALL = ("serving.prefill.replicas=1", *OVERRIDES)
ABSENT = ModelDigest("sha256:" + "0" * 64)  # nothing was ever stored under it
OLD = ModelDigest("sha256:" + "2" * 64)
DERIVED = ("events", "endpoints", "endpointslices")  # what controllers make of the rest, in their own time
HOLD = "test/hold"  # a finalizer that nobody takes away

NEEDS_NOTHING = {
    "resolve-model": "it is the first",
    "check-release": "it changes nothing, and what is missing is a reason to walk the line",
    "check-platform": "it changes nothing, and looks at what no task makes",
    "create-scratch": "it makes an empty volume for its own run",
    "roll-back": "it goes by what the run left behind",
    "report-run": "it changes nothing of the service",
}


@dataclass
class World:
    found: Services
    live: LiveCluster

    def release(self, digest: ModelDigest, *overrides: str) -> Release:
        return Release(load(SERVICES / "demo.yaml", ("transfer.mode=streamed", *SMALL, *overrides)), digest)

    def call(self, step: str, digest: str, *more: str) -> Ended:
        environment = {**STATIC, "KUBECONFIG": str(self.live.embedded.kubeconfig)}
        sets = [f"--set={override}" for override in SMALL]
        return call(self.found, step, digest, *sets, *more, environment=environment)

    def everything(self) -> tuple[Any, ...]:
        """What we wrote, that nothing came or went, every byte in the bucket, every upload, and the scratch folder."""
        store = self.live.embedded.store
        names = {
            (resource.plural, one["metadata"].get("namespace", ""), one["metadata"]["name"], one["metadata"]["uid"])
            for resource in store.registry.all()
            if resource.plural not in DERIVED
            for one in store.select(resource)
        }
        files = {
            path: path.read_bytes()
            for folder in (self.found.folder / "bucket" / "objects", self.found.folder / "scratch")
            for path in folder.rglob("*")
            if path.is_file()
        }
        return self.live.objects(), names, files, self.found.store().uploads("")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A release that serves, and a hub with a model that nobody has fetched."""
    folder = tmp_path_factory.mktemp("served")
    found = started(folder)
    seed = Seed(V06, 8, ("slipway",))  # with GPUs for the groups that rows start
    cluster = EmbeddedCluster(folder / "cluster", ToyRuntime(), folder / "bucket", timing=FAST, seed=seed)
    cluster.start()
    live = LiveCluster(cluster, connect(cluster.kubeconfig), folder / "bucket" / "objects")
    try:
        made = World(found, live)
        live.serve(made.release(OLD))
        yield made
    finally:
        cluster.stop()
        found.hub.stop()
        found.bucket.stop()


@dataclass(frozen=True)
class Row:
    """One task without one thing that it needs."""

    task: str
    missing: str
    words: tuple[str, ...]  # that say what is missing, and which task makes it
    more: tuple[str, ...] = ()
    stored: bool = False  # of the model at the hub; else of a digest that nothing was stored under
    arrange: Callable[[World, Release], object] = lambda world, made: None

    @property
    def step(self) -> str:
        return "mirror-model" if self.task == "publish-model" else self.task

    def __str__(self) -> str:
        return f"{self.task} without {self.missing}"

    def own(self) -> str:
        """An override that gives the row a claim and a group of its own."""
        return f"volume.options=-o row={ROWS.index(self)}"


def lose_a_staged_file(world: World, made: Release) -> None:
    assert world.call("download-model", made.model_digest, "--set=transfer.mode=staged").code == Exit.DONE
    (world.found.folder / "scratch" / made.model_digest.short / "config.json").unlink()


def files_without_manifest(world: World, made: Release) -> None:
    world.found.store().put(f"{made.prefix}/config.json", b"{}")


def claim(**changes: dict[str, Any]) -> Callable[[World, Release], None]:
    def arrange(world: World, made: Release) -> None:
        wanted = volume.claim(made, "1Ti")
        world.live.port.apply({**wanted, **{part: {**wanted[part], **change} for part, change in changes.items()}})

    return arrange


def claim_of_another_volume(world: World, made: Release) -> None:
    other = f"{made.volume_name}-other"
    held: Manifest = volume.persistent_volume(made, "1Ti")
    held = {**held, "metadata": {**held["metadata"], "name": other}}
    world.live.port.apply(held)
    claim(spec={"volumeName": other})(world, made)
    world.live.settle(lambda: _phase(world, volume.claim_ref(made)) == "Bound")


def claim_on_its_way_out(world: World, made: Release) -> None:
    bound(world, made)
    world.live.patch(volume.claim_ref(made), {"metadata": {"finalizers": [HOLD]}})
    _delete(world, volume.claim_ref(made))


def bound(world: World, made: Release) -> None:
    world.live.run(world.live.volume(made))


def started_group(world: World, made: Release) -> None:
    bound(world, made)
    world.live.run(world.live.rollout(made))


def group_without_service(world: World, made: Release) -> None:
    started_group(world, made)
    _delete(world, services.release_service_ref(made))


def _phase(world: World, ref: Ref) -> str:
    return str(((world.live.port.get(ref) or {}).get("status") or {}).get("phase", ""))


def _delete(world: World, ref: Ref) -> None:
    found = world.live.port.get(ref)
    assert found is not None
    world.live.port.delete(ref, found["metadata"]["uid"])


STAGED = ("--set=transfer.mode=staged",)
SHARDS = ("--set=transfer.shards=2",)
PINNED = ("now lists sha256:", "this run is pinned to sha256:", "submit a new run")
NO_CLAIM = "create-volume makes it. Next: "
NO_MANIFEST = ("has no manifest of sha256:", "writes it last. Next: submit a new run")
CLAIMS: tuple[tuple[str, str, Callable[[World, Release], object]], ...] = (
    ("its claim", "does not exist", lambda world, made: None),
    ("a claim that is Bound", "is Pending", claim()),
    ("a claim of its own", "has no label slipway/service=demo", claim(metadata={"labels": {}})),
    ("a claim over its own volume", "is bound to the volume llm-model-", claim_of_another_volume),
    ("a claim that stays", "is being deleted", claim_on_its_way_out),
)
ROWS = (
    Row("download-model", "the pinned files at the hub", PINNED, STAGED),
    Row("upload-model", "staged files", ("holds no listing", "download-model"), STAGED),
    Row(
        "upload-model",
        "one staged file",
        ("does not hold config.json", "download-model"),
        STAGED,
        True,
        lose_a_staged_file,
    ),
    Row("mirror-model", "the pinned files at the hub", PINNED),
    Row("mirror-model", "the pinned files at the hub, as one shard", PINNED, (*SHARDS, "--shard=1")),
    # Beside the pin it needs nothing: it looks for the files of every shard, and moves those that one has left.
    Row("publish-model", "the pinned files at the hub", PINNED, (*SHARDS, "--shard=all")),
    Row("verify-model", "a manifest", NO_MANIFEST),
    Row("create-volume", "files", (*NO_MANIFEST, "mirror-model writes")),
    Row("create-volume", "staged files in the bucket", (*NO_MANIFEST, "upload-model writes"), STAGED),
    Row("create-volume", "what the shards bring", (*NO_MANIFEST, "publish-model writes"), SHARDS),
    Row("create-volume", "a manifest", NO_MANIFEST, (), True, files_without_manifest),
    *(
        Row(
            "roll-out-service",
            f"{missing}, {strategy}",
            (words, NO_CLAIM),
            (f"--set=rollout.strategy={strategy}",),
            True,
            arrange,
        )
        for strategy in ("BlueGreen", "Recreate")
        for missing, words, arrange in CLAIMS
    ),
    Row("smoke-test", "pods", ("there is no pod", "roll-out-service makes it")),
    Row(
        "smoke-test",
        "its Service",
        ("there is no Service/", "roll-out-service makes it"),
        (),
        True,
        group_without_service,
    ),
    Row(
        "promote-release",
        "its group",
        ("RoleBasedGroup", "does not exist", "roll-out-service makes it"),
        ("--proved-release={id}",),
    ),
    Row("promote-release", "a proof", ("was not proved in this run", "run smoke-test"), (), True, started_group),
    Row(
        "promote-release",
        "a proof of its own",
        ("was not proved in this run", "run smoke-test"),
        ("--proved-release=0ld00000",),
        True,
        started_group,
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_without_what_an_earlier_task_leaves_a_step_is_blocked_and_nothing_is_written_or_deleted(
    world: World, row: Row
) -> None:
    digest = world.found.release().model_digest if row.stored else ABSENT
    sets = tuple(word.removeprefix("--set=") for word in row.more if word.startswith("--set="))
    made = world.release(digest, *sets, row.own())
    row.arrange(world, made)
    before = world.everything()
    more = [word.format(id=made.id) for word in row.more]
    ended = world.call(row.step, digest, *more, f"--set={row.own()}")
    assert ended.code == Exit.BLOCKED, ended.said
    (sentence,) = (line for line in ended.said.splitlines() if line.startswith("failed"))
    for words in row.words:
        assert words in sentence
    assert "Next: " in sentence
    assert world.everything() == before


def test_every_step_has_a_row_or_a_reason_to_need_none() -> None:
    assert {row.step for row in ROWS}.isdisjoint(NEEDS_NOTHING)
    assert {row.step for row in ROWS} | set(NEEDS_NOTHING) == set(wiring.STEPS)
    lines = [("staged", 1), ("streamed", 1), ("streamed", 2)]
    documents = [
        load(SERVICES / "demo.yaml", (f"transfer.mode={mode}", f"transfer.shards={shards}")) for mode, shards in lines
    ]
    named = {task.name for document in documents for task in tasks(document) if task.step not in NEEDS_NOTHING}
    assert named <= {row.task for row in ROWS}


@pytest.mark.parametrize("step", [spec.name for spec in CATALOGUE.values() if "model-digest" in spec.options])
def test_a_digest_of_the_run_that_is_not_that_of_the_document_ends_every_step_before_it_looks(
    world: World, step: str
) -> None:
    before = world.everything()
    asked = len(world.found.bucket.requests), len(world.found.hub.requests)
    ended = world.call(step, ABSENT, f"--set=model.digest={OLD}")
    assert ended.code == Exit.BLOCKED, ended.said
    assert f"--model-digest is {ABSENT}, but model.digest of the document is {OLD}. Next: " in ended.said
    assert (len(world.found.bucket.requests), len(world.found.hub.requests)) == asked
    assert world.everything() == before


def test_recreate_removes_nothing_for_a_group_that_the_server_refuses(tmp_path: Path) -> None:
    refused: list[tuple[str, str]] = []

    def denied(verb: str, resource: str, _namespace: str, _name: str) -> bool:
        return (verb, resource) in refused

    with live_cluster(tmp_path, denied=denied) as live:
        old = live.serve(release(digest=OLD))
        new = release("rollout.strategy=Recreate", digest="sha256:" + "3" * 64)
        live.run(live.volume(new))
        before = live.objects()
        refused.append(("patch", "rolebasedgroups"))
        with pytest.raises(Blocked, match="not allowed to patch"):
            live.run(live.rollout(new))
        assert live.objects() == before
        assert live.names("RoleBasedGroup") == [old.group]
