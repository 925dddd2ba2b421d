"""The how-to pages are followed to the letter: their code runs, and what they say holds."""

from __future__ import annotations

import re
import sys
import textwrap
import types
from pathlib import Path

HOW_TO = Path(__file__).parents[1] / "docs" / "how-to"


def blocks(page: str) -> list[str]:
    """The Python of a page, block by block."""
    found = re.findall(r"^( *)```python\n(.*?)^\1```", (HOW_TO / page).read_text(), flags=re.M | re.S)
    return [textwrap.dedent(code) for _, code in found]


def test_a_cam_method_is_added_as_the_page_says(monkeypatch):
    from wsol import cams

    written, line, answer = blocks("add-a-cam.md")
    assert len(written.strip().splitlines()) < 30  # the promise of the page
    module = types.ModuleType("wsol.cams.elementwise")
    exec(compile(written, "elementwise.py", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "wsol.cams.elementwise", module)
    monkeypatch.setitem(cams.METHODS, "element-wise", "to be replaced by the line")  # so that it goes again
    exec(line, {"METHODS": cams.METHODS})
    exec(answer, {})


def test_a_head_is_added_as_the_page_says(monkeypatch):
    from wsol import models

    written, line, answer = blocks("add-a-head.md")
    assert len(written.strip().splitlines()) < 30
    module = types.ModuleType("wsol.models.heads.mixed")
    exec(compile(written, "mixed.py", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "wsol.models.heads.mixed", module)
    monkeypatch.setitem(models.HEADS, "mixed", "to be replaced by the line")  # so that it goes again
    exec(line, {"HEADS": models.HEADS})
    exec(answer, {})


def test_a_slide_is_cut_and_methods_are_sorted_as_the_page_says():
    reach, route = blocks("slide-heatmaps.md")
    names: dict[str, object] = {}
    exec(reach, names)
    exec(route, names)


def test_annotations_are_laid_on_tiles_as_the_page_says():
    (code,) = blocks("tiles-and-quality.md")
    exec(code, {})
