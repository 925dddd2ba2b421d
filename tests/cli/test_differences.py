"""Which method the others are compared with."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from wsol.cli.differences import WIDE, Arena, differences
from wsol.cli.main import app
from wsol.evaluation import count_pixels


def arena(methods):
    """`methods`: name -> how far its positives stand out, 0 for a map that says nothing; floors are named so."""
    generator = np.random.default_rng(0)
    made = Arena({"dataset": "d", "split": "test", "fold": 0, "seed": 0}, {})
    masks = {f"s{i}": generator.random((20, 20)) < 0.3 for i in range(6)}
    for name, strength in methods.items():
        made.counts[name] = {
            s: count_pixels((0.5 * generator.random((20, 20)) + 0.5 * strength * m).astype(np.float32), m)
            for s, m in masks.items()
        }
        made.thresholds[name] = dict.fromkeys(masks, 0.5)
        made.pxap[name] = strength
        if name.startswith("floor"):
            made.floors.add(name)
    made.patients = {s: s for s in masks}
    return made


def test_the_reference_is_the_best_trained_map_and_never_a_floor():
    table = differences(arena({"a of gap (b-cl)": 0.3, "b of gap (b-cl)": 0.6, "floor": 0.9}), 50)[0]
    assert table["reference"] == "b of gap (b-cl)"
    signs = {row["name"]: np.sign(row["mean"]) for row in table["rows"]}
    assert signs == {"a of gap (b-cl)": -1, "floor": 1}


def test_a_named_reference_is_taken_however_far_down_it_stands():
    many = {f"m{i} of gap (b-cl)": 0.9 - 0.02 * i for i in range(WIDE + 4)}
    last = f"m{WIDE + 3}"
    table = differences(arena(many), 5, reference=last)[0]
    assert table["reference"] == f"{last} of gap (b-cl)"
    assert len(table["rows"]) == WIDE - 1


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--maps", "a=x", "--maps", "a=y"], "given twice"), (["--maps", "a=x", "--threshold", "otsuu"], "did you mean 'otsu'")],
)
def test_slips_at_the_door_of_compare(tmp_path, words, says):
    (tmp_path / "s.csv").write_text("sample,mask,split\n")
    done = CliRunner().invoke(app, ["compare", "--sheet", str(tmp_path / "s.csv"), "--out", str(tmp_path / "o"), *words])
    assert says in str(done.exception)
