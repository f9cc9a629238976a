"""The listing of the hub is checked before use."""

import hashlib
import json
from typing import Any

import pytest

from steps.adapters.modelscope.errors import UnusableAnswer
from steps.adapters.modelscope.listing import LISTING_LIMIT, listing_of
from steps.errors import Blocked
from steps.model import Listing, ModelFile

SHA = "b5f25c3d4e5f60718293a4b5c6d7e8f90123456789abcdef0123456789abcdef"
EMPTY = hashlib.sha256().hexdigest()

# Every field that the live service sends, in its types.
CAPTURED = {
    "Code": 200,
    "Data": {
        "Files": [
            {
                "CommitMessage": "upload",
                "CommittedDate": 1726665500,
                "CommitterName": "Cherrytest",
                "InCheck": False,
                "IsLFS": False,
                "Mode": "33188",
                "Name": ".gitattributes",
                "Path": ".gitattributes",
                "Revision": "4cfd8ef1d7e6f9d1c7f3a1c9f9d2f0a1b2c3d4e5",
                "Sha256": "11AD7EFA24975EE4B0C3C3A38ED18737F0658A5F75A0A96787B576A78A023361",
                "Size": 1519,
                "Type": "blob",
            },
            {"Name": "figures", "Path": "figures", "Sha256": "", "Size": 0, "Type": "tree", "Mode": "16384"},
            {
                "CommitMessage": "upload",
                "CommittedDate": 1726665606,
                "CommitterName": "Cherrytest",
                "InCheck": False,
                "IsLFS": True,
                "Mode": "33188",
                "Name": "model.safetensors",
                "Path": "model.safetensors",
                "Revision": "b1d0ef1d7e6f9d1c7f3a1c9f9d2f0a1b2c3d4e5f",
                "Sha256": SHA,
                "Size": 491400032,
                "Type": "blob",
            },
        ]
    },
    "Message": "success",
    "RequestId": "00000000-0000-0000-0000-000000000000",
    "Success": True,
}


def parsed(answer: Any, content_type: str = "application/json") -> Listing:
    return listing_of(json.dumps(answer).encode(), content_type, "owner/name@master")


def entry(path: Any = "config.json", **fields: Any) -> dict[str, Any]:
    return {"Path": path, "Type": "blob", "Size": 10, "Sha256": SHA, **fields}


def with_files(*entries: Any) -> dict[str, Any]:
    return {"Code": 200, "Success": True, "Data": {"Files": list(entries)}}


def test_a_listing_in_the_form_of_the_live_service_is_understood() -> None:
    assert parsed(CAPTURED).files == (
        ModelFile(".gitattributes", 1519, "11ad7efa24975ee4b0c3c3a38ed18737f0658a5f75a0a96787b576a78a023361"),
        ModelFile("model.safetensors", 491400032, SHA),
    )


def test_the_order_and_the_other_fields_of_a_listing_do_not_change_its_digest() -> None:
    one, other = entry("a", CommittedDate=1), entry("b", Revision="x")
    assert parsed(with_files(one, other)).digest == parsed(with_files(entry("b"), entry("a"))).digest


def test_an_empty_repository_is_an_empty_listing() -> None:
    assert parsed(with_files()).files == ()
    assert parsed({"Code": 200, "Data": {"Files": None}}).files == ()


def test_an_empty_file_is_a_file() -> None:
    assert parsed(with_files(entry("empty", Size=0, Sha256=EMPTY))).size == 0


@pytest.mark.parametrize("count", [LISTING_LIMIT, LISTING_LIMIT + 1])
def test_a_listing_at_the_limit_is_refused_because_more_may_be_missing(count: int) -> None:
    with pytest.raises(Blocked, match=f"listed {count} entries, and it stops at 3000"):
        parsed(with_files(*(entry(f"{number}.txt") for number in range(count))))


def test_folders_count_towards_the_limit() -> None:
    folders = ({"Path": f"d{number}", "Type": "tree"} for number in range(LISTING_LIMIT))
    with pytest.raises(Blocked, match="stops at 3000"):
        parsed(with_files(*folders))


def test_a_listing_just_below_the_limit_is_taken() -> None:
    assert len(parsed(with_files(*(entry(f"{number}.txt") for number in range(LISTING_LIMIT - 1)))).files) == 2999


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (entry("../escape"), r"'\.\./escape'"),
        (entry("/etc/passwd"), "'/etc/passwd'"),
        (entry("a\\b"), "a plain relative path"),
        (entry("a//b"), "'a//b'"),
        (entry(".slipway/manifest.json"), "'.slipway/manifest.json'"),
        (entry(""), "''"),
        (entry(None), "no Path"),
        ("text", "no Path"),
        (entry(Type="commit"), "unknown Type 'commit'"),
        (entry(Size=-1), "the Size -1"),
        (entry(Size="10"), "the Size '10'"),
        (entry(Size=True), "the Size True"),
        (entry(Size=None), "the Size None"),
        (entry(Sha256=""), "the Sha256 ''"),
        (entry(Sha256=None), "the Sha256 None"),
        (entry(Sha256=SHA[:40]), "expected 64 hex digits"),
        (entry(Size=0), "contradict each other"),
        (entry(Sha256=EMPTY), "contradict each other"),
    ],
)
def test_an_entry_that_cannot_be_trusted_refuses_the_whole_listing(wrong: Any, said: str) -> None:
    with pytest.raises(Blocked, match=said):
        parsed(with_files(entry("good.json"), wrong))


def test_a_path_that_is_listed_twice_is_refused() -> None:
    with pytest.raises(Blocked, match=r"'config\.json' is listed 2 times"):
        parsed(with_files(entry(), entry(Size=11)))


def test_a_path_that_is_a_file_and_a_folder_is_refused() -> None:
    with pytest.raises(Blocked, match="'a' is a file and a folder"):
        parsed(with_files(entry("a"), entry("a/b")))


def test_all_problems_are_told_at_once_but_not_without_end() -> None:
    with pytest.raises(Blocked, match=r"'x0'.*'x4'.* and 15 more"):
        parsed(with_files(*(entry(f"x{number}", Size=-1) for number in range(20))))


def test_a_200_that_says_not_found_is_an_absent_model() -> None:
    with pytest.raises(Blocked, match="is not at the hub"):
        parsed({"Code": 10010205001, "Message": "record not found", "Success": False})


@pytest.mark.parametrize(
    "answer",
    [
        {"Code": 10990101007, "Message": "busy", "Success": False},
        {"Code": 200, "Success": False, "Message": "no"},
        {"Code": 200, "Success": True},
        {"Code": 200, "Success": True, "Data": {"Files": "none"}},
        ["no", "listing"],
        None,
    ],
)
def test_a_200_without_a_listing_is_worth_another_attempt(answer: Any) -> None:
    with pytest.raises(UnusableAnswer):
        parsed(answer)


def test_a_web_page_is_not_a_listing() -> None:
    with pytest.raises(UnusableAnswer, match="expected a listing in JSON, found text/html"):
        listing_of(b"<html>sign in</html>", "text/html", "owner/name@master")
