"""The platform check names everything that would fail later, with what was found, what is needed and what to do."""

import dataclasses
from typing import Any

import pytest

from steps.catalogue import permissions_of_accounts, permissions_of_one_account
from steps.check_platform import plan
from steps.checks.facts import PlatformFacts
from steps.checks.findings import Refusal
from steps.checks.image import version_of
from steps.checks.table import CHECKS
from steps.document.quantities import quantity
from steps.kinds import Manifest
from steps.reconcile.plan import Plan
from steps.release import Release
from tests.support.samples import ROOT, release

GIB_MIB = 1024
IMAGE = release().service.serving.image
QWEN3_32B_WEIGHTS = 65_524_248_576  # bytes of its 17 safetensors files


def node(name: str, *, gpus: int = 8, erdma: int = 200, card_mib: int | None = 97_871, **spec: Any) -> Manifest:
    labels = {"kubernetes.io/hostname": name}
    if card_mib:
        labels["aliyun.accelerator/nvidia_mem"] = f"{card_mib}MiB"
    allocatable = {"cpu": "128", "memory": "1000Gi", "nvidia.com/gpu": str(gpus), "aliyun/erdma": str(erdma)}
    ready = {"type": "Ready", "status": "True"}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": allocatable, "conditions": [ready]},
    }


def erdma_device(name: str, *states: str, wanted: int | None = None) -> Manifest:
    devices = [{"id": f"eni-{number}"} for number in range(len(states) if wanted is None else wanted)]
    status = [{"id": f"eni-{number}", "status": state} for number, state in enumerate(states)]
    return {"metadata": {"name": name}, "spec": {"devices": devices}, "status": {"devices": status}}


def deployment(name: str, available: int = 2, replicas: int = 2) -> Manifest:
    return {
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"replicas": replicas},
        "status": {"availableReplicas": available},
    }


def pod(on: str, gpus: int, phase: str = "Running", **labels: str) -> Manifest:
    resources = {"limits": {"nvidia.com/gpu": str(gpus), "aliyun/erdma": "1"}}
    return {
        "metadata": {"name": f"pod-{on}-{gpus}", "namespace": "default", "labels": labels},
        "spec": {"nodeName": on, "containers": [{"resources": resources}]},
        "status": {"phase": phase},
    }


def healthy(**changes: Any) -> PlatformFacts:
    facts = PlatformFacts(
        namespace={"metadata": {"name": "default"}},
        rbg_versions=("v1alpha1", "v1alpha2"),
        deployments=(deployment("rbgs-controller-manager"), deployment("alibabacloud-erdma-controller")),
        daemon_sets=(
            {
                "metadata": {"name": "csi-plugin", "namespace": "kube-system"},
                "status": {"numberReady": 2, "desiredNumberScheduled": 2},
            },
        ),
        nodes=(node("gpu-a"), node("gpu-b")),
        pods=(),
        erdma_devices=(erdma_device("gpu-a", "Ready"), erdma_device("gpu-b", "Ready")),
        csi_driver={"metadata": {"name": "ossplugin.csi.alibabacloud.com"}},
        secret={"data": {"akId": "aWQ=", "akSecret": "c2VjcmV0"}},
        services=(),
        weight_bytes=QWEN3_32B_WEIGHTS,
        bucket="oss://llm-models/models can be written",
        rights=dict.fromkeys(permissions_of_one_account(release().service), True),
    )
    return dataclasses.replace(facts, **changes)


def labels_of(wanted: Release, role: str) -> dict[str, str]:
    return {**wanted.labels, "slipway/role": role}


def test_a_healthy_platform_has_nothing_to_wait_for_and_every_check_says_what_it_saw() -> None:
    found = plan(release(), healthy())
    assert found.converged
    assert {line.split()[0] for line in found.ok} == {check.code for check in CHECKS}


def quota(namespace: str, used: dict[str, str], **hard: str) -> Manifest:
    return {"metadata": {"name": "team", "namespace": namespace}, "status": {"hard": hard, "used": used}}


HELD = {"mutex": {"holding": [{"mutex": "slipway/Mutex/slipway-default-qwen3-32b", "holder": "slipway/demo-1"}]}}
ARGO = {**deployment("workflow-controller"), "images": ["quay.io/argoproj/workflow-controller:v4.1.2"]}
STORAGE = "requests.storage"
GPUS = "requests.nvidia.com/gpu"
BROKEN = [
    (
        "QUO01",
        {"quotas_of_runs": (quota("slipway", {STORAGE: "350Gi"}, **{STORAGE: "500Gi"}),)},
        "slipway/team with requests.storage 350Gi of 500Gi used; needed room for the scratch volume, 200Gi",
    ),
    ("QUO01", {"quotas_of_runs": (quota("slipway", {}, persistentvolumeclaims="0"),)}, "persistentvolumeclaims 0 of 0"),
    # What Argo 4.1.2 left of a run under the manifests of 3.5: it does not know `mutex`.
    ("ARG01", {"run": {"status": {"phase": "Running"}}}, "a run without a lock, under a controller that is not to be"),
    (
        "ARG01",
        {"run": {"status": {}}, "deployments": (*healthy().deployments, ARGO)},  # type: ignore[misc]
        "under quay.io/argoproj/workflow-controller:v4.1.2; needed the mutex of its template",
    ),
    ("ARG01", {"run": Refusal("not allowed to get workflows")}, "permission to get the Workflow of this run"),
    ("QUO01", {"quotas_of_runs": Refusal("not allowed to list resourcequotas")}, "permission to list ResourceQuotas"),
    ("QUO02", {"quotas": (quota("default", {GPUS: "4"}, **{GPUS: "8"}),)}, "needed room for 3 workers, 6"),
    ("QUO02", {"quotas": (quota("default", {}, cpu="35"),)}, "with cpu 0 of 35 used; needed room for 3 workers, 36"),
    ("QUO02", {"quotas": (quota("default", {"pods": "8"}, pods="10"),)}, "with pods 8 of 10 used"),
    ("API02", {"namespace": None}, "no namespace default"),
    ("API02", {"namespace": {"status": {"phase": "Terminating"}}}, "is being deleted"),
    ("API03", {"services": ({"metadata": {"name": "sglang-pd"}},)}, "a Service sglang-pd of another owner"),
    (
        "API03",
        {"services": ({"metadata": {"name": f"{release().group}-prefill"}},)},
        "the RBG operator would adopt it",
    ),
    ("RBG01", {"rbg_versions": ()}, "no RoleBasedGroup API"),
    ("RBG02", {"deployments": (deployment("alibabacloud-erdma-controller"),)}, "no Deployment rbgs-controller-manager"),
    (
        "RBG02",
        {"deployments": (deployment("alibabacloud-erdma-controller"), deployment("rbgs-controller-manager", 0, 0))},
        "scaled to 0",
    ),
    ("FAB01", {"deployments": (deployment("rbgs-controller-manager"),)}, "no Deployment alibabacloud-erdma-controller"),
    ("FAB02", {"erdma_devices": None}, "no ERdmaDevice API"),
    ("FAB02", {"erdma_devices": ()}, "gpu-a: no ERdmaDevice, so no RDMA interface"),
    (
        "FAB02",
        {"erdma_devices": (erdma_device("gpu-a", "Failed"), erdma_device("gpu-b", "Ready", wanted=2))},
        "gpu-b: 1 of 2 devices report a status",
    ),
    ("FAB02", {"nodes": (node("gpu-a", erdma=0), node("gpu-b", erdma=0))}, "no allocatable aliyun/erdma"),
    ("CSI01", {"csi_driver": None}, "no CSIDriver ossplugin.csi.alibabacloud.com"),
    ("CSI02", {"daemon_sets": ()}, "no DaemonSet csi-plugin"),
    ("KEY01", {"secret": None}, "no Secret slipway/oss-credentials"),
    ("KEY01", {"secret": {"data": {"akId": "aWQ=", "AKSECRET": "eA=="}}}, "the keys akSecret, not empty"),
    ("OSS01", {"bucket": Refusal("cannot write: AccessDenied")}, "AccessDenied"),
    ("GPU01", {"nodes": (node("gpu-a", gpus=4),)}, "2 free slots of 2 GPUs (gpu-a 2)"),
    ("GPU01", {"pods": (pod("gpu-a", 7), pod("gpu-b", 5))}, "1 free slots of 2 GPUs (gpu-b 1)"),
    ("GPU01", {"nodes": Refusal("cannot list nodes: forbidden")}, "cannot list nodes: forbidden"),
    ("GPU02", {"nodes": (node("gpu-a", card_mib=32 * GIB_MIB),)}, "GPUs of at most 34.4 GB"),
    ("GPU02", {"weight_bytes": Refusal("the hub refused")}, "the hub refused"),
]


@pytest.mark.parametrize(("code", "broken", "says"), BROKEN, ids=[f"{row[0]}-{row[2][:30]}" for row in BROKEN])
def test_what_is_missing_is_named_with_code_finding_need_and_remedy(
    code: str, broken: dict[str, Any], says: str
) -> None:
    found = plan(release(), healthy(**broken))
    fault = next(fault for fault in found.failed if fault.startswith(code))
    assert says in fault
    assert "; needed " in fault
    assert ". Next: " in fault


def test_an_image_of_another_engine_is_refused_and_one_that_does_not_say_is_not_checked() -> None:
    (fault,) = plan(release(), healthy(engines={IMAGE: "0.5.22"})).failed
    assert fault.startswith("ENG01 Version of the engine: found SGLang 0.5.22 in registry.example.com/llm/sglang-erdma")
    assert "needed SGLang 0.5.23" in fault
    for silent, says in (("", "the image names none"), (Refusal("no answer"), "no answer")):
        found = plan(release(), healthy(engines={IMAGE: silent}))
        assert found.converged
        assert any(line.startswith("ENG01") and line.endswith(f"is not checked: {says}") for line in found.ok)
    assert any("holds SGLang 0.5.23" in line for line in plan(release(), healthy(engines={IMAGE: "0.5.23"})).ok)


@pytest.mark.parametrize(
    ("config", "version"),
    [
        ({"config": {"Env": ["PATH=/bin", "SGLANG_VERSION=v0.5.24"]}}, "0.5.24"),
        (
            {"config": {}, "history": [{"created_by": "ARG SGL_VERSION=0.5.24.post1"}, {"created_by": "RUN pip"}]},
            "0.5.24.post1",
        ),
        (
            {"config": {"Env": ["SGLANG_VERSION=0.5.24"]}, "history": [{"created_by": "ARG SGL_VERSION=0.5.5"}]},
            "0.5.24",
        ),
        ({"config": {"Labels": {"org.opencontainers.image.version": "22.04"}, "Env": None}, "history": None}, ""),
        ({"history": [{"created_by": "ARG SGL_VERSION=latest"}, {"empty_layer": True}]}, ""),
        ({"config": [], "history": "x"}, ""),
        ({}, ""),
    ],
)
def test_the_version_that_an_image_says_is_not_that_of_its_base(config: dict[str, Any], version: str) -> None:
    assert version_of(config) == version


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = plan(release(), healthy(rbg_versions=(), csi_driver=None, nodes=()))
    assert {fault.split()[0] for fault in found.failed} >= {"RBG01", "CSI01", "GPU01", "FAB02"}


def test_the_memory_fault_says_how_much_the_weights_of_the_reference_model_need() -> None:
    fault = next(
        f for f in plan(release(), healthy(nodes=(node("gpu-a", card_mib=32 * GIB_MIB),))).failed if "GPU02" in f
    )
    assert "32.8 GB of weights on each of 2 GPUs" in fault
    assert "needed 37.2 GB" in fault


@pytest.mark.parametrize("card_mib", [48 * GIB_MIB, 80 * GIB_MIB, None])
def test_a_card_of_48_gib_is_enough_and_an_unlabelled_one_gets_the_benefit_of_the_doubt(card_mib: int | None) -> None:
    assert plan(release(), healthy(nodes=(node("gpu-a", card_mib=card_mib), node("gpu-b")))).converged


def test_a_component_that_is_still_starting_is_waited_for() -> None:
    starting = (deployment("rbgs-controller-manager", 0), deployment("alibabacloud-erdma-controller"))
    found = plan(release(), healthy(deployments=starting))
    assert found.waiting == (
        "RBG02 RoleBasedGroup operator: Deployment kube-system/rbgs-controller-manager has 0 of 2 replicas available",
    )
    assert not found.failed


def test_tcp_needs_no_erdma() -> None:
    found = plan(
        release("serving.fabric=tcp"), healthy(erdma_devices=None, deployments=(deployment("rbgs-controller-manager"),))
    )
    assert found.converged


def test_gpus_are_packed_node_by_node() -> None:
    """Six free GPUs, but only one pair of them on one node."""
    nodes = (*tuple(node(f"gpu-{number}", gpus=1) for number in range(4)), node("gpu-4", gpus=2))
    devices = tuple(erdma_device(item["metadata"]["name"], "Ready") for item in nodes)
    assert _faults(healthy(nodes=nodes, erdma_devices=devices)) == ["GPU01"]


def test_gpus_of_a_node_with_a_broken_fabric_do_not_count() -> None:
    devices = (erdma_device("gpu-a", "Ready"), erdma_device("gpu-b", "Failed"))
    assert _faults(healthy(erdma_devices=devices, pods=(pod("gpu-a", 4),))) == ["GPU01"]


def test_a_node_that_takes_no_pods_or_is_not_selected_does_not_count() -> None:
    assert _faults(healthy(nodes=(node("gpu-a", gpus=2), node("gpu-b", unschedulable=True)))) == ["GPU01"]
    chosen = release("serving.pod.nodeSelector={kubernetes.io/hostname: gpu-a}")
    assert plan(chosen, healthy(pods=(pod("gpu-a", 8),))).failed


def test_pods_that_ended_hold_no_gpus() -> None:
    ended = (pod("gpu-a", 8, phase="Succeeded"), pod("gpu-b", 8, phase="Failed"))
    assert plan(release(), healthy(pods=ended)).converged


def test_a_release_that_already_runs_needs_no_more_gpus() -> None:
    wanted = release()
    own = tuple(pod("gpu-a", 2, **labels_of(wanted, role)) for role in ("prefill", "prefill", "decode"))
    others = (pod("gpu-a", 2), pod("gpu-b", 8))
    assert plan(wanted, healthy(pods=own + others)).converged


@pytest.mark.parametrize(("strategy", "fits"), [("Recreate", True), ("BlueGreen", False)])
def test_only_recreate_counts_the_gpus_of_the_release_that_it_replaces(strategy: str, fits: bool) -> None:
    wanted = release(f"rollout.strategy={strategy}")
    old = release("serving.image=sglang:0.5.22")
    pods = tuple(pod(on, 6, **labels_of(old, "prefill")) for on in ("gpu-a", "gpu-b"))
    assert plan(wanted, healthy(pods=pods)).converged is fits


@pytest.mark.parametrize(("staying", "fits"), [({"ab12cd34", ""}, True), ({"left"}, False), (None, False)])
def test_the_gpus_of_a_release_that_blue_green_removes_are_counted_as_free(
    staying: set[str] | None, fits: bool
) -> None:
    """A run that was terminated left its candidate behind: the next one must come as far as to remove it."""
    old = release("serving.image=sglang:0.5.22")
    known = None if staying is None else frozenset({old.id if one == "left" else one for one in staying})
    pods = tuple(pod(on, 6, **labels_of(old, "prefill")) for on in ("gpu-a", "gpu-b"))
    assert plan(release(), healthy(pods=pods, staying=known)).converged is fits


def test_a_service_of_that_name_in_another_namespace_gives_no_gpus() -> None:
    old = release("serving.image=sglang:0.5.22")
    pods = [pod(on, 6, **labels_of(old, "prefill")) for on in ("gpu-a", "gpu-b")]
    for found in pods:
        found["metadata"]["namespace"] = "elsewhere"
    assert plan(release("rollout.strategy=Recreate"), healthy(pods=tuple(pods))).failed


def test_every_denied_permission_is_named() -> None:
    rights = {right: right.resource != "rolebasedgroups" for right in permissions_of_one_account(release().service)}
    faults = plan(release(), healthy(rights=rights)).failed
    assert len(faults) == 5
    assert "permission to patch rolebasedgroups.workloads.x-k8s.io in namespace default" in "".join(faults)


def test_a_permission_that_the_account_of_another_step_lacks_is_named_before_any_byte_moves() -> None:
    rights = {right: right.resource != "persistentvolumes" for right in permissions_of_accounts(release().service)}
    faults = plan(release(), healthy(rights=rights)).failed
    assert (
        "permission to delete persistentvolumes for system:serviceaccount:slipway:slipway-create-volume. Next: "
        in faults[5]
    )
    assert "persistentvolumes for system:serviceaccount:slipway:slipway-check-release. Next: " in faults[0]


def test_a_secret_that_this_account_may_not_read_is_not_taken_for_absent() -> None:
    found = plan(release(), healthy(secret=Refusal("may not get secrets")))
    assert found.converged
    assert any("is not checked: may not get secrets" in line for line in found.ok)


@pytest.mark.parametrize(
    ("text", "number"),
    [("8", 8), ("200m", 0.2), ("48Gi", 48 * 2**30), ("1k", 1000), ("1.5G", 1.5e9), (4, 4), ("nonsense", 0)],
)
def test_quantities_are_read_as_kubernetes_writes_them(text: object, number: float) -> None:
    assert quantity(text) == pytest.approx(number)


def test_a_run_that_holds_its_mutex_was_understood_by_argo() -> None:
    assert _faults(healthy(run={"status": {"synchronization": HELD}})) == []
    assert "ARG01" in _faults(healthy(run={"status": {"synchronization": {"mutex": {"waiting": []}}}}))


def test_a_quota_is_no_obstacle_with_room_for_what_is_still_to_come() -> None:
    full = (quota("slipway", {STORAGE: "200Gi"}, **{STORAGE: "200Gi"}),)
    assert _faults(healthy(quotas_of_runs=full, stored=True)) == []  # right before GPUs are taken, the claim is there
    assert _faults(healthy(quotas_of_runs=(quota("slipway", {STORAGE: "0"}, **{STORAGE: "200Gi"}),))) == []
    scoped = {**quota("default", {}, pods="0"), "spec": {"scopes": ["BestEffort"]}}
    assert _faults(healthy(quotas=(scoped,))) == []
    assert _faults(healthy(quotas=(quota("default", {GPUS: "2"}, **{GPUS: "8"}),))) == []


def test_recreate_gives_back_what_the_other_release_holds_under_a_quota() -> None:
    other = {**labels_of(release(), "prefill"), "slipway/release": "another0"}
    pods = tuple(pod("gpu-a", 2, **other) for _ in range(3))
    facts = healthy(pods=pods, quotas=(quota("default", {GPUS: "6"}, **{GPUS: "6"}),))
    assert "QUO02" in _faults(facts)
    assert [fault for fault in plan(release("rollout.strategy=Recreate"), facts).failed if "QUO02" in fault] == []


def test_every_check_has_its_paragraph_in_the_catalogue() -> None:
    catalogue = (ROOT / "docs" / "reference" / "checks.md").read_text(encoding="utf-8")
    assert [check.code for check in CHECKS if f'<a id="{check.code.lower()}"></a>' not in catalogue] == []


def _faults(facts: PlatformFacts) -> list[str]:
    found: Plan = plan(release(), facts)
    return [fault.split()[0] for fault in found.failed]
