"""The pages lead somewhere: every relative link, and every file that the code or the map of the rooms names, exists."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.samples import ROOT

ROOMS = ("docs", "images", "manifests", "steps", "tests", "workflows", ".ci")
PAGES = sorted([*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))])
CODE = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)|src(?:set)?=\"([^\"]+)\"", re.MULTILINE)
_PAGE_IN_CODE = re.compile(r"(?<![/\w])docs/[\w./-]+\.(?:md|svg)")
_PATH_IN_TABLE = re.compile(r"`((?:steps|workflows|tests|manifests|images|docs)/[\w./-]*)`")


def _links(page: Path) -> Iterator[tuple[str, str]]:
    """(file or empty, anchor or empty) of each link that is no address."""
    for found in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        target = "".join(found)
        if "://" not in target:
            file, _, anchor = target.partition("#")
            yield file, anchor


def _anchors(page: Path) -> set[str]:
    """Anchors as GitHub makes them from headings, and those that are written out."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for file, anchor in _links(page):
        target = (page.parent / file) if file else page
        assert target.exists(), file
        assert not anchor or anchor in _anchors(target), f"{file}#{anchor}"


def test_every_page_that_the_code_names_exists() -> None:
    named = {(file.name, page) for file in CODE for page in _PAGE_IN_CODE.findall(file.read_text(encoding="utf-8"))}
    assert [(file, page) for file, page in sorted(named) if not (ROOT / page).exists()] == []


def test_every_path_of_the_map_in_the_architecture_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = _PATH_IN_TABLE.findall(page)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
