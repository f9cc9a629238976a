"""What `kubectl apply -k` sets up: accounts that the pods name, roles from the one table, CI held to one template."""

import json
from pathlib import Path

import pytest

from steps.catalogue import CATALOGUE, rules
from steps.document.schema import ModelService
from steps.errors import Blocked
from steps.kinds import Manifest
from steps.policy_rules import account, permissions
from tests.support.folders import Identity, built, document, every_object, identity
from tests.support.rendered import VARIANTS, VERSIONS, sample, templates, workflow_spec
from tests.support.samples import ROOT, SERVICES, service
from workflows.argo import accounts, versions
from workflows.argo.bundle import ARGO, INSTALL, bundle, write, write_bundle
from workflows.argo.install import shared

SERVICE = service()


FOLDERS = (INSTALL, *(ARGO / folder for folder in sorted({line.folder for line in versions.VERSIONS.values()})))
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding"}


@pytest.mark.parametrize("line", FOLDERS[1:], ids=str)
def test_two_applies_set_up_everything_once(line: Path) -> None:
    found = [identity(one) for folder in (INSTALL, line, line / "policy") for one in built(ROOT / folder)]
    assert len(found) == len(set(found))
    assert ("ServiceAccount", "slipway", "slipway-ci-qwen3-32b") in found
    for kind in ("WorkflowTemplate", "CronWorkflow", "WorkflowEventBinding"):
        assert (kind, "slipway", "qwen3-32b") in found


@pytest.mark.parametrize("argo", VERSIONS)
def test_a_rendered_document_is_what_is_committed_for_the_reference(argo: str, tmp_path: Path) -> None:
    write_bundle(SERVICES / "qwen3-32b.yaml", argo, tmp_path)
    committed = {"install": INSTALL, "service/qwen3-32b": ARGO / versions.argo_version(argo).folder}
    for folder, its in committed.items():
        for path in (tmp_path / folder).rglob("*.yaml"):
            same = ROOT / its / path.relative_to(tmp_path / folder)
            assert path.read_text(encoding="utf-8") == same.read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_no_folder_holds_a_namespace_or_a_kind_of_others(folder: Path) -> None:
    """What a folder holds goes with `kubectl delete -k`, and by pruning when it leaves the folder."""
    kinds = {one["kind"] for one in every_object(ROOT / folder)}
    assert kinds
    assert not kinds & {"Namespace", "CustomResourceDefinition", "Secret", "PersistentVolume", "PersistentVolumeClaim"}


OF_ONE_NAMESPACE = {
    **{name: value for name, value in VARIANTS.items() if name != "role credentials"},
    "another serving namespace": ("metadata.namespace=models", "metadata.name=other"),
    "without RDMA": ("serving.fabric=tcp", "metadata.name=plain"),
    "with messages": ("notifications=[{secret: chat, key: url}]", "metadata.name=loud"),
}


@pytest.mark.parametrize("variant", OF_ONE_NAMESPACE)
def test_every_service_of_a_workflow_namespace_renders_the_same_installation(variant: str) -> None:
    """So an apply for one service changes nothing under the others."""
    assert shared(service(*OF_ONE_NAMESPACE[variant])) == shared(SERVICE)


PAIRS = {
    "one serving namespace": (("metadata.name=a",), ("metadata.name=b",)),
    "names that join alike": (
        ("metadata.name=c", "metadata.namespace=a-b", "workflow.namespace=w"),
        ("metadata.name=b-c", "metadata.namespace=a", "workflow.namespace=w"),
    ),
    "a service called as the runs of another": (
        ("metadata.name=a", "metadata.namespace=slipway"),
        ("metadata.name=a-runs", "metadata.namespace=slipway"),
    ),
    "two workflow namespaces that join alike": (
        ("metadata.name=a-in-b", "workflow.namespace=c"),
        ("metadata.name=a", "workflow.namespace=b-in-c"),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_no_object_of_a_service_is_one_of_another_or_of_the_installation(pair: str, tmp_path: Path) -> None:
    found: list[Identity] = []
    for number, overrides in enumerate(PAIRS[pair]):
        of = service(*overrides)
        write(bundle(document(tmp_path, of), "4.1"), tmp_path / str(number))
        own = [identity(one) for one in every_object(tmp_path / str(number) / "service" / of.name)]
        assert CLUSTER_WIDE.isdisjoint(kind for kind, _, _ in own)
        found += own
        found += [identity(one) for one in built(tmp_path / str(number) / "install")] if number == 0 else []
    assert len(found) == len(set(found))


def test_rendering_says_what_to_type_next_namespaces_first(tmp_path: Path) -> None:
    of = service("metadata.namespace=models", "workflow.namespace=runs", "metadata.name=chat")
    lines = write_bundle(document(tmp_path, of), "4.1", tmp_path / "out")
    assert str(tmp_path / "out/service/chat/workflow-template.yaml") in lines
    typed = [line.partition("   #")[0].strip() for line in lines[lines.index("Next:") + 1 :]]
    assert typed == [
        "kubectl create namespace runs",
        "kubectl create namespace models",
        f"kubectl apply -k {tmp_path}/out/install",
        f"kubectl apply -k {tmp_path}/out/service/chat",
        f"kubectl apply -k {tmp_path}/out/service/chat/policy",
        "slipway submit chat -n runs",
    ]


def test_a_role_of_the_cloud_needs_a_label_on_the_namespace_which_no_folder_holds(tmp_path: Path) -> None:
    lines = write_bundle(document(tmp_path, sample("role credentials")), "4.1", tmp_path / "out")
    assert "  kubectl label namespace slipway pod-identity.alibabacloud.com/injection=on" in lines


@pytest.mark.parametrize(
    ("overrides", "found", "needed"),
    [
        (("workflow.namespace=other",), "namespace slipway with no RAM role", "namespace other with no RAM role"),
        (
            VARIANTS["role credentials"],
            "namespace slipway with no RAM role",
            "namespace slipway with RAM role slipway",
        ),
    ],
    ids=["workflow namespace", "role"],
)
def test_an_installation_that_other_services_use_is_not_replaced_in_its_folder(
    overrides: tuple[str, ...], found: str, needed: str, tmp_path: Path
) -> None:
    first, second = service("metadata.name=first"), service(*overrides, "metadata.name=second")
    write_bundle(document(tmp_path, first), "4.1", tmp_path / "out")
    before = (tmp_path / "out/install/accounts.yaml").read_text(encoding="utf-8")
    with pytest.raises(Blocked, match=f"the accounts of {found}, but this document needs those of {needed}. Next: "):
        write_bundle(document(tmp_path, second), "4.1", tmp_path / "out")
    assert (tmp_path / "out/install/accounts.yaml").read_text(encoding="utf-8") == before
    assert not (tmp_path / "out/service/second").exists()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_has_an_account_that_is_made(variant: str) -> None:
    made = {identity(one)[2] for one in accounts.accounts(sample(variant)) if one["kind"] == "ServiceAccount"}
    named = {template["serviceAccountName"] for template in templates(workflow_spec(variant=variant)).values()}
    assert named <= made
    assert made == {account(step) for step in CATALOGUE}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_binding_leads_from_a_made_account_to_a_made_role(variant: str) -> None:
    of = sample(variant)
    made = [*accounts.accounts(of), *roles_of_steps(of), *accounts.continuous_integration(of)]
    there = {identity(one) for one in made}
    for binding in (one for one in made if "roleRef" in one):
        reference, space = binding["roleRef"], binding["metadata"].get("namespace", "")
        assert (reference["kind"], space, reference["name"]) in there
        for subject in binding["subjects"]:
            assert (subject["kind"], subject["namespace"], subject["name"]) in there


def test_every_pod_lets_argos_executor_report() -> None:
    (binding,) = (one for one in accounts.accounts(SERVICE) if one["kind"] == "RoleBinding")
    assert {subject["name"] for subject in binding["subjects"]} == {account(step) for step in CATALOGUE}
    (role,) = (one for one in accounts.accounts(SERVICE) if one["kind"] == "Role")
    assert role["rules"] == [
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_roles_grant_the_table_and_no_more(variant: str) -> None:
    of = sample(variant)
    for step in CATALOGUE:
        wanted = {
            (right.verb, right.group, right.resource, right.namespace, right.name)
            for rule in rules(step, of)
            for right in permissions(rule, of)
        }
        assert granted(roles_of_steps(of), account(step)) == wanted


def roles_of_steps(of: ModelService) -> list[Manifest]:
    return [*accounts.cluster_roles(of), *accounts.steps(of)]


def test_only_looking_at_rdma_devices_is_granted_to_a_service_that_has_no_use_for_it() -> None:
    """The installation is one for services with and without RDMA."""
    of = service("serving.fabric=tcp")
    for step in CATALOGUE:
        wanted = {right.resource for rule in rules(step, of) for right in permissions(rule, of)}
        more = {
            (verb, resource)
            for verb, _, resource, *_ in granted(roles_of_steps(of), account(step))
            if resource not in wanted
        }
        assert more == ({("list", "erdmadevices")} if step == "check-platform" else set())


def granted(objects: list[Manifest], subject: str) -> set[tuple[str, str, str, str, str]]:
    roles = {identity(one): one for one in objects if one["kind"] in ("Role", "ClusterRole")}
    found = set()
    for binding in (one for one in objects if "roleRef" in one and one["subjects"][0]["name"] == subject):
        space = binding["metadata"].get("namespace", "")
        role = roles[(binding["roleRef"]["kind"], space, binding["roleRef"]["name"])]
        for rule in role["rules"]:
            ((group,), (resource,)) = (rule["apiGroups"], rule["resources"])
            for verb in rule["verbs"]:
                found |= {(verb, group, resource, space, name) for name in rule.get("resourceNames", [""])}
    return found


def test_nobody_has_a_wildcard_and_nobody_may_give_rights_away() -> None:
    rules = [rule for folder in FOLDERS for one in built(ROOT / folder) for rule in one.get("rules", ())]
    assert rules
    for rule in rules:
        assert "*" not in json.dumps(rule)
        assert not {"impersonate", "bind", "escalate"} & set(rule["verbs"])
        assert not {"serviceaccounts/token", "pods/exec", "roles", "rolebindings"} & set(rule["resources"])


def test_no_role_reads_secrets_but_the_one_of_the_volume_and_by_name() -> None:
    readers = [
        (identity(one)[2], rule.get("resourceNames"))
        for folder in FOLDERS[:2]
        for one in built(ROOT / folder)
        for rule in one.get("rules", ())
        if "secrets" in rule["resources"]
    ]
    steps = ("check-release", "create-volume")
    assert readers == [(f"slipway-{step}-qwen3-32b", ["qwen3-32b-oss"]) for step in steps]


def test_a_role_of_the_cloud_is_on_the_accounts_that_reach_the_bucket() -> None:
    of = sample("role credentials")
    annotated = {
        identity(one)[2]
        for one in accounts.accounts(of)
        if one["metadata"].get("annotations") == {"pod-identity.alibabacloud.com/role-name": "slipway"}
    }
    assert annotated == {
        account(step)
        for step in (
            "check-release",
            "check-platform",
            "download-model",
            "upload-model",
            "mirror-model",
            "verify-model",
            "create-volume",
        )
    }


def test_the_page_says_every_right_of_every_account() -> None:
    page = (ROOT / "docs" / "permissions.md").read_text(encoding="utf-8")
    for step in CATALOGUE:
        assert f"`{account(step)}`" in page
        for rule in rules(step, SERVICE):
            resource = f"{rule.resource}.{rule.group}" if rule.group else rule.resource
            assert f"| {', '.join(rule.verbs)} | `{resource}` |" in page
