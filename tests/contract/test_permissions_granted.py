"""The generated roles on a real authorizer: each account may do what its step does, and without a right it says which.

No kubelet is needed: requests are authorized before anything else looks at them. That steps make no other requests than
these is proved in tests/contract/test_permissions_used.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from steps import kinds
from steps.adapters.kubernetes.cluster import KubernetesCluster, connect
from steps.catalogue import CATALOGUE, permissions_of_accounts, rules
from steps.check_platform import CheckPlatform
from steps.check_release import STALE, CheckRelease, Part
from steps.checks import cluster, facts
from steps.create_volume import CreateVolume
from steps.document.schema import ModelService
from steps.errors import Blocked, DeadlineExceeded, Exit
from steps.kinds import LEASE, V1ALPHA1, WORKFLOW, Kind, Manifest, Ref
from steps.objects import record, scratch_claim, services, volume
from steps.objects.group import role_based_group
from steps.objects.group_operator import GroupOperator
from steps.objects.read_only import ReadOnlyCluster
from steps.objects.record import Record
from steps.policy_rules import account, permissions, user
from steps.ports.kubernetes import Permission
from steps.ports.oss import AccessKey
from steps.promote_release import PromoteRelease
from steps.reconcile.clock import SystemClock
from steps.reconcile.converge import Step, converge
from steps.release import Release
from steps.report.run_end import RunEnd
from steps.roll_back import RollBack
from steps.roll_out_service import RollOutService
from steps.rollout.intent import Intent
from steps.rollout.writer_lease import GpuLease, Guarded, Writer, WriterLease
from tests.support.api_servers import MERGE, REAL, Api, Server, real, until, with_token
from tests.support.argo_cluster import definition
from tests.support.custom_kinds import custom_kinds
from tests.support.fakes import FakeClock, RecordingReport, stored
from tests.support.samples import ROOT, release
from workflows.argo import accounts
from workflows.argo.accounts import account_of_ci

pytestmark = [
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),  # of a test server
    pytest.mark.cluster,
    pytest.mark.skipif(not REAL, reason="SLIPWAY_TEST_KUBECONFIG names no real API server"),
]

NOTIFY = "notifications=[{secret: webhook, key: url}]"
KEY = AccessKey("dummy-id", "dummy-secret")
CRDS = ROOT / "workflows" / "simulator" / "core" / "cluster" / "crds"
NEEDED = (
    "rbg-v0.6.0/workloads.x-k8s.io_rolebasedgroups.yaml",
    "rbg-v0.8.0-alpha.5/workloads.x-k8s.io_roleinstancesets.yaml",
    "erdma/network.alibabacloud.com_erdmadevices.yaml",
)
KINDS = {
    kind.kind.lower() + "s": kind
    for kind in (
        *(kinds.NAMESPACE, kinds.NODE, kinds.POD, kinds.SECRET, kinds.SERVICE, kinds.DEPLOYMENT, kinds.DAEMON_SET),
        *(
            kinds.CSI_DRIVER,
            kinds.ERDMA_DEVICE,
            kinds.RESOURCE_QUOTA,
            LEASE,
            Kind("apps/v1", "StatefulSet"),
            Kind("v1", "Event"),
        ),
        *(Kind("v1", "ConfigMap"), Kind("v1", "PersistentVolume"), Kind("v1", "PersistentVolumeClaim")),
        *(WORKFLOW, Kind(V1ALPHA1, "RoleBasedGroup"), Kind("workloads.x-k8s.io/v1alpha2", "RoleInstanceSet")),
    )
}


@dataclass(frozen=True)
class Installed:
    """A server with the roles of one service."""

    server: Server
    folder: Path
    release: Release

    @property
    def service(self) -> ModelService:
        return self.release.service

    def as_account(self, name: str) -> KubernetesCluster:
        path = self.folder / name
        if not path.exists():
            path.write_text(with_token(self.server.kubeconfig, self._token(name)), encoding="utf-8")
        return connect(path)

    def _token(self, name: str) -> str:
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
        with self.server.api() as api:
            space = self.service.workflow.namespace
            answer = api("POST", f"/api/v1/namespaces/{space}/serviceaccounts/{name}/token", request)
        assert answer.status == 201, answer
        return str(answer.content["status"]["token"])

    @contextmanager
    def without(self, name: str, right: Permission) -> Iterator[None]:
        """Take one verb on one resource from the roles of an account, until everybody who asks is told so."""
        cluster, own = self.as_account(name), replace(right, user="")
        with self.server.api() as api:
            roles = [role for role in _roles_of(self.service, name) if _without(role, right) != role["rules"]]
            assert roles
            for role in roles:
                assert api("PATCH", _path(role), {"rules": _without(role, right)}, kind=MERGE).status == 200
            try:
                until(lambda: not cluster.allows(own))
                yield
            finally:
                for role in roles:
                    assert api("PATCH", _path(role), {"rules": role["rules"]}, kind=MERGE).status == 200
                until(lambda: cluster.allows(own))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("granted")
    with real(folder) as server, server.api() as api:
        space = server.namespace
        made = release(
            f"metadata.namespace={space}", f"workflow.namespace={space}-runs", NOTIFY, "rollout.deadlineMinutes=1"
        )
        found = [
            _post(api, _path({**one, "metadata": {**one["metadata"], "name": ""}}), one)
            for one in _objects(made.service)
        ]
        definitions = [yaml.safe_load((CRDS / name).read_text(encoding="utf-8")) for name in NEEDED]
        assert any(found)
        try:
            with custom_kinds(server, *definitions, definition("Workflow")):
                until(lambda: all(server.cluster().serves(kind) for kind in KINDS.values()))
                installed = Installed(server, folder, made)
                until(lambda: _are_known(installed))
                yield installed
        finally:
            for one in reversed(_objects(made.service)):
                api("DELETE", _path(one))


ROWS = [
    (step, index)
    for step in CATALOGUE
    for index, _ in enumerate(
        right for rule in rules(step, release(NOTIFY).service) for right in permissions(rule, release(NOTIFY).service)
    )
]


def _row(row: tuple[str, int]) -> str:
    right = _rights(row[0], release(NOTIFY).service)[row[1]]
    return f"{row[0]}-{right.verb}-{right.resource.replace('/', '-')}" + ("-by-name" if right.name else "")


def _rights(step: str, service: ModelService) -> list[Permission]:
    return [right for rule in rules(step, service) for right in permissions(rule, service)]


@pytest.mark.parametrize("row", ROWS, ids=_row)
def test_an_account_may_do_what_its_step_does_and_without_it_is_told_what_it_lacks(
    row: tuple[str, int], installed: Installed
) -> None:
    step, index = row
    right = _rights(step, installed.service)[index]
    cluster = installed.as_account(account(step))
    _do(installed, cluster, right)
    with installed.without(account(step), right), pytest.raises(Blocked) as refused:
        _do(installed, cluster, right)
    assert refused.value.exit == Exit.BLOCKED
    resource = f"{right.resource}.{right.group}" if right.group else right.resource
    assert f"grant `{right.verb}` on `{resource}`" in str(refused.value)


def test_a_right_by_name_holds_for_no_other_name(installed: Installed) -> None:
    """Also `create`, since an apply is authorized with the name of what it would create."""
    cluster = installed.as_account(account("create-volume"))
    wanted = volume.secret(installed.release, KEY)
    other = {**wanted, "metadata": {**wanted["metadata"], "name": "oss-credentials"}}
    cluster.preview(wanted)
    asks: tuple[Callable[[], object], ...] = (
        lambda: cluster.get(Ref.of(other)),
        lambda: cluster.preview(other),
        lambda: cluster.apply(other),
    )
    for ask in asks:
        with pytest.raises(Blocked, match="not allowed to"):
            ask()


def test_preflight_finds_all_roles_and_names_the_one_that_is_missing(installed: Installed) -> None:
    checking = installed.as_account(account("check-platform"))
    step = CheckPlatform(installed.release, checking, None, None, own_accounts=True)  # type: ignore[arg-type]
    asked = permissions_of_accounts(installed.service)
    assert set(step._permissions()) == set(asked)
    assert [str(right) for right in asked if not checking.allows(right)] == []
    gone = next(right for right in asked if (right.verb, right.resource) == ("delete", "persistentvolumes"))
    with installed.without(account("create-volume"), gone):
        found = facts.PlatformFacts(
            **dict.fromkeys(("namespace", "rbg_versions", "deployments", "daemon_sets", "nodes", "pods"), None),  # type: ignore[arg-type]
            **dict.fromkeys(("erdma_devices", "csi_driver", "secret", "services", "weight_bytes", "bucket"), None),  # type: ignore[arg-type]
            rights={right: checking.allows(right) for right in asked},
        )
        (wrong,) = cluster.permissions(installed.release, found)
    assert str(wrong.needed) == f"permission to delete persistentvolumes for {user('create-volume', installed.service)}"  # type: ignore[union-attr]


def test_ci_may_start_one_template_and_nothing_else(installed: Installed) -> None:
    ci = installed.as_account(account_of_ci(installed.service))
    runs, serving = installed.service.workflow.namespace, installed.service.namespace
    argo = "argoproj.io"
    refused = [
        Permission("list", argo, "workflowtemplates", runs),
        *(Permission(verb, argo, "workflows", runs) for verb in ("update", "patch", "delete")),
        *(
            Permission("create", argo, kind, runs)
            for kind in ("workflowtemplates", "cronworkflows", "workfloweventbindings")
        ),
        *(
            Permission("get", "", kind, space)
            for kind in ("secrets", "pods", "configmaps")
            for space in (runs, serving)
        ),
        Permission("create", "", "serviceaccounts/token", runs),
        Permission("create", argo, "workflows", serving),
    ]
    assert [str(right) for right in _granted_to_ci(installed.service) if not ci.allows(right)] == []
    assert [str(right) for right in refused if ci.allows(right)] == []


@pytest.mark.parametrize("step", CATALOGUE)
def test_only_the_steps_of_the_volume_read_a_secret_and_only_its_own(step: str, installed: Installed) -> None:
    cluster, service = installed.as_account(account(step)), installed.service
    for space in (service.namespace, service.workflow.namespace):
        assert not cluster.allows(Permission("get", "", "secrets", space, "oss-credentials"))
        assert not cluster.allows(Permission("list", "", "secrets", space))
    own = Permission("get", "", "secrets", service.namespace, installed.release.volume_secret)
    assert cluster.allows(own) == (step in ("check-release", "create-volume"))


def test_what_only_looks_may_only_look(installed: Installed) -> None:
    """What it asks instead of a dry run would else be a write."""
    assert {right.verb for right in _rights("check-release", installed.service)} == {"get", "list"}
    cluster = installed.as_account(account("check-release"))
    wanted = volume.secret(installed.release, KEY)
    assert ReadOnlyCluster(cluster).preview(wanted) == wanted
    with pytest.raises(Blocked, match="not allowed to patch"):
        cluster.preview(wanted)


def test_the_steps_work_under_their_accounts_as_far_as_a_server_without_nodes_lets_them(installed: Installed) -> None:
    made, admin = installed.release, installed.server.cluster()
    lost = RunEnd.of("nightly-7", "Failed")

    def run(step: str, made_by: Callable[[KubernetesCluster], Step[Any]], clock: Any) -> list[str]:
        cluster, report = installed.as_account(account(step)), RecordingReport()
        writer = Writer("nightly-7", 3600, stays=False)
        intent = Intent("nightly-7", None)
        wanted: Any = made_by(cluster)
        if step == "roll-out-service":
            wanted = Guarded(wanted, GpuLease(made.service, cluster, writer, clock), intent)
        converge(Guarded(wanted, WriterLease(made.service, cluster, writer, clock), intent), report, clock)
        return [line.partition("/")[0] for line in report.of("changed")]

    assert run("create-volume", lambda cluster: CreateVolume(made, cluster, KEY, stored(made)), SystemClock()) == [
        "create Secret",
        "create PersistentVolume",
        "create PersistentVolumeClaim",
    ]
    with pytest.raises(DeadlineExceeded, match="prefill 0/2 ready"):
        run("roll-out-service", lambda cluster: RollOutService(made, cluster), FakeClock())
    group = Ref(Kind(V1ALPHA1, "RoleBasedGroup"), made.group, made.service.namespace)
    assert admin.get(group) is not None
    looking = ReadOnlyCluster(installed.as_account(account("check-release")))
    parts = (
        Part("create-volume", lambda: CreateVolume(made, looking, KEY, stored(made))),
        Part("roll-out-service", lambda: RollOutService(made, looking)),
    )
    found = converge(CheckRelease(made, parts), RecordingReport(), FakeClock()).outputs
    assert found.state == STALE
    assert found.reason.startswith("roll-out-service waits for: prefill 0/2 ready"), found.reason
    with pytest.raises(DeadlineExceeded, match="prefill 0/2 ready"):
        run("promote-release", lambda cluster: PromoteRelease(made, cluster, proved=made.id), FakeClock())
    nobody: Any = None  # the traffic stays where it is, so no engine is asked
    assert run("roll-back", lambda cluster: RollBack(made.service, cluster, nobody, lost), FakeClock()) == [
        "delete RoleBasedGroup",
        "delete Service",
    ]
    assert admin.get(group) is None
    for ref in (volume.claim_ref(made), volume.volume_ref(made)):
        live = admin.get(ref)
        assert live is not None
        admin.delete(ref, live["metadata"]["uid"])


def _do(installed: Installed, cluster: KubernetesCluster, right: Permission) -> None:
    """The very call of the adapter that needs this right. What it asks for need not be there."""
    if right.resource == "pods/log":
        cluster.pod_log(right.namespace, "absent", "absent")
        return
    if right.resource == "subjectaccessreviews":
        cluster.allows(Permission("get", "", "pods", user="somebody"))
        return
    kind = KINDS[right.resource]
    ref = Ref(kind, right.name or "absent", right.namespace if kind != kinds.NAMESPACE else "")
    if kind == LEASE:
        _swap(installed, cluster, right)
    elif right.verb == "get":
        cluster.get(ref)
    elif right.verb == "list":
        cluster.select(kind, right.namespace)
    elif right.verb == "delete":
        cluster.delete(ref, "no-uid")
    else:
        cluster.preview(_manifest(installed.release, right))


def _claim(made: Release, right: Permission) -> Manifest:
    if right.namespace == made.service.workflow.namespace:
        return scratch_claim.claim(made.service, "nightly-7", "0b1c")
    return volume.claim(made, "1Ti")


def _swap(installed: Installed, cluster: KubernetesCluster, right: Permission) -> None:
    kind = WriterLease if right.namespace == installed.service.namespace else GpuLease
    admin = kind(installed.service, installed.server.cluster(), Writer("admin", 60, stays=True), SystemClock())
    if right.verb == "get":
        cluster.get(admin.ref)
        return
    live = installed.server.cluster().get(admin.ref)
    if right.verb == "update" and live is None:
        admin.locks.swap(admin.released(admin.observe()))
    if right.verb == "create" and live is not None:
        installed.server.cluster().delete(admin.ref, live["metadata"]["uid"])
    cluster.swap(admin.released(admin.observe()))  # nobody holds it, so no other test waits for it


def _manifest(made: Release, right: Permission) -> Manifest:
    service = services.traffic_service(made) if right.name else services.release_service(made)
    return {
        "secrets": volume.secret(made, KEY),
        "persistentvolumes": volume.persistent_volume(made, "1Ti"),
        "persistentvolumeclaims": _claim(made, right),
        "configmaps": record.record(made.service, Record()),
        "services": service,
        "rolebasedgroups": role_based_group(made, GroupOperator(V1ALPHA1, "s-")),
    }[right.resource]


def _are_known(installed: Installed) -> bool:
    """Whether every account has what its roles give it; roles that were just made take a moment to be known."""
    ci, admin = installed.as_account(account_of_ci(installed.service)), installed.server.cluster()
    wanted = [(admin, right) for right in permissions_of_accounts(installed.service)]
    wanted += [(ci, right) for right in _granted_to_ci(installed.service)]
    return all(cluster.allows(right) for cluster, right in wanted)


def _granted_to_ci(service: ModelService) -> list[Permission]:
    argo, runs = "argoproj.io", service.workflow.namespace
    return [
        *(Permission(verb, argo, "workflows", runs) for verb in ("create", "get", "list", "watch")),
        Permission("list", argo, "workfloweventbindings", runs),
        Permission("get", argo, "workflowtemplates", runs),  # without a name, as Argo Server 4.1 asks
    ]


def _objects(service: ModelService) -> list[Manifest]:
    found = [*accounts.accounts(service), *accounts.cluster_roles(service), *accounts.steps(service)]
    found += [*accounts.continuous_integration(service), *accounts.people(service)]
    # The other namespace is made by the server of these tests.
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": service.workflow.namespace}}, *found]


def _roles_of(service: ModelService, name: str) -> list[Manifest]:
    objects = _objects(service)
    bound = {
        (one["roleRef"]["kind"], one["roleRef"]["name"])
        for one in objects
        if any(subject["name"] == name for subject in one.get("subjects", ()))
    }
    return [one for one in objects if (one["kind"], one["metadata"]["name"]) in bound]


def _without(role: Manifest, right: Permission) -> list[Manifest]:
    """The rules without one verb on one resource."""
    rules = []
    for rule in role["rules"]:
        hit = (rule["apiGroups"], rule["resources"]) == ([right.group], [right.resource])
        verbs = [verb for verb in rule["verbs"] if not hit or verb != right.verb]
        rules += [{**rule, "verbs": verbs}] if verbs else []
    return rules


def _path(one: Manifest) -> str:
    space = f"/namespaces/{one['metadata']['namespace']}" if one["metadata"].get("namespace") else ""
    prefix = "/api/v1" if one["apiVersion"] == "v1" else f"/apis/{one['apiVersion']}"
    return f"{prefix}{space}/{one['kind'].lower()}s/{one['metadata']['name']}".rstrip("/")


def _post(api: Api, path: str, content: Manifest) -> bool:
    """True if it was not there before."""
    answer = api("POST", path, content)
    assert answer.status in (201, 409), answer
    return answer.status == 201
