"""A release from its volume to the traffic, its successors, and the ways back, on an embedded cluster over HTTP."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steps.errors import Blocked, DeadlineExceeded, TransientError
from steps.kinds import HASH_LABEL, POD, SERVICE, V1ALPHA1, Kind, Manifest, Ref
from steps.objects import record, services, volume
from steps.objects.pod_status import condition, is_ready
from steps.ports.kubernetes import Cluster
from steps.ports.oss import AccessKey
from steps.ports.sglang import ChatResponse, EngineError
from steps.release import Release
from steps.report.run_end import ReadWorkflow
from tests.support.live_cluster import KilledAfter, LiveCluster, live_cluster
from tests.support.samples import release
from tests.support.toy_cluster import ABSENT_IMAGE, CRASHING_IMAGE
from workflows.simulator.core.cluster.controllers.operator_style import V04, V06, V08, OperatorStyle
from workflows.simulator.core.cluster.resources import PERSISTENT_VOLUMES

OLD = release(digest="sha256:" + "2" * 64)
NEW = release(digest="sha256:" + "3" * 64)
BROKEN = release(f"serving.image={ABSENT_IMAGE}", digest=OLD.model_digest)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveCluster]:
    with live_cluster(tmp_path) as found:
        yield found


def pods(live: LiveCluster, role: str) -> dict[str, Manifest]:
    found = live.port.select(POD, "default", {"slipway/role": role})
    return {pod["metadata"]["name"]: pod for pod in found}


def uids(live: LiveCluster, role: str) -> dict[str, str]:
    return {name: pod["metadata"]["uid"] for name, pod in pods(live, role).items()}


def traffic_to(live: LiveCluster) -> str:
    return services.serving_release(live.port.get(services.traffic_service_ref(OLD.service)))


def recorded(live: LiveCluster) -> record.Record:
    return record.read(live.port.get(record.record_ref(OLD.service)))


@pytest.mark.parametrize("style", [V04, V06, V08], ids=["v0.4", "v0.6", "v0.8"])
def test_every_operator_brings_a_release_up_and_scales_it(tmp_path: Path, style: OperatorStyle) -> None:
    with live_cluster(tmp_path, style) as live:
        live.serve(OLD)
        scaled = release("serving.prefill.replicas=3", digest=OLD.model_digest)
        _, outcome = live.run(live.rollout(scaled))
        assert (outcome.outputs.group, outcome.outputs.ready_pods) == (OLD.group, 5)
        router = pods(live, "router")[f"{OLD.group}-router-0"]
        headless = {one["metadata"]["name"] for one in live.port.select(SERVICE, "default")}
        urls = [one for one in router["spec"]["containers"][0]["args"] if one.startswith("http://")]
        assert len(urls) == 4
        for url in urls:
            pod, _, service = url.removeprefix("http://").removesuffix(":8000").partition(".")
            assert pod in pods(live, "prefill") | pods(live, "decode")
            assert service in headless


def test_a_first_release_takes_the_traffic_and_is_recorded(live: LiveCluster) -> None:
    live.serve(OLD)
    assert traffic_to(live) == OLD.id
    found = recorded(live)
    assert found.current is not None
    assert (found.current.release, found.current.volume, found.previous) == (OLD.id, OLD.volume_name, None)
    assert found.promoted_at.startswith("20")
    assert live.embedded.service_address("default", "sglang-pd", 8000) is not None


def test_a_newer_release_replaces_an_older_one_and_keeps_its_volume(live: LiveCluster) -> None:
    live.serve(OLD)
    live.serve(NEW)
    live.settle(lambda: not live.port.select(POD, "default", {"slipway/release": OLD.id}))
    assert traffic_to(live) == NEW.id
    assert live.names("RoleBasedGroup") == [NEW.group]
    assert live.names("Service") == sorted([NEW.group, "sglang-pd"])
    assert live.names("PersistentVolume") == sorted([OLD.volume_name, NEW.volume_name])
    third = live.serve(release(digest="sha256:" + "4" * 64))
    live.settle(lambda: live.names("PersistentVolume") == sorted([NEW.volume_name, third.volume_name]))
    previous = recorded(live).previous
    assert previous is not None
    assert previous.release == NEW.id


def test_scaling_keeps_every_worker_and_replaces_the_router(live: LiveCluster) -> None:
    live.serve(OLD)
    workers, router = uids(live, "prefill") | uids(live, "decode"), uids(live, "router")
    report, _ = live.run(live.rollout(release("serving.prefill.replicas=3", digest=OLD.model_digest)))
    assert len(report.of("changed")) == 1
    assert "spec.roles[prefill].replicas: 2 -> 3" in report.of("changed")[0]
    assert (uids(live, "prefill") | uids(live, "decode")).items() >= workers.items()
    assert uids(live, "router") != router


def test_another_label_reaches_every_object_and_restarts_no_pod(live: LiveCluster) -> None:
    red, blue = (release(f"metadata.labels={{team: {team}}}", digest=OLD.model_digest) for team in ("red", "blue"))
    live.serve(red)
    roles = ("prefill", "decode", "router")
    before = [uids(live, role) for role in roles]
    live.serve(blue)
    live.settle(lambda: True)
    assert [uids(live, role) for role in roles] == before
    labels = {pod["metadata"]["labels"]["team"] for pod in pods(live, "prefill").values()}
    traffic = live.port.get(services.traffic_service_ref(OLD.service))
    assert traffic is not None
    assert (labels, traffic["metadata"]["labels"]["team"]) == ({"red"}, "blue")
    assert live.names("RoleBasedGroup") == [OLD.group]


def test_the_gate_does_not_open_for_the_pods_of_an_older_template(live: LiveCluster) -> None:
    """The operator calls the group Ready at its new generation while its only router is still the old one."""
    live.serve(OLD)
    before = {pod["metadata"]["labels"][HASH_LABEL] for pod in pods(live, "router").values()}
    live.run(live.rollout(release("serving.decode.replicas=2", digest=OLD.model_digest)))
    after = {pod["metadata"]["labels"][HASH_LABEL] for pod in pods(live, "router").values()}
    assert len(pods(live, "decode")) == 2
    assert before.isdisjoint(after)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        (0, "removed"),  # nothing was promoted, so the candidate goes
        (1, "kept"),  # the traffic is on the new release, which nobody recorded: the next run does
        (2, "removed"),  # recorded and serving, so the old release goes
        (3, "removed"),
    ],
)
def test_a_promotion_killed_anywhere_is_finished_by_the_next_run(live: LiveCluster, changes: int, verdict: str) -> None:
    live.serve(OLD)
    live.run(live.volume(NEW))
    live.run(live.rollout(NEW))
    honest, live.port = live.port, KilledAfter(live, changes)
    with pytest.raises(TransientError):
        live.run(live.promotion(NEW))
    live.port = honest
    # Whatever was done, the traffic goes to a release that exists, and the end of the run breaks nothing.
    assert traffic_to(live) in {group.removeprefix("qwen3-32b-") for group in live.names("RoleBasedGroup")}
    _, outcome = live.run(live.way_back("promote-release"))
    assert outcome.outputs.verdict == verdict
    live.run(live.rollout(NEW))
    live.run(live.promotion(NEW))
    current, previous = recorded(live).current, recorded(live).previous
    assert current is not None
    assert previous is not None
    assert (traffic_to(live), current.release, previous.release) == (NEW.id, NEW.id, OLD.id)
    assert live.names("RoleBasedGroup") == [NEW.group]


@pytest.mark.parametrize(("image", "words"), [(ABSENT_IMAGE, "cannot be pulled"), (CRASHING_IMAGE, "exit code 3")])
def test_pods_that_cannot_come_up_end_the_rollout_and_their_group_is_removed(
    live: LiveCluster, image: str, words: str
) -> None:
    live.serve(OLD)
    broken = release(f"serving.image={image}", digest=OLD.model_digest)
    with pytest.raises(Blocked, match=words):
        live.run(live.rollout(broken))
    assert len(live.names("RoleBasedGroup")) == 2
    _, outcome = live.run(live.way_back("roll-out-service"))
    assert outcome.outputs.verdict == "removed"
    assert live.names("RoleBasedGroup") == [OLD.group]
    assert live.names("Service") == sorted([OLD.group, "sglang-pd"])
    assert traffic_to(live) == OLD.id


def test_a_volume_that_cannot_be_mounted_says_why(live: LiveCluster) -> None:
    unstored = release("store.bucket=no-such-bucket")
    live.run(live.volume(OLD))
    for manifest in (volume.persistent_volume(unstored, "1Ti"), volume.claim(unstored, "1Ti")):
        live.port.apply(manifest)
    with pytest.raises(Blocked, match="the bucket or path does not exist"):
        live.run(live.rollout(unstored))


def unreadable() -> Manifest:
    raise TransientError("no answer from the API server")


WORKFLOWS: dict[str, ReadWorkflow] = {
    "garbled": lambda: {"metadata": {"name": "nightly-7"}, "status": {"nodes": [[]]}},
    "oversized": lambda: {"metadata": {"name": "nightly-7"}, "status": {"message": "{{=1+}}" * 2**20}},
    "unreadable": unreadable,
}


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_failed_first_release_leaves_no_gpu_behind_whatever_its_workflow_object_is(
    live: LiveCluster, workflow: str
) -> None:
    live.run(live.volume(BROKEN))
    with pytest.raises(Blocked):
        live.run(live.rollout(BROKEN))
    _, outcome = live.run(replace(live.way_back("roll-out-service"), workflow=WORKFLOWS[workflow]))
    assert outcome.outputs.verdict == "removed"
    assert live.names("RoleBasedGroup") == []
    assert live.names("PersistentVolumeClaim") == [BROKEN.volume_name]


def test_a_failed_recreate_is_put_back_and_serves(live: LiveCluster) -> None:
    live.serve(OLD)
    broken = release(f"serving.image={ABSENT_IMAGE}", "rollout.strategy=Recreate", digest=OLD.model_digest)
    with pytest.raises(Blocked):
        live.run(live.rollout(broken))
    assert live.names("RoleBasedGroup") == [broken.group]
    report, outcome = live.run(live.way_back("roll-out-service"))
    assert outcome.outputs.verdict == "rolled back"
    assert any("ready" in line for line in report.of("waiting"))
    assert live.names("RoleBasedGroup") == [OLD.group]
    assert live.embedded.service_address("default", "sglang-pd", 8000) is not None


class Witness:
    """The port, with somebody who looks before each write which pods of a release there are."""

    def __init__(self, port: Cluster, of: Release) -> None:
        self._port = port
        self._of = of
        self.beside: dict[str, list[str]] = {}  # names of its pods, by the object that is about to be written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def apply(self, wanted: Manifest) -> None:
        found = self._port.select(POD, "default", {"slipway/release": self._of.id})
        self.beside[str(Ref.of(wanted))] = [pod["metadata"]["name"] for pod in found]
        self._port.apply(wanted)


def test_recreate_never_runs_two_releases_at_once(live: LiveCluster) -> None:
    live.serve(OLD)
    new = live.store(release("rollout.strategy=Recreate", digest=NEW.model_digest))
    live.run(live.volume(new))
    live.port = witness = Witness(live.port, OLD)
    report, _ = live.run(live.rollout(new))
    assert report.of("changed")[0].startswith(f"delete RoleBasedGroup/default/{OLD.group}")
    assert witness.beside[f"RoleBasedGroup/default/{new.group}"] == []


def test_a_failed_scaling_is_taken_back(live: LiveCluster) -> None:
    live.serve(OLD)
    too_many = release("serving.prefill.replicas=13", "rollout.deadlineMinutes=1", digest=OLD.model_digest)

    def is_full() -> bool:
        unready = [pod for pod in pods(live, "prefill").values() if not is_ready(pod)]
        reasons = {condition(pod, "PodScheduled").get("reason") for pod in unready}
        return len(pods(live, "prefill")) == 13 and reasons == {"Unschedulable"}

    with pytest.raises(DeadlineExceeded, match="Unschedulable"):
        live.run(live.rollout(too_many), once=is_full)
    _, outcome = live.run(live.way_back("roll-out-service"))
    assert outcome.outputs.verdict == "rolled back"
    assert len(pods(live, "prefill")) == 2


def test_a_failure_before_the_rollout_leaves_even_drift_alone(live: LiveCluster) -> None:
    live.serve(OLD)
    live.patch(services.traffic_service_ref(OLD.service), {"metadata": {"labels": {"hand-made": "yes"}}})
    before = live.objects()
    _, outcome = live.run(live.way_back("download-model"))
    assert outcome.outputs.verdict == "kept"
    assert live.objects() == before


def lead_astray(live: LiveCluster) -> None:
    """The traffic goes to a release that is gone, and so is the group of the recorded one."""
    live.serve(OLD)
    live.patch(services.traffic_service_ref(OLD.service), {"spec": {"selector": {"slipway/release": NEW.id}}})
    group = Ref(Kind(V1ALPHA1, "RoleBasedGroup"), OLD.group, "default")
    found = live.port.get(group)
    assert found is not None
    live.port.delete(group, found["metadata"]["uid"])
    live.settle(lambda: not live.port.select(POD, "default", {"slipway/release": OLD.id}))


class Ready:
    """The port, with somebody who counts before each write the pods that are ready."""

    def __init__(self, port: Cluster) -> None:
        self._port = port
        self.ready: list[tuple[str, int]] = []  # by the kind that is written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def apply(self, wanted: Manifest) -> None:
        found = self._port.select(POD, "default", {"slipway/release": OLD.id})
        self.ready.append((wanted["kind"], sum(is_ready(pod) for pod in found)))
        self._port.apply(wanted)


def test_traffic_comes_back_to_a_release_that_serves_and_has_answered(live: LiveCluster) -> None:
    lead_astray(live)
    live.port = witness = Ready(live.port)
    _, outcome = live.run(live.way_back("promote-release"))
    assert outcome.outputs.verdict == "rolled back"
    assert traffic_to(live) == OLD.id
    assert live.engine.asked == [OLD.group]
    assert witness.ready == [("RoleBasedGroup", 0), ("Service", 4)]  # all of them, when the traffic moved


GARBAGE = ChatResponse("qwen3-32b", "\ufffd" * 9, "", "stop", 4, 3)


@pytest.mark.parametrize("reply", [EngineError(500, "out of memory"), GARBAGE], ids=["500", "garbage"])
def test_traffic_stays_if_the_recorded_release_gives_no_good_answer(live: LiveCluster, reply: Any) -> None:
    lead_astray(live)
    live.engine.reply = reply
    with pytest.raises(Blocked, match=r"release is ready, and .* gave no good answer: .* stays where it is"):
        live.run(live.way_back("promote-release"))
    assert traffic_to(live) == NEW.id
    assert live.names("RoleBasedGroup") == [OLD.group]


def test_traffic_stays_if_the_recorded_release_does_not_come_up(live: LiveCluster) -> None:
    lead_astray(live)
    live.freeze()
    with pytest.raises(DeadlineExceeded, match="prefill 0/2 ready"):
        live.run(live.way_back("promote-release", of=release("rollout.deadlineMinutes=1").service))
    assert traffic_to(live) == NEW.id
    assert live.engine.asked == []


def test_a_released_volume_is_made_anew_and_binds(live: LiveCluster) -> None:
    live.run(live.volume(OLD))
    claim = live.port.get(volume.claim_ref(OLD))
    assert claim is not None
    live.port.delete(volume.claim_ref(OLD), claim["metadata"]["uid"])

    def released() -> bool:
        found = live.port.get(volume.volume_ref(OLD)) or {}
        return bool((found.get("status") or {}).get("phase") == "Released")

    live.settle(released)
    report, _ = live.run(live.volume(OLD))
    assert [line.partition(" (")[0] for line in report.of("changed")] == [
        f"delete PersistentVolume/{OLD.volume_name}",
        f"create PersistentVolume/{OLD.volume_name}",
        f"create PersistentVolumeClaim/default/{OLD.volume_name}",
    ]
    assert live.run(live.volume(OLD))[1].changes == ()


def test_a_lost_claim_is_a_fault_with_its_command(live: LiveCluster) -> None:
    live.run(live.volume(OLD))
    with live.embedded.store.exclusive():  # or the binder would protect the volume again
        found = live.embedded.store.get(PERSISTENT_VOLUMES, OLD.volume_name)
        assert found is not None
        live.embedded.store.replace(PERSISTENT_VOLUMES, {**found, "metadata": {**found["metadata"], "finalizers": []}})
        live.embedded.store.delete(PERSISTENT_VOLUMES, OLD.volume_name)
    live.settle(lambda: (live.port.get(volume.claim_ref(OLD)) or {})["status"]["phase"] == "Lost")
    with pytest.raises(Blocked, match=f"kubectl delete pvc {OLD.volume_name} -n default"):
        live.run(live.volume(OLD))


def test_a_rotated_key_is_written_without_a_new_volume(live: LiveCluster) -> None:
    live.run(live.volume(OLD))
    rotated = replace(live.volume(OLD), access_key=AccessKey("dummy-id", "rotated-dummy"))
    report, _ = live.run(rotated)
    assert report.of("changed") == ["update Secret/default/qwen3-32b-oss (data.akSecret: (hidden) -> another value)"]


def test_an_account_that_may_not_read_events_still_learns_from_the_pods(tmp_path: Path) -> None:
    def denied(_verb: str, resource: str, _namespace: str, _name: str) -> bool:
        return resource in ("events", "pods/log")

    with live_cluster(tmp_path, denied=denied) as live:
        live.run(live.volume(BROKEN))
        with pytest.raises(Blocked, match="cannot be pulled"):
            live.run(live.rollout(BROKEN))
