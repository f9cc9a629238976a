"""The prose check counts texts for people, and no code."""

from tests.support.prose import in_code, in_page, report

MODULE = '''
"""Nobody reads this."""
NOTHING = "nothing"  # somebody does
ARGUMENT = Argument(help="Everybody may `say` it.", default="whatever")
'''


def test_docstrings_comments_and_help_are_counted_and_names_and_strings_are_not() -> None:
    lines, within = report(in_code("module.py", MODULE), every=True)
    assert [line.split(":")[1] for line in lines if line.startswith("  module.py")] == ["2", "4", "3"]
    assert not within


def test_code_in_a_page_is_not_counted_and_keeps_the_lines() -> None:
    page = "# Page\n\n```\nnothing\n```\n\nIt shows `nothing`.\nIt says so.\n"
    lines, _ = report(in_page("page.md", page), every=True)
    assert [line.split()[0] for line in lines if line.startswith("  ")] == ["page.md:8:"]


def test_a_rate_within_every_limit_passes() -> None:
    assert report(in_page("page.md", "Slipway moves the model. " * 200 + "A 200 proves nothing."))[1]
