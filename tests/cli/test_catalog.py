"""`wsol list` shows what there is with its options, and the reference those of the sources."""

from __future__ import annotations

import json

import pytest

from wsol.cli.besides import list_
from wsol.cli.catalog import catalog
from wsol.cli.reference import reference
from wsol.data import SOURCES


def shown(capsys, what):
    """Name -> the lines of its options."""
    list_(what)
    found, name = {}, ""
    for line in capsys.readouterr().out.splitlines():
        if line.startswith(" "):
            found[name].append(line.strip())
        else:
            name = line.split()[0]
            found[name] = []
    return found


def test_options_stand_below_their_names_with_default_and_meaning(capsys):
    cams = shown(capsys, "cams")
    assert cams["cam"] == []
    assert cams["layer-cam"] == [
        "layers=null  `layers` are stages, the last by default",
        "gamma=2.0  `gamma` steepens the tanh of the fusion and is unused with one layer.",
    ]
    assert "window=1.0  a share of both sides of the image, in (0, 1]" in "\n".join(cams["sess"])
    strategies = shown(capsys, "strategies")
    assert strategies["has"][:2] == [
        "grid=32  side of a block in px.",
        "prob=0.5  probability of each block to be hidden, in [0, 1].",
    ]
    assert strategies["adl"][0].startswith("stages=[-3, -2, -1]  after which a layer stands")
    assert strategies["negev"][0].startswith("foreground=10  ")  # seeds are a key of the model, not an option
    assert any(line.startswith("bag_top=0.25  share of a bag's tiles") for line in shown(capsys, "heads")["gap"])
    assert shown(capsys, "sources")["images"][:2] == [
        "sheet (required)  the CSV.",
        "classes (required)  two names or more, as the `label` column has them.",
    ]
    assert [line.split("=")[0] for line in shown(capsys, "backbones")["vit_tiny"]] == ["output_stride", "freeze_bn"]
    assert not any(shown(capsys, "metrics").values())


@pytest.mark.parametrize("what", ["heads", "strategies", "cams", "sources", "backbones"])
def test_the_lists_are_json_and_every_option_has_its_meaning(what):
    rows = json.loads(json.dumps(catalog(what)))
    assert all(list(row["options"]) == list(row["meanings"]) for row in rows)
    assert any(row["options"] for row in rows)


def test_the_reference_has_the_options_of_every_source():
    page = reference()
    section = page.split("## `prepare.options` of source `slides`")[1].split("\n## ")[0]
    assert "| `sheet` | required | the CSV. |" in section
    assert '| `mask_means` | `"class"` | "class": masks mark the positive class;' in section
    assert "| `valpx` | `3` | validation slides per class whose masks may be opened" in section
    assert page.count("## `prepare.options` of source") == len(SOURCES)
