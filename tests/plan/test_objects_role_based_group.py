"""The rendered group is what every operator from v0.3 to v0.8 takes, and what a person reviewed."""

import gzip
import json
from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml

from steps.kinds import HASH_LABEL, INSTANCE, ROLE_BASED_GROUP, ROLE_INSTANCE_SET, V1ALPHA1, V1ALPHA2, Kind, Manifest
from steps.objects.group import adopted_services, role_based_group
from steps.objects.group_operator import GroupOperator, operator_of
from steps.objects.pod_template import spec_hash
from steps.release import RENDERING, Release
from steps.rollout.observation import template_of
from tests.support.samples import RECORDED, ROOT, release
from workflows.simulator.core.engine.flags import UsageError, parse_router, parse_worker

SCHEMAS = RECORDED / "schemas" / "rbg"
GOLDEN = ROOT / "tests" / "plan" / "golden"
OLD = Kind(V1ALPHA1, ROLE_BASED_GROUP)
NEW = Kind(V1ALPHA2, ROLE_BASED_GROUP)
OPERATORS = {
    "v0.3.0": (V1ALPHA1, GroupOperator(V1ALPHA1, "")),
    "v0.6.0": (V1ALPHA1, GroupOperator(V1ALPHA1, "s-")),
    "v0.7.0": (V1ALPHA1, GroupOperator(V1ALPHA1, "s-")),
    "v0.7.0 alone": (V1ALPHA2, GroupOperator(V1ALPHA2, "s-")),
    "v0.8.0-alpha.5": (V1ALPHA1, GroupOperator(V1ALPHA1, "s-")),
    "v0.8.0-alpha.5 alone": (V1ALPHA2, GroupOperator(V1ALPHA2, "s-")),
}
DOCUMENTS = {
    "reference": release(),
    "demo": release(name="demo"),
    "tcp": release("serving.fabric=tcp"),
    "old engine": release("serving.image=sglang:0.5.10", "serving.fabric=tcp"),
    "everything": release(
        "metadata.labels={team: search}",
        "serving.pod.imagePullSecrets=[{name: registry}]",
        "serving.pod.nodeSelector={pool: gpu}",
        "serving.contextLength=131072",
        "serving.args=[--reasoning-parser, qwen3]",
        "serving.prefill={replicas: 3, args: [--chunked-prefill-size, '8192']}",
        "serving.env={NCCL_IB_GID_INDEX: '1'}",
    ),
}


@cache
def schema(tag: str, version: str) -> dict[str, Any]:
    found = json.loads(gzip.decompress((SCHEMAS / f"{tag}.json.gz").read_bytes()))[version]
    return {**strict(found), "additionalProperties": False}


def strict(node: Any) -> Any:
    """The schema with unknown keys refused wherever upstream lists keys."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: strict(value) for key, value in node.items()}
    if isinstance(found.get("properties"), dict) and "additionalProperties" not in found:
        found["additionalProperties"] = not found["properties"]
    return found


def schema_errors(manifest: Manifest, tag: str) -> list[str]:
    version = manifest["apiVersion"].rpartition("/")[2]
    body = {key: value for key, value in manifest.items() if key != "metadata"} | {"metadata": {}}
    validator = jsonschema.Draft202012Validator(schema(tag, version))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]


def roles(manifest: Manifest) -> dict[str, dict[str, Any]]:
    return {role["name"]: role for role in manifest["spec"]["roles"]}


def container(manifest: Manifest, role: str) -> dict[str, Any]:
    found: dict[str, Any] = template_of(roles(manifest)[role])["spec"]["containers"][0]
    return found


def flag(manifest: Manifest, role: str, name: str) -> str | None:
    arguments = container(manifest, role)["args"]
    return arguments[arguments.index(name) + 1] if name in arguments else None


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_takes_the_group(operator: str, document: str) -> None:
    tag = operator.split(maxsplit=1)[0]
    assert schema_errors(role_based_group(DOCUMENTS[document], OPERATORS[operator][1]), tag) == []


@pytest.mark.parametrize("tag", ["v0.3.0", "v0.6.0", "v0.7.0", "v0.8.0-alpha.5"])
@pytest.mark.parametrize(
    "misspell",
    [
        lambda role: role.update(replica=2),
        lambda role: role["rolloutStrategy"].update(maxSurge=0),
        lambda role: role["template"]["spec"].update(terminationGracePeriod=600),
        lambda role: role["template"]["spec"]["containers"][0]["readinessProbe"].update(timeout=3),
    ],
)
def test_a_misspelt_field_inside_a_role_is_found(misspell: Any, tag: str) -> None:
    manifest = role_based_group(release(), GroupOperator(V1ALPHA1, ""))
    misspell(manifest["spec"]["roles"][0])
    assert len(schema_errors(manifest, tag)) == 1


@pytest.mark.parametrize("name", ["v1alpha1", "v1alpha2"])
def test_the_rendering_changes_only_together_with_its_number(name: str) -> None:
    path = GOLDEN / f"role-based-group.{name}.yaml"
    golden = yaml.safe_load(path.read_text(encoding="utf-8"))
    rendered = role_based_group(release(), GroupOperator(f"workloads.x-k8s.io/{name}", "s-"))
    assert golden == {"rendering": RENDERING, "manifest": json.loads(json.dumps(rendered))}, (
        "the rendering of a release changed. A live group would be edited in place and its pods restarted under "
        "traffic. Count RENDERING in steps/release.py up by one, so that the new rendering is a release of its own, "
        "then write the golden files again: python -m tests.plan.golden"
    )


@pytest.mark.parametrize(
    ("served", "operator"),
    [
        ([], None),
        ([INSTANCE], None),
        ([OLD], GroupOperator(V1ALPHA1, "")),
        ([OLD, INSTANCE], GroupOperator(V1ALPHA1, "s-")),
        ([OLD, NEW, INSTANCE, ROLE_INSTANCE_SET], GroupOperator(V1ALPHA1, "s-")),
        ([OLD, NEW, ROLE_INSTANCE_SET], GroupOperator(V1ALPHA1, "s-")),
        ([NEW, ROLE_INSTANCE_SET], GroupOperator(V1ALPHA2, "s-")),
    ],
)
def test_the_served_kinds_tell_the_operator(served: list[Kind], operator: GroupOperator | None) -> None:
    assert operator_of(served) == operator


@pytest.mark.parametrize("prefix", ["", "s-"])
def test_the_router_knows_every_worker_by_the_name_that_the_operator_gives_it(prefix: str) -> None:
    wanted = release("serving.prefill.replicas=2", "serving.decode.replicas=2")
    arguments = container(role_based_group(wanted, GroupOperator(V1ALPHA1, prefix)), "router")["args"]
    group = wanted.group
    urls = [f"http://{group}-prefill-{index}.{prefix}{group}-prefill:8000" for index in (0, 1)]
    for url in urls:
        assert arguments[arguments.index(url) - 1 : arguments.index(url) + 2] == ["--prefill", url, "34000"]
    decode = [argument for argument in arguments if f".{prefix}{group}-decode:" in argument]
    assert decode == [f"http://{group}-decode-{index}.{prefix}{group}-decode:8000" for index in (0, 1)]


def test_a_group_older_than_its_operator_keeps_the_names_that_it_has() -> None:
    wanted = release()
    adopted = adopted_services(wanted.group, [f"{wanted.group}-prefill", "something-else"])
    arguments = container(role_based_group(wanted, GroupOperator(V1ALPHA1, "s-"), adopted), "router")["args"]
    assert f"http://{wanted.group}-prefill-0.{wanted.group}-prefill:8000" in arguments
    assert f"http://{wanted.group}-decode-0.s-{wanted.group}-decode:8000" in arguments


def test_scaling_replaces_the_router_and_no_worker() -> None:
    two, three = release(), release("serving.prefill.replicas=3")
    assert two.group == three.group
    before, after = (
        {
            name: spec_hash(template_of(role))
            for name, role in roles(role_based_group(found, GroupOperator(V1ALPHA1, "s-"))).items()
        }
        for found in (two, three)
    )
    assert {name for name in before if before[name] != after[name]} == {"router"}


@pytest.mark.parametrize(
    "override",
    [
        "model.id=Qwen/Qwen3-14B",
        "store.bucket=other-models",
        "volume.client=ossfs",
        "serving.image=registry.example.com/other:0.5.23",
        "serving.image=registry.example.com/llm/sglang-erdma:0.5.17",
        "serving.servedModelName=qwen",
        "serving.modelPath=/models/other",
        "serving.ports.http=9000",
        "serving.ports.bootstrap=35000",
        "serving.tensorParallel=4",
        "serving.prefill={replicas: 2, args: [--x]}",
        "serving.router={image: other, policy: random}",
        "serving.fabric=tcp",
        "serving.rdmaDevices=[erdma_1]",
        "serving.contextLength=4096",
        "serving.args=[--x]",
        "serving.env={A: b}",
        "serving.resources={cpu: '8'}",
        "serving.pod.nodeSelector={pool: gpu}",
        "serving.pod.imagePullSecrets=[{name: registry}]",
    ],
)
def test_whatever_changes_a_pod_makes_another_release(override: str) -> None:
    """Or else a live group would be edited in place, and its only decode worker restarted under traffic."""
    one, other = release(), release(override)
    assert pods_without_names(one) != pods_without_names(other)
    assert one.id != other.id


def pods_without_names(wanted: Release) -> str:
    manifest = role_based_group(wanted, GroupOperator(V1ALPHA1, "s-"))
    text = json.dumps([template_of(role)["spec"] for role in manifest["spec"]["roles"]])
    return text.replace(wanted.group, "GROUP")


@pytest.mark.parametrize("override", ["endpoint.service=other", "proof.prompt=Hello", "rollout.deadlineMinutes=5"])
def test_what_changes_no_pod_keeps_the_release(override: str) -> None:
    one, other = release(), release(override)
    operator = GroupOperator(V1ALPHA1, "s-")
    assert one.id == other.id
    assert role_based_group(one, operator) == role_based_group(other, operator)


@pytest.mark.parametrize("operator", OPERATORS)
def test_nothing_that_the_server_would_default_is_left_out(operator: str) -> None:
    """Operators up to v0.4 compare with the defaulted template and would roll for ever (sgl-project/rbg#85)."""
    manifest = role_based_group(release(), OPERATORS[operator][1])
    for role in roles(manifest).values():
        found = template_of(role)["spec"]["containers"][0]
        assert all(port["protocol"] == "TCP" for port in found["ports"])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert set(found[probe]) == {
                "httpGet",
                "periodSeconds",
                "timeoutSeconds",
                "successThreshold",
                "failureThreshold",
            }
            assert set(found[probe]["httpGet"]) == {"path", "port", "scheme"}
        assert found["resources"]["requests"] == found["resources"]["limits"]


def test_each_pod_carries_the_hash_of_its_own_template() -> None:
    manifest = role_based_group(release(), GroupOperator(V1ALPHA1, "s-"))
    hashes = [template_of(role)["metadata"]["labels"][HASH_LABEL] for role in manifest["spec"]["roles"]]
    assert len(set(hashes)) == len(hashes)
    assert hashes == [spec_hash(template_of(role)) for role in manifest["spec"]["roles"]]


@pytest.mark.parametrize(
    ("version", "probe", "backend", "forced"),
    [
        ("0.5.23", "/ready", "mooncake_tcp", None),
        ("0.5.22", "/ready", "mooncake_tcp", None),
        ("0.5.17", "/health", "mooncake_tcp", None),
        ("0.5.10", "/health", "mooncake", "1"),
    ],
)
def test_flags_follow_the_version_of_the_engine(version: str, probe: str, backend: str, forced: str | None) -> None:
    manifest = role_based_group(
        release(f"serving.image=sglang:{version}", "serving.fabric=tcp"), GroupOperator(V1ALPHA1, "s-")
    )
    decode = container(manifest, "decode")
    assert decode["readinessProbe"]["httpGet"]["path"] == probe
    assert flag(manifest, "router", "--health-check-endpoint") == probe
    assert flag(manifest, "decode", "--disaggregation-transfer-backend") == backend
    assert {item["name"]: item.get("value") for item in decode["env"]}.get("MC_FORCE_TCP") == forced
    # An answer of /health takes a second at least: the default of one second would always fail.
    assert decode["livenessProbe"]["timeoutSeconds"] > 20


@pytest.mark.parametrize("fabric", ["erdma", "tcp"])
def test_rdma_is_asked_for_only_where_it_is_used(fabric: str) -> None:
    manifest = role_based_group(release(f"serving.fabric={fabric}"), GroupOperator(V1ALPHA1, "s-"))
    worker = container(manifest, "prefill")
    names = {item["name"] for item in worker["env"]}
    found = (
        "aliyun/erdma" in worker["resources"]["limits"],
        "--disaggregation-ib-device" in worker["args"],
        "MC_GID_INDEX" in names,
        "IPC_LOCK" in worker["securityContext"].get("capabilities", {}).get("add", []),
    )
    assert found == ((True,) * 4 if fabric == "erdma" else (False,) * 4)


def test_a_variable_of_the_document_wins_and_is_set_once() -> None:
    manifest = role_based_group(release("serving.env={MC_GID_INDEX: '2'}"), GroupOperator(V1ALPHA1, "s-"))
    values = [item["value"] for item in container(manifest, "prefill")["env"] if item["name"] == "MC_GID_INDEX"]
    assert values == ["2"]


def test_prefill_and_decode_agree_on_all_that_they_must() -> None:
    manifest = role_based_group(release(), GroupOperator(V1ALPHA1, "s-"))
    for name in ("--tp", "--model-path", "--served-model-name", "--disaggregation-bootstrap-port"):
        assert flag(manifest, "prefill", name) == flag(manifest, "decode", name) is not None
    assert container(manifest, "prefill")["image"] == container(manifest, "decode")["image"]


def test_no_container_is_privileged_and_no_pod_holds_a_token() -> None:
    manifest = role_based_group(release(), GroupOperator(V1ALPHA1, "s-"))
    for role in manifest["spec"]["roles"]:
        spec = template_of(role)["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        for found in spec["containers"]:
            assert found["securityContext"]["allowPrivilegeEscalation"] is False
            assert "privileged" not in found["securityContext"]
            assert all(mount.get("readOnly") for mount in found.get("volumeMounts", []) if mount["name"] == "model")


@pytest.mark.parametrize("document", ["reference", "demo", "tcp", "everything"])
def test_the_engine_takes_every_flag(document: str) -> None:
    """An unknown flag is a crash loop, an hour after the transfer began. The flags are those of SGLang 0.5.23."""
    manifest = role_based_group(DOCUMENTS[document], GroupOperator(V1ALPHA1, "s-"))
    prefill, decode = (parse_worker(container(manifest, role)["args"]) for role in ("prefill", "decode"))
    assert (prefill.mode, decode.mode) == ("prefill", "decode")
    assert prefill.tp_size == decode.tp_size == DOCUMENTS[document].service.serving.tensor_parallel
    assert prefill.metrics
    assert decode.metrics
    router = parse_router(container(manifest, "router")["args"])
    assert len(router.prefill) == DOCUMENTS[document].replicas["prefill"]
    assert {port for _, port in router.prefill} == {prefill.bootstrap_port}
    assert len(router.decode) == DOCUMENTS[document].replicas["decode"]


def test_a_flag_that_the_engine_lost_is_found() -> None:
    manifest = role_based_group(release("serving.args=[--disaggregation-decode-tp, '2']"), GroupOperator(V1ALPHA1, ""))
    with pytest.raises(UsageError, match="disaggregation-decode-tp"):
        parse_worker(container(manifest, "decode")["args"])


def test_fields_of_the_documents_pods_reach_the_pods() -> None:
    pod = "{nodeSelector: {pool: gpu}, tolerations: [{key: gpu, operator: Exists}], priorityClassName: serving}"
    found = release(f"serving.pod={pod}", "serving.decode.pod.priorityClassName=decode")
    roles = role_based_group(found, GroupOperator(V1ALPHA1, "s-"))["spec"]["roles"]
    specs = {role["name"]: role["template"]["spec"] for role in roles}
    for name, spec in specs.items():
        assert spec["nodeSelector"] == {"pool": "gpu"}, name
        assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
        assert spec["priorityClassName"] == ("decode" if name == "decode" else "serving")
