"""What a run may override, what is in force of it, and how one task hands it to the next."""

import re
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steps.document import overrides
from steps.document.overrides import OVERRIDES, InForce, OverridesText, as_text, of_text
from steps.errors import DocumentError
from tests.support.samples import wanted

(TEXT,) = get_args(OverridesText)[1:]
STICKY = [override for override in OVERRIDES if override.sticky]
RUNS = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,252}", fullmatch=True)


@st.composite
def in_force(draw: st.DrawFn) -> tuple[InForce, ...]:
    found = []
    for override in STICKY:
        allowed = st.from_regex(re.compile(override.pattern, re.ASCII), fullmatch=True)
        value = draw(allowed.filter(lambda text: "\n" not in text))
        if value not in ("", overrides.DOCUMENT):
            found.append(InForce(override.parameter, value, draw(RUNS)))
    return tuple(found)


@given(in_force())
def test_the_next_task_reads_what_the_first_one_wrote(found: tuple[InForce, ...]) -> None:
    text = as_text(found)
    assert of_text(text) == found
    assert TEXT.fullmatch(text)  # so Argo may paste it
    assert len(text) < 2048


@given(st.text(alphabet="document,=~ae1./:@{}\n -"))
@example("image=a~b,")
@example("image=document~b")
@example("")
def test_another_text_is_refused_in_words(text: str) -> None:
    try:
        found = of_text(text)
    except ValueError as error:
        assert str(error)  # noqa: PT017  # most texts are refused, and the others are what was written
    else:
        assert as_text(found) == text


def test_whether_the_schedule_keeps_it_is_said_of_every_parameter() -> None:
    assert [override.parameter for override in STICKY] == ["model-revision", "image", "prefill-replicas", "strategy"]
    for override in STICKY:
        assert re.fullmatch(override.pattern, overrides.DOCUMENT)
        assert "`document` means as in the document" in override.does


@pytest.mark.parametrize("text", ["image", "immage=a:1", "image=a b", "strategy=Canary", "skip-unchanged=document"])
def test_a_wrong_parameter_is_named_with_what_is_expected(text: str) -> None:
    with pytest.raises(DocumentError, match=rf"the parameter '?{re.escape(text.partition('=')[0])}.*expected"):
        overrides.given((text,))


def test_a_value_that_the_document_has_as_well_is_no_override() -> None:
    """So that it needs no reset, and a run that says what is there anyway is as quiet as the schedule."""
    document = wanted().resolve().service
    for text in (f"image={document.serving.image}", "prefill-replicas=2", "strategy=BlueGreen"):
        assert wanted(text).resolve((InForce("image", "a:0.5.24", "demo-c1"),)).overrides == (
            () if text.startswith("image") else (InForce("image", "a:0.5.24", "demo-c1"),)
        )


def test_an_edit_by_hand_wins_over_what_is_inherited() -> None:
    inherited = (InForce("image", "a:0.5.24", "demo-c1"),)
    assert wanted(sets=("serving.image=b:0.5.25",)).resolve(inherited).service.serving.image == "b:0.5.25"


def test_skip_unchanged_is_for_one_run() -> None:
    resolved = wanted("skip-unchanged=false").resolve()
    assert (resolved.service.workflow.skip_unchanged, resolved.overrides) == (False, ())


def test_a_revision_or_image_called_document_can_be_had_by_the_document_alone() -> None:
    wants = wanted("model-revision=document", sets=("model.revision=document",))
    assert wants.resolve().service.model.revision == "document"
    assert wanted("model-revision=document").resolve().service.model.revision == "master"
