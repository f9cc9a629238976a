"""Text from outside stays what it was for a person, and means nothing to Argo."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.reconcile.plain_text import SHOWN_INSTEAD, PlainStream, plain_bytes, plain_text

HOSTILE = st.text(st.sampled_from("{{{}}}==1+ a\\\"'\n\r\t\x00\a\x1b\x7f\x9bé€😀\ud83d\udc00\U000e0001\u200b\u202e"))
ANY = st.one_of(st.text(), HOSTILE, st.text(st.characters(codec=None)))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("{{=1+1}} and {{workflow.name}}", "{ {=1+1} } and { {workflow.name} }"),
        ("{{{{=1}}}}", "{ { { {=1} } } }"),
        ("{ {=1} }", "{ {=1} }"),
        ('{"Error": {"Code": 404}}', '{"Error": {"Code": 404} }'),
        ("\x1b[2J{\a{=1}}", f"{SHOWN_INSTEAD}[2J{{{SHOWN_INSTEAD}{{=1}} }}"),
        ("a half \ud83d of a file name", f"a half {SHOWN_INSTEAD} of a file name"),
        ("a tag \U000e0041, private \U000f0000", f"a tag {SHOWN_INSTEAD}, private {SHOWN_INSTEAD}"),
        ("Grüße, 你好 😀\n\tfertig\r\n", "Grüße, 你好 😀\n\tfertig\r\n"),
    ],
)
def test_a_tag_is_taken_apart_by_a_space_that_a_person_sees(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@given(ANY)
def test_no_pair_of_braces_is_left(text: str) -> None:
    assert "{{" not in plain_text(text)
    assert "}}" not in plain_text(text)


@given(ANY)
def test_what_is_plain_stays_as_it_is(text: str) -> None:
    assert plain_text(plain_text(text)) == plain_text(text)


@given(st.text(st.characters(exclude_categories=["C"], exclude_characters="{}")))
def test_a_text_without_braces_stays_as_it_is(text: str) -> None:
    assert plain_text(text) == text


@given(st.recursive(st.text('{}a="\\'), lambda inner: st.lists(inner) | st.dictionaries(st.just("a"), inner)))
def test_json_stays_json_of_the_same_shape(content: object) -> None:
    found = json.loads(plain_text(json.dumps(content)))
    assert json.dumps(found).replace(" ", "") == json.dumps(content).replace(" ", "")


@given(ANY, st.integers(40, 400))
def test_a_cut_keeps_both_ends_and_whole_characters(text: str, limit: int) -> None:
    found, whole = plain_bytes(text, limit), plain_text(text)
    assert len(found) <= limit
    if found.decode() != whole:
        head, tail = found.decode().rsplit(" … ", 1)
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert len(found) > limit - 8  # no more is lost than the rest of a character at either end


@given(HOSTILE, st.integers(40, 60), st.integers(1, 60), st.integers(1, 60))
def test_no_further_cut_makes_a_tag(text: str, limit: int, start: int, end: int) -> None:
    """The kubelet cuts what is too long for a pod, and takes the end of a log: at any byte."""
    cut = plain_bytes(text * 20, limit)[start:end].decode(errors="replace")
    assert "{{" not in cut
    assert "}}" not in cut


@given(st.lists(HOSTILE))
def test_a_stream_is_plain_however_it_was_written(pieces: list[str]) -> None:
    stream = io.StringIO()
    plain = PlainStream(stream)
    for piece in pieces:
        assert plain.write(piece) == len(piece)
    assert stream.getvalue() == plain_text("".join(pieces))
