from __future__ import annotations

import math
import subprocess
import sys

import pytest

from wsol.training import CHECKPOINTS, Criterion, criterion


def chosen(criterion, rows):
    """The index that is kept when epochs come by one after the other."""
    best = None
    for i, row in enumerate(rows):
        if criterion.better(row, None if best is None else rows[best]):
            best = i
    return best


def test_b_cl_breaks_ties_by_loss_then_by_the_earlier_epoch():
    rows = [(0.8, 0.1), (0.9, 0.5), (0.9, 0.3), (0.9, 0.3), (0.9, 0.4)]
    rows = [{"valcl_accuracy": a, "valcl_loss": b} for a, b in rows]
    assert chosen(CHECKPOINTS["b-cl"], rows) == 2
    assert chosen(Criterion("valcl_accuracy"), rows) == 1
    assert chosen(Criterion("valcl_loss", higher=False), rows) == 0
    assert chosen(CHECKPOINTS["last"], rows) == 4


def test_what_is_no_number_is_never_kept():
    rows = [{"map_stability": v} for v in (math.nan, 0.2, math.nan, 0.1)]
    assert chosen(CHECKPOINTS["label-free"], rows) == 1
    assert chosen(CHECKPOINTS["label-free"], rows[:1]) is None
    tied = [{"valcl_accuracy": 0.5, "valcl_loss": v} for v in (math.nan, 1.0)]
    assert chosen(CHECKPOINTS["b-cl"], tied) == 1


def test_missing_metric_names_the_nearest():
    with pytest.raises(ValueError, match="unknown validation metric 'valcl_accuracy'; did you mean 'val_accuracy'"):
        CHECKPOINTS["b-cl"].rank({"val_accuracy": 1.0})


def test_names_cost_no_torch():
    code = "import sys, wsol.training as t; t.CHECKPOINTS; t.STRATEGIES; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_ties_go_to_the_later_epoch_where_the_survey_wants_it():
    rows = [{"valcl_accuracy": a, "valcl_loss": loss} for a, loss in ((0.9, 0.1), (1.0, 0.2), (1.0, 0.5), (0.9, 0.1))]
    assert chosen(CHECKPOINTS["b-cl-survey"], rows) == 2
    assert chosen(CHECKPOINTS["b-cl"], rows) == 1


def test_any_number_of_masks_is_a_criterion():
    assert criterion("masks-12") == Criterion("valpx12_pxap", source="masks-12", masks=12)
    assert chosen(criterion("masks-6"), [{"valpx6_pxap": v} for v in (0.4, math.nan, 0.6, 0.6, 0.5)]) == 2
    for wrong in ("masks-0", "masks-", "masks-06", "masks-six", "masks-6-7"):
        with pytest.raises(ValueError, match=f"unknown checkpoint '{wrong}'.*masks-6"):
            criterion(wrong)
    with pytest.raises(ValueError, match="did you mean 'stain-stability'"):
        criterion("stain-stable")


def test_the_older_name_of_map_stability_stays():
    assert criterion("label-free") == criterion("map-stability")


def test_every_source_is_a_badge():
    from wsol.evaluation.protocol import ALLOWED, _pattern

    for name in (*CHECKPOINTS, "masks-12"):
        assert _pattern(criterion(name).source) in ALLOWED["checkpoint"], name
    unlabeled = {n for n, c in CHECKPOINTS.items() if c.source == "label-free"}
    assert not any((c.metric or "").startswith("val") for n, c in CHECKPOINTS.items() if n in unlabeled)
