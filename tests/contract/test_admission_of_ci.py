"""The rendered objects and the policy for CI on a real API server of 1.30 or newer, with Argo's CRDs.

CI's own token asks for everything here. Nothing runs: no controller of Argo is there.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from steps.document.schema import ModelService
from tests.support.api_servers import MERGE, REAL, Answer, Api, real, until, with_token
from tests.support.argo_cluster import OPEN, definition
from tests.support.ci_requests import DOCUMENT, MINE, REFUSED, STATUSES, given, run_of_ci
from tests.support.custom_kinds import custom_kinds
from tests.support.rendered import VARIANTS
from tests.support.samples import RECORDED, service
from workflows.argo import accounts, policies
from workflows.argo.accounts import account_of_ci
from workflows.argo.versions import argo_version, for_version
from workflows.argo.workflow import cron_workflow, event_binding, workflow_template

pytestmark = [
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),  # of a test server
    pytest.mark.cluster,
    pytest.mark.skipif(not REAL, reason="SLIPWAY_TEST_KUBECONFIG names no real API server"),
    pytest.mark.timeout(300),
]

Manifest = dict[str, Any]
VERSIONS = ("3.5", "4.1")
PLURALS = {
    "Workflow": "workflows",
    "WorkflowTemplate": "workflowtemplates",
    "CronWorkflow": "cronworkflows",
    "WorkflowEventBinding": "workfloweventbindings",
}
STRICT = {"dryRun": "All", "fieldValidation": "Strict"}


@dataclass(frozen=True)
class Installed:
    admin: Api
    ci: Api
    service: ModelService
    argo: str  # the line whose CRDs are installed

    @property
    def template(self) -> Manifest:
        return for_version(workflow_template(self.service, DOCUMENT), argo_version(self.argo))

    def path(self, plural: str, namespace: str = "") -> str:
        return f"/apis/argoproj.io/v1alpha1/namespaces/{namespace or self.service.workflow.namespace}/{plural}"

    def submit(self, workflow: Manifest, namespace: str = "") -> Answer:
        """As CI; only asked, so that nothing stays."""
        return self.ci("POST", self.path("workflows", namespace), workflow, dryRun="All")


@pytest.fixture(scope="module", params=VERSIONS)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("admission")
    with real(folder) as server, server.api() as admin:
        _skip_before_1_30(admin)
        space = server.namespace
        of = service(f"metadata.namespace={space}", f"workflow.namespace={space}-runs")
        with custom_kinds(server, *_definitions(request.param), alone=True) as foreign:
            if foreign:
                pytest.skip(f"this server has {', '.join(foreign)} already, and these tests install those of each line")
            yield from _with_roles(admin, folder, of, request.param)


def _with_roles(admin: Api, folder: Path, of: ModelService, argo: str) -> Iterator[Installed]:
    space = of.workflow.namespace
    runs: Manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}
    made = [runs, *accounts.continuous_integration(of), *policies.policy(of)]
    try:
        for one in made:
            answer = admin("POST", _collection(one), one)
            assert answer.status == 201, answer
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
        token = admin("POST", f"/api/v1/namespaces/{space}/serviceaccounts/{account_of_ci(of)}/token", request)
        config = folder / "ci"
        config.write_text(with_token(admin.kubeconfig, token.content["status"]["token"]), encoding="utf-8")
        with Api(config, space) as ci:
            found = Installed(admin, ci, of, argo)
            assert admin("POST", found.path("workflowtemplates"), found.template).status == 201
            until(lambda: found.submit(run(found)).status == 201)  # roles, policy and its parameters are known
            until(lambda: found.submit(run(found, entrypoint="mine")).status != 201)
            yield found
    finally:
        for one in reversed(made):
            admin("DELETE", f"{_collection(one)}/{one['metadata']['name']}")


def run(installed: Installed, **spec: Any) -> Manifest:
    return run_of_ci(installed.template, **spec)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_real_server_takes_every_rendered_object_with_no_unknown_field(variant: str, installed: Installed) -> None:
    space = installed.service.workflow.namespace
    of = service(*VARIANTS[variant], f"workflow.namespace={space}")
    for made in (workflow_template(of, DOCUMENT), cron_workflow(of, "0 3 * * *"), event_binding(of)):
        one = {**made, "metadata": {**made["metadata"], "name": f"strict-{made['metadata']['name'][:20]}"}}
        path = installed.path(PLURALS[made["kind"]])
        answer = installed.admin("POST", path, for_version(one, argo_version(installed.argo)), **STRICT)
        assert answer.status == 201, answer


def test_the_full_definitions_refuse_what_their_rules_forbid(installed: Installed) -> None:
    if installed.argo == "3.5":
        pytest.skip("the minimal CRDs have no rules")
    bad = installed.template
    bad["metadata"]["name"] = "strict"
    bad["spec"]["templates"][0]["script"] = {"image": "a", "source": "b"}
    answer = installed.admin("POST", installed.path("workflowtemplates"), bad, **STRICT)
    assert answer.status == 422
    assert "template must have at most one template type" in answer.message


def test_ci_starts_its_template_as_every_door_sends_it(installed: Installed) -> None:
    bare = {key: value for key, value in run(installed).items() if key != "spec"}
    of_a_client = {
        "startedAt": None,
        "finishedAt": None,
        "storedTemplates": {f"namespaced/{installed.service.name}/a": MINE[0]},
    }
    for workflow in (
        run(installed),
        {**run(installed), "status": of_a_client},
        run(installed, **given("reason", "new engine: a/b #12")),
        {**bare, "spec": {"workflowTemplateRef": {"name": installed.service.name}}},
    ):
        answer = installed.submit(workflow)
        assert answer.status == 201, answer


@pytest.mark.parametrize("case", REFUSED)
def test_ci_is_refused_everything_else_and_told_what_it_may(case: str, installed: Installed) -> None:
    spec, sentence = REFUSED[case]
    answer = installed.submit(run(installed, **spec))
    assert answer.status in (403, 422), answer
    assert "denied request: CI may" in answer.message
    assert sentence in answer.message


def test_ci_is_refused_a_workflow_without_a_template(installed: Installed) -> None:
    workflow = run(installed)
    del workflow["spec"]["workflowTemplateRef"]
    assert "CI may start the WorkflowTemplate qwen3-32b, no other" in installed.submit(workflow).message


@pytest.mark.parametrize(
    "status",
    STATUSES,
    ids=lambda status: next(iter(status)),
)
def test_ci_cannot_put_a_spec_into_the_status_which_the_controller_would_run(
    status: Manifest, installed: Installed
) -> None:
    answer = installed.submit({**run(installed), "status": status})
    assert "CI may start a Workflow without a status" in answer.message


def test_ci_starts_nothing_in_another_namespace_and_nothing_but_a_workflow(installed: Installed) -> None:
    elsewhere = run(installed)
    elsewhere["metadata"]["namespace"] = installed.service.namespace
    answer = installed.submit(elsewhere, installed.service.namespace)
    assert (answer.status, "cannot create resource" in answer.message) == (403, True)
    template = {**installed.template, "metadata": {"name": "mine"}}
    assert installed.ci("POST", installed.path("workflowtemplates"), template).status == 403


def test_ci_changes_no_run_even_if_somebody_gives_it_the_right(installed: Installed) -> None:
    path = installed.path("workflows")
    name = installed.admin("POST", path, run(installed)).content["metadata"]["name"]
    change = {"spec": {"shutdown": "Terminate"}}
    assert installed.ci("PATCH", f"{path}/{name}", change, kind=MERGE).status == 403
    assert installed.ci("DELETE", f"{path}/{name}").status == 403

    space = installed.service.workflow.namespace
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{space}"
    role = {"metadata": {"name": "more"}, "rules": [_rule("patch")]}
    subject = {"kind": "ServiceAccount", "name": account_of_ci(installed.service), "namespace": space}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "more"}
    installed.admin("POST", f"{rbac}/roles", role)
    installed.admin(
        "POST", f"{rbac}/rolebindings", {"metadata": {"name": "more"}, "roleRef": reference, "subjects": [subject]}
    )
    try:
        until(lambda: "denied request" in installed.ci("PATCH", f"{path}/{name}", change, kind=MERGE).message)
        answer = installed.ci("PATCH", f"{path}/{name}", change, kind=MERGE)
        assert "CI may start a run, and not change one" in answer.message
    finally:
        for plural in ("rolebindings", "roles"):
            installed.admin("DELETE", f"{rbac}/{plural}/more")
        installed.admin("DELETE", f"{path}/{name}")


def test_without_the_template_ci_starts_nothing(installed: Installed) -> None:
    path = f"{installed.path('workflowtemplates')}/{installed.service.name}"
    workflow = run(installed)
    assert installed.admin("DELETE", path).status == 200
    try:
        until(lambda: installed.submit(workflow).status != 201)
        assert "no params found" in installed.submit(workflow).message
    finally:
        assert installed.admin("POST", installed.path("workflowtemplates"), installed.template).status == 201
        until(lambda: installed.submit(workflow).status == 201)


def test_the_policy_is_about_ci_alone(installed: Installed) -> None:
    """The controller, the schedule and people go their own ways."""
    mine = run(installed, serviceAccountName="default", priority=3)
    assert installed.admin("POST", installed.path("workflows"), mine, dryRun="All").status == 201


def _rule(verb: str) -> Manifest:
    return {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": [verb]}


def _skip_before_1_30(api: Api) -> None:
    version = api("GET", "/version").content
    found = (int(version["major"]), int(version["minor"].rstrip("+")))
    if found < (1, 30):
        pytest.skip(f"Kubernetes {version['gitVersion']} has no ValidatingAdmissionPolicy; that came with 1.30")


def _definitions(argo: str) -> Iterator[Manifest]:
    """The full CRDs of Argo 4.1; the minimal ones of 3.5, whose full ones no API server takes.

    The full one of Workflow is made of WorkflowTemplate's: both have one spec, and upstream's status is as open.
    """
    if argo == "3.5":
        yield from map(definition, PLURALS)
        return
    packed = RECORDED / "schemas" / "argo" / "crds-v4.1.2.json.gz"
    found = json.loads(gzip.decompress(packed.read_bytes()))
    yield from found.values()
    schema = found["WorkflowTemplate"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    yield definition("Workflow", {**schema, "properties": {**schema["properties"], "status": OPEN}})


def _collection(one: Manifest) -> str:
    kind = one["kind"].lower()
    plural = kind[:-1] + "ies" if kind.endswith("policy") else kind + "s"
    space = f"/namespaces/{one['metadata']['namespace']}" if one["metadata"].get("namespace") else ""
    prefix = "/api/v1" if one["apiVersion"] == "v1" else f"/apis/{one['apiVersion']}"
    return f"{prefix}{space}/{plural}"
