"""Nothing that a stranger posts reaches a template unless it has the shape of what it overrides."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steps.service import DocumentError
from tests.samples import service
from tests.workflows.expr_lang import ExprError, evaluate, text_of
from tests.workflows.rendered import LINES, objects, workflow_spec
from workflows.pipeline import OVERRIDES
from workflows.runs.submission import REASON, RUN_ID

CLAUSE = re.compile(r'(string\(fromJSON\(toJSON\(payload \?\? \{\}\)\)\["([a-z-]+)"\] \?\? ""\)) matches "([^"\\]+)"')


def _spec(argo: str = "3.5") -> dict[str, Any]:
    spec: dict[str, Any] = objects(argo)["WorkflowEventBinding"]["spec"]
    return spec


def _patterns() -> dict[str, re.Pattern[str]]:
    """Parameter -> pattern, from the rendered selector; in Go a dollar is the very end of the text."""
    return {
        name: re.compile(pattern.replace("$", r"\Z"))
        for _, name, pattern in CLAUSE.findall(_spec()["event"]["selector"])
    }


@pytest.mark.parametrize("argo", LINES)
def test_the_selector_is_the_name_of_the_service_and_one_clause_for_each_key_of_the_payload(argo: str) -> None:
    first, *clauses = _spec(argo)["event"]["selector"].split(" && ")
    assert first == 'discriminator == "qwen3-32b"'
    matches = [CLAUSE.fullmatch(clause) for clause in clauses]
    assert [match and match[2] for match in matches] == [*(item.parameter for item in OVERRIDES), REASON, RUN_ID]


@pytest.mark.parametrize("argo", LINES)
def test_what_is_passed_on_is_the_very_expression_that_was_checked(argo: str) -> None:
    checked = {name: expression for expression, name, _ in CLAUSE.findall(_spec(argo)["event"]["selector"])}
    passed = _spec(argo)["submit"]["arguments"]["parameters"]
    found = {parameter["name"]: parameter["valueFrom"]["event"] for parameter in passed}
    assert found == {name: expression for name, expression in checked.items() if name != RUN_ID}
    name = _spec(argo)["submit"]["metadata"]["name"]
    assert name == f'{checked[RUN_ID]} == "" ? "" : "qwen3-32b-" + {checked[RUN_ID]}'


def test_the_document_itself_cannot_come_in_by_this_door() -> None:
    assert "service" not in _patterns()


GOOD = [
    ("model-revision", "master"),
    ("model-revision", "v1.0"),
    ("model-revision", "feature/long-context"),
    ("model-revision", "0123456789abcdef0123456789abcdef01234567"),
    ("image", "registry.example.com:5000/llm/sglang-erdma:0.5.23"),
    ("image", "lmsysorg/sglang@sha256:" + "a" * 64),
    ("prefill-replicas", "1"),
    ("prefill-replicas", "64"),
    ("strategy", "BlueGreen"),
    ("strategy", "Recreate"),
    ("skip-unchanged", "true"),
    ("skip-unchanged", "false"),
]


@pytest.mark.parametrize(("parameter", "text"), GOOD)
def test_what_people_deploy_comes_in_and_the_document_takes_it(parameter: str, text: str) -> None:
    assert _patterns()[parameter].search(text)
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
    assert not _patterns()[parameter].search(text)


@pytest.mark.parametrize("text", ["0", "007", "1.5", "1e3", "100", "many"])
def test_a_number_of_workers_is_a_plain_number(text: str) -> None:
    assert not _patterns()["prefill-replicas"].search(text)


def test_an_absent_key_changes_nothing() -> None:
    for override in OVERRIDES:
        assert _patterns()[override.parameter].search("")
        assert service(f"{override.field}=") == service()


payloads = st.text(st.sampled_from("{}=aA19./:@-_ \n\"'$`\\[],#é")) | st.text()


@given(payloads, st.sampled_from(OVERRIDES))
@example("{{workflow.name}}", OVERRIDES[0])
def test_no_text_that_comes_in_can_hold_a_tag_or_leave_its_field(text: str, override: Any) -> None:
    if not _patterns()[override.parameter].search(text):
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
        "payload": json.loads(json.dumps(payload)),
    }


def _received(payload: Any) -> tuple[str, dict[str, str]] | None:
    """Name and parameters of the run that an event starts; None if the selector refuses its payload."""
    spec = _spec()
    if not evaluate(spec["event"]["selector"], _environment(payload)):
        return None
    parameters = {
        parameter["name"]: evaluate(parameter["valueFrom"]["event"], _environment(payload))
        for parameter in spec["submit"]["arguments"]["parameters"]
    }
    return evaluate(spec["submit"]["metadata"]["name"], _environment(payload)), parameters


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
        "reason": "merge of !42",
        "run-id": "1234-1",
        "other": {"x": [1]},
    }
    assert _received({**payload, "reason": "image 42 was built"}) == (
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
    assert _received(payload) is None  # an exclamation mark is not among the characters of a reason
    assert _received({}) == ("", dict.fromkeys([*(item.parameter for item in OVERRIDES), REASON], ""))
    assert _received(None) == _received({})


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


KEYS = [*(override.parameter for override in OVERRIDES), REASON, RUN_ID]
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
    received = _received(payload)
    if received is None:
        return
    name, parameters = received
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
        (3, "3"),
        (3.5, "3.5"),
        (1234567, "1.234567e+06"),
        (1e-7, "1e-07"),
        (True, "true"),
        ([1, "a"], "[1 a]"),
        ({"a": None}, "map[a:<nil>]"),
    ],
)
def test_what_is_no_text_becomes_one_as_in_go(value: Any, text: str) -> None:
    assert text_of(value) == text
