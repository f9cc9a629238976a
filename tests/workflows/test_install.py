"""What `kubectl apply -k` sets up: accounts that the pods name, roles from the one table, CI held to one template."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from steps.platform.rights import STEPS, account, grants, rights
from steps.ports import Manifest
from tests.samples import ROOT, SERVICES, service
from tests.workflows.rendered import LINES, VARIANTS, sample, templates, workflow_spec
from workflows import admission, permissions
from workflows.install import KUSTOMIZATION
from workflows.render import INSTALL, bundle, write

SERVICE = service()


def built(folder: Path) -> list[Manifest]:
    """What kustomize would build: a kustomization may name another folder, but files of its own folder only."""
    found: list[Manifest] = []
    for resource in yaml.safe_load((folder / KUSTOMIZATION).read_text(encoding="utf-8"))["resources"]:
        path = folder / resource
        if path.is_dir():
            found += built(path)
            continue
        assert path.resolve().is_relative_to(folder.resolve()), f"{path} is outside of {folder}"
        found += list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return found


def identity(one: Manifest) -> tuple[str, str, str]:
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]


@pytest.mark.parametrize("folder", [INSTALL, INSTALL / "argo-3.6-4.1"], ids=str)
def test_one_apply_sets_up_everything_once(folder: Path) -> None:
    found = [identity(one) for one in built(ROOT / folder)]
    assert len(found) == len(set(found))
    assert {("Namespace", "", "slipway"), ("ServiceAccount", "slipway", "slipway-ci-qwen3-32b")} <= set(found)
    for kind in ("WorkflowTemplate", "CronWorkflow", "WorkflowEventBinding"):
        assert (kind, "slipway", "qwen3-32b") in found


@pytest.mark.parametrize("argo", LINES)
def test_a_rendered_document_is_applied_whole(argo: str, tmp_path: Path) -> None:
    write(bundle(SERVICES / "demo.yaml", argo), tmp_path)
    kinds = {one["kind"] for one in built(tmp_path)}
    assert kinds >= {"Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "WorkflowTemplate"}
    assert {one["kind"] for one in built(tmp_path / "policy")} == {
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_has_an_account_that_is_made(variant: str) -> None:
    made = {identity(one)[2] for one in permissions.accounts(sample(variant)) if one["kind"] == "ServiceAccount"}
    named = {template["serviceAccountName"] for template in templates(workflow_spec(variant=variant)).values()}
    assert named <= made
    assert made == {account(step) for step in STEPS}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_binding_leads_from_a_made_account_to_a_made_role(variant: str) -> None:
    of = sample(variant)
    made = [*permissions.accounts(of), *permissions.steps(of), *permissions.continuous_integration(of)]
    there = {identity(one) for one in made}
    for binding in (one for one in made if "roleRef" in one):
        reference, space = binding["roleRef"], binding["metadata"].get("namespace", "")
        assert (reference["kind"], space, reference["name"]) in there
        for subject in binding["subjects"]:
            assert (subject["kind"], subject["namespace"], subject["name"]) in there


def test_every_pod_lets_argos_executor_report() -> None:
    (binding,) = (one for one in permissions.accounts(SERVICE) if one["kind"] == "RoleBinding")
    assert {subject["name"] for subject in binding["subjects"]} == {account(step) for step in STEPS}
    (role,) = (one for one in permissions.accounts(SERVICE) if one["kind"] == "Role")
    assert role["rules"] == [
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_roles_grant_the_table_and_no_more(variant: str) -> None:
    of = sample(variant)
    for step in STEPS:
        wanted = {
            (right.verb, right.group, right.resource, right.namespace, right.name)
            for grant in grants(step, of)
            for right in rights(grant, of)
        }
        assert granted(permissions.steps(of), account(step)) == wanted


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
    rules = [rule for one in built(ROOT / INSTALL) for rule in one.get("rules", ())]
    assert rules
    for rule in rules:
        assert "*" not in json.dumps(rule)
        assert not {"impersonate", "bind", "escalate"} & set(rule["verbs"])
        assert not {"serviceaccounts/token", "pods/exec", "roles", "rolebindings"} & set(rule["resources"])


def test_no_role_reads_secrets_but_the_one_of_the_volume_and_by_name() -> None:
    readers = [
        (identity(one)[2], rule.get("resourceNames"))
        for one in built(ROOT / INSTALL)
        for rule in one.get("rules", ())
        if "secrets" in rule["resources"]
    ]
    steps = ("check-release", "create-volume")
    assert readers == [(f"slipway-{step}-qwen3-32b", ["qwen3-32b-oss"]) for step in steps]


def test_two_services_of_one_namespace_do_not_overwrite_each_others_roles() -> None:
    def per_service(of: Any) -> set[tuple[str, str, str]]:
        made = [*permissions.steps(of), *permissions.continuous_integration(of), *permissions.people(of)]
        return {identity(one) for one in (*made, *admission.policy(of))}

    other = service("metadata.name=other", "serving.fabric=tcp")
    elsewhere = service("metadata.namespace=models")
    assert not per_service(SERVICE) & per_service(other)
    clusterwide = {one for one in per_service(SERVICE) & per_service(elsewhere) if not one[1]}
    assert {kind for kind, _, _ in clusterwide} <= {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}


def test_a_role_of_the_cloud_is_on_the_accounts_that_reach_the_bucket() -> None:
    of = sample("role credentials")
    annotated = {
        identity(one)[2]
        for one in permissions.accounts(of)
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
    assert permissions.namespaces(of)[0]["metadata"]["labels"] == {"pod-identity.alibabacloud.com/injection": "on"}


def test_the_page_says_every_right_of_every_account() -> None:
    page = (ROOT / "docs" / "permissions.md").read_text(encoding="utf-8")
    for step in STEPS:
        assert f"`{account(step)}`" in page
        for grant in grants(step, SERVICE):
            resource = f"{grant.resource}.{grant.group}" if grant.group else grant.resource
            assert f"| {', '.join(grant.verbs)} | `{resource}` |" in page
