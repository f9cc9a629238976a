"""Nothing that a stranger posts reaches a template unless it has the shape of what it overrides."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steps.document.overrides import OVERRIDES
from steps.errors import DocumentError
from tests.support.expr_lang import ExprError, evaluate, received, text_of
from tests.support.rendered import VERSIONS, objects, workflow_spec
from tests.support.samples import RECORDED, service
from workflows.argo.events import KEYS
from workflows.runs.submission import REASON, RUN_ID, cleaned


def _spec(argo: str = "3.5") -> dict[str, Any]:
    spec: dict[str, Any] = objects(argo)["WorkflowEventBinding"]["spec"]
    return spec


def _expressions(argo: str = "3.5") -> dict[str, str]:
    """Parameter, or `run-id`, -> expression."""
    submit = _spec(argo)["submit"]
    found = {parameter["name"]: parameter["valueFrom"]["event"] for parameter in submit["arguments"]["parameters"]}
    return {**found, RUN_ID: submit["metadata"]["name"]}


def _received_value(parameter: str, value: Any) -> str | None:
    """What a parameter becomes; None if the payload is refused."""
    try:
        return str(evaluate(_expressions()[parameter], _environment({parameter: value})))
    except ExprError:
        return None


@pytest.mark.parametrize("argo", VERSIONS)
def test_every_event_for_the_service_is_either_refused_where_the_sender_sees_it_or_starts_a_run(argo: str) -> None:
    """A selector that does not match is answered with 200, so it asks for the name alone."""
    assert _spec(argo)["event"]["selector"] == 'discriminator == "qwen3-32b"'
    assert set(_expressions(argo)) == set(KEYS)


def test_the_document_itself_cannot_come_in_by_this_door() -> None:
    assert "service" not in KEYS
    with pytest.raises(ExprError, match="unknown keys service; allowed are model-revision, image, "):
        _received({"service": "kind: ModelService"})


GOOD = [
    ("model-revision", "master"),
    ("model-revision", "v1.0"),
    ("model-revision", "feature/long-context"),
    ("model-revision", "0123456789abcdef0123456789abcdef01234567"),
    ("image", "registry.example.com:5000/llm/sglang-erdma:0.5.23"),
    ("image", "lmsysorg/sglang:v0.5.23-cu126@sha256:" + "a" * 64),
    ("prefill-replicas", "1"),
    ("prefill-replicas", "64"),
    ("strategy", "BlueGreen"),
    ("strategy", "Recreate"),
    ("skip-unchanged", "true"),
    ("skip-unchanged", "false"),
]


@pytest.mark.parametrize(("parameter", "text"), GOOD)
def test_what_people_deploy_comes_in_and_the_document_takes_it(parameter: str, text: str) -> None:
    assert _received_value(parameter, text) == text
    (override,) = (item for item in OVERRIDES if item.parameter == parameter)
    changed = service(f"{override.field}={text}").model_dump(by_alias=True)
    for part in override.field.split("."):
        changed = changed[part]
    assert text in (str(changed), json.dumps(changed))


BAD = [
    "{{workflow.parameters.service}}",
    "{{=sprig.env('HOME')}}",
    "a{{b",
    "a b",
    "a\n",
    "\n",
    "a\x00",
    "$(id)",
    "`id`",
    'a"b',
    "a'b",
    "a#b",
    "a,b",
    "[a]",
    "--outputs=/",
    "-1",
    "../../etc",
    "map[a:b]",  # what `string` makes of an object
    "<nil>",
    "a" * 600,
    "\u200b",
    "\uff5b\uff5b",
]


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("parameter", [override.parameter for override in OVERRIDES])
def test_anything_else_stays_outside(parameter: str, text: str) -> None:
    assert _received_value(parameter, text) is None


@pytest.mark.parametrize("text", ["0", "007", "1.5", "1e3", "100", "many"])
def test_a_number_of_workers_is_a_plain_number(text: str) -> None:
    assert _received_value("prefill-replicas", text) is None


def test_an_absent_key_changes_nothing() -> None:
    for override in OVERRIDES:
        assert _received_value(override.parameter, "") == ""
        assert service(f"{override.field}=") == service()


payloads = st.text(st.sampled_from("{}=aA19./:@-_ \n\"'$`\\[],#é")) | st.text()


@given(payloads, st.sampled_from(OVERRIDES))
@example("{{workflow.name}}", OVERRIDES[0])
def test_no_text_that_comes_in_can_hold_a_tag_or_leave_its_field(text: str, override: Any) -> None:
    if _received_value(override.parameter, text) is None:
        return
    assert not set(text) & set("{}\n\"'$` \\")
    try:
        changed = service(f"{override.field}={text}").model_dump(by_alias=True)
    except DocumentError:
        return  # such as `a:`, which is YAML for a section; the first step says so
    before = service().model_dump(by_alias=True)
    for part in override.field.split(".")[:-1]:
        changed, before = changed[part], before[part]
    last = override.field.rpartition(".")[2]
    assert text in ("", str(changed[last]))
    assert {**changed, last: None} == {**before, last: None}


def _environment(payload: Any) -> dict[str, Any]:
    """What Argo Server lets an expression see, after its own way there and back through JSON."""
    return {
        "discriminator": "qwen3-32b",
        "namespace": "slipway",
        "metadata": {},
        "payload": received(payload),
    }


def _received(payload: Any) -> tuple[str, dict[str, str]]:
    """Name and parameters of the run that an event starts. Raises ExprError if it is refused."""
    environment = _environment(payload)
    values = {name: evaluate(expression, environment) for name, expression in _expressions().items()}
    return values.pop(RUN_ID), values


def _substituted(spec: Any, parameters: Mapping[str, str]) -> str:
    """The way of Argo: what is pasted is escaped for JSON and for nothing else."""
    text = json.dumps(spec)
    for name, value in parameters.items():
        text = text.replace(f"{{{{workflow.parameters.{name}}}}}", json.dumps(value)[1:-1])
    return text


def test_an_event_starts_a_run_with_its_overrides_its_reason_and_its_name() -> None:
    payload = {
        "image": "a/b:1",
        "prefill-replicas": 3,
        "skip-unchanged": False,
        "reason": "image 42 was built",
        "run-id": "1234-1",
    }
    assert _received(payload) == (
        "qwen3-32b-1234-1",
        {
            "model-revision": "",
            "image": "a/b:1",
            "prefill-replicas": "3",
            "strategy": "",
            "skip-unchanged": "false",
            "reason": "image 42 was built",
        },
    )
    assert _received({}) == ("", dict.fromkeys([*(item.parameter for item in OVERRIDES), REASON], ""))
    assert _received(None) == _received({})


@pytest.mark.parametrize(
    ("number", "digits"), [(20261127, "20261127"), (1234567, "1234567"), (12345678901, "12345678901")]
)
def test_a_whole_number_arrives_as_its_digits(number: int, digits: str) -> None:
    """Unquoted, as YAML and shells write it: GITHUB_RUN_ID, CI_JOB_ID, a date as a branch."""
    assert _received_value("model-revision", number) == digits
    assert _received_value(RUN_ID, number) == f"qwen3-32b-{digits}"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model-revision", 1.10, "model-revision: found !1.1, expected a text that matches"),
        ("model-revision", 10**20, "model-revision: found !"),
        ("model-revision", True, "model-revision: found !true"),
        ("image", ["a"], "image: found !"),
        ("image", "no image", "image: found no image, expected a text that matches"),
        ("prefill-replicas", 2.5, "prefill-replicas: found !2.5"),
        ("skip-unchanged", "yes", "skip-unchanged: found yes"),
        ("run-id", "An ID", "run-id: found An ID"),
        ("model_revision", "v9", "unknown keys model_revision; allowed are model-revision, image"),
    ],
)
def test_what_would_deploy_something_else_is_refused_with_key_and_value(key: str, value: Any, words: str) -> None:
    with pytest.raises(ExprError, match=re.escape(words)):
        _received({key: value})


@pytest.mark.parametrize(
    ("reason", "title"),
    [
        ("fix: router (hotfix), see #12!", "fix: router  hotfix   see #12 "),
        ("caf\u00e9 & \u65e5", "caf     "),
        ("{{=1+1}}", "   1+1  "),
        ("x" * 200, "x" * 80),
        (42, "42"),
        ("a\nb", "a b"),
    ],
)
def test_a_reason_is_cut_and_cleaned_and_never_keeps_a_run_from_starting(reason: Any, title: str) -> None:
    assert _received_value(REASON, reason) == title
    if isinstance(reason, str):
        assert cleaned(reason) == title  # as `submit` does it


ANSWERS = json.loads((RECORDED / "argo" / "expr.json").read_text(encoding="utf-8"))


def test_what_the_real_library_answered_was_recorded_for_the_expressions_of_today() -> None:
    assert ANSWERS["expressions"] == _expressions()


@pytest.mark.parametrize("row", ANSWERS["answers"], ids=lambda row: f"{row['key']}={json.dumps(row['payload'])[:50]}")
def test_our_reading_of_an_expression_is_that_of_the_real_library(row: dict[str, Any]) -> None:
    environment = _environment(row["payload"])
    if row["refused"]:
        with pytest.raises(ExprError) as refusal:
            evaluate(_expressions()[row["key"]], environment)
        if row["refused"].startswith(f"invalid operation: int({row['key']}:"):
            assert str(refusal.value).startswith(row["refused"])
    else:
        assert evaluate(_expressions()[row["key"]], environment) == row["value"]


@pytest.mark.parametrize("payload", [[], ["image"], "text", 3, True])
def test_a_payload_that_is_no_object_starts_nothing(payload: Any) -> None:
    with pytest.raises(ExprError):
        _received(payload)


def test_an_event_for_another_service_starts_nothing_here() -> None:
    assert not evaluate(_spec()["event"]["selector"], {**_environment({}), "discriminator": "another"})


def test_a_run_that_ci_started_says_so() -> None:
    assert {key: evaluate(value, {}) for key, value in _spec()["submit"]["metadata"]["labels"].items()} == {
        "slipway/trigger": "ci"
    }


INJECTIONS = [
    "{{workflow.name}}",
    "{{=1}}",
    "{{= sprig.env('A') }}",
    "a\nb: c",
    "x}}{{y",
    '"}',
    "a: b",
    "- a",
    "!!x",
    "&a",
]
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
words = payloads | st.sampled_from(INJECTIONS) | st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._/:@-]{0,20}\Z")
values = st.recursive(
    words | scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)
events = st.dictionaries(st.sampled_from(KEYS) | words, values, max_size=6)


@given(events)
@example({"image": "{{workflow.parameters.service}}"})
@example({"reason": "a\nworkflows.argoproj.io/title: b"})
@example({"reason": ["{{=1}}"], "run-id": {"{{": "}}"}})
@example({"run-id": "x\n"})
@example({"model-revision": 1e300, "image": -0.0})
def test_no_payload_brings_a_tag_a_line_or_yaml_into_a_template(payload: dict[str, Any]) -> None:
    try:
        name, parameters = _received(payload)
    except ExprError:
        return
    assert name == "" or re.fullmatch(r"qwen3-32b-[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?", name)
    empty = _substituted(workflow_spec("3.5"), dict.fromkeys(parameters, ""))
    pasted = _substituted(workflow_spec("3.5"), parameters)
    tag = re.compile(r"\{\{.*?\}\}|\{\{|\}\}")
    assert tag.findall(pasted) == tag.findall(empty)  # nothing that Argo would still replace came in
    assert _shape(json.loads(pasted)) == _shape(json.loads(empty))
    for text in parameters.values():
        assert not set(text) & set("{}\n\r\"'$`\\\u2028\u2029\x85")


def _shape(content: Any) -> Any:
    """What is left when texts are all alike: nothing became a key, an item or a line."""
    if isinstance(content, dict):
        return {key: _shape(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_shape(item) for item in content]
    return str(content).count("\n") if isinstance(content, str) else content


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (3.5, "3.5"),
        (1234567.0, "1.234567e+06"),
        (1e-7, "1e-07"),
        (True, "true"),
        ([1.0, "a"], "[1 a]"),
        ({"a": None}, "map[a:<nil>]"),
    ],
)
def test_what_is_no_text_becomes_one_as_in_go(value: Any, text: str) -> None:
    assert text_of(value) == text
