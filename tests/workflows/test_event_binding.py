"""Nothing that a stranger posts reaches a template unless it has the shape of what it overrides."""

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steps.service import DocumentError
from tests.samples import service
from tests.workflows.rendered import LINES, objects
from workflows.pipeline import OVERRIDES

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
def test_the_selector_is_the_name_of_the_service_and_one_clause_for_each_override(argo: str) -> None:
    first, *clauses = _spec(argo)["event"]["selector"].split(" && ")
    assert first == 'discriminator == "qwen3-32b"'
    assert [CLAUSE.fullmatch(clause) is not None for clause in clauses] == [True] * len(OVERRIDES)


@pytest.mark.parametrize("argo", LINES)
def test_what_is_passed_on_is_the_very_expression_that_was_checked(argo: str) -> None:
    checked = {name: expression for expression, name, _ in CLAUSE.findall(_spec(argo)["event"]["selector"])}
    passed = _spec(argo)["submit"]["arguments"]["parameters"]
    assert {parameter["name"]: parameter["valueFrom"]["event"] for parameter in passed} == checked


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
]


@pytest.mark.parametrize(("parameter", "text"), GOOD)
def test_what_people_deploy_comes_in_and_the_document_takes_it(parameter: str, text: str) -> None:
    assert _patterns()[parameter].search(text)
    (override,) = (item for item in OVERRIDES if item.parameter == parameter)
    changed = service(f"{override.field}={text}").model_dump(by_alias=True)
    for part in override.field.split("."):
        changed = changed[part]
    assert str(changed) == text


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
