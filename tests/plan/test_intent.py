"""A run may change the service only while no other run promoted a release after it began."""

import pytest

from steps.objects.record import Entry, Record
from steps.rollout.intent import Intent
from tests.support.samples import release

ENTRY = Entry.of(release(), [])
NEWER = Record(ENTRY, promoted_at="2026-11-20T08:00:00+00:00", counter=5, run="nightly-8")


@pytest.mark.parametrize(
    ("intent", "found"),
    [
        (Intent("nightly-7", 5), NEWER),
        (Intent("nightly-7", 0), Record()),
        (Intent("nightly-8", 4), NEWER),  # it promoted itself, and is tried again
        (Intent("a step by hand on laptop, process 7", None), NEWER),  # a decision of a person about what is there now
    ],
)
def test_a_run_goes_on_while_no_other_run_promoted(intent: Intent, found: Record) -> None:
    assert intent.overtaken(found) == ""


@pytest.mark.parametrize("counter", [0, 1, 4])
def test_the_loser_is_told_which_run_won_what_it_promoted_and_when(counter: int) -> None:
    said = Intent("nightly-7", counter).overtaken(NEWER)
    assert said.startswith(f"nightly-8 promoted release {ENTRY.release} at 2026-11-20T08:00:00+00:00 after this run ")
    assert f"its counter was {counter} and is 5 now" in said
    assert said.endswith("Next: submit a new run")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Record(), "the release record was removed or restored"),
        (Record(ENTRY, counter=2, run="nightly-2"), "the release record was removed or restored"),
        (Record(ENTRY, counter=5), "the release record was removed or restored"),
        (
            Record(broken="the release record X cannot be read: y"),
            "the release record X cannot be read: y; another run",
        ),
        (Record(counter=5, run="nightly-8"), "nightly-8 promoted a release that cannot be read at an unknown time"),
    ],
)
def test_a_record_that_tells_no_winner_stops_the_run_too(found: Record, said: str) -> None:
    assert Intent("nightly-7", 3).overtaken(found).startswith(said)


def test_a_run_without_a_name_is_not_the_run_of_a_record_without_one() -> None:
    assert Intent("", 3).overtaken(Record(ENTRY, counter=4))
