"""The pages agree with the code and with each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wsol.evaluation.protocol import ALLOWED, DEFECTS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_are_there(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert not missing


def test_every_how_to_is_linked_from_somewhere():
    linked = {(page.parent / link).resolve() for page in PAGES for link in re.findall(r"\]\(([^)#\s]+)", page.read_text())}
    lost = [page for page in PAGES if "docs" in page.parts and "decisions" not in page.parts and page.resolve() not in linked]
    assert not lost


def test_the_page_of_badges_knows_every_value():
    text = (ROOT / "docs/badges.md").read_text().lower()
    values = [value for name in ALLOWED for value in ALLOWED[name]] + list(DEFECTS)
    heads = {re.split(r" \(| on ", value)[0].removesuffix("-n").replace("shuffled slide label", "shuffled") for value in values}
    assert not [head for head in heads if head.replace("shuffled image label", "shuffled") not in text]
