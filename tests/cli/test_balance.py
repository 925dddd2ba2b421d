"""`train.balance` and bags from the command to what is drawn and how it is weighed; nothing is trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from wsol.cli.config import ConfigError
from wsol.cli.train import train


@pytest.fixture
def handed(tiled, monkeypatch):
    """What `wsol train` hands to `fit`: the strategy, the labels and samples of an epoch, and its steps."""

    def run(source="images", *, keep="last", how=None, **model):
        seen = {}

        def fit(net, strategy, batches, *, steps, **options):
            drawn = list(batches(1, torch.Generator().manual_seed(0)))
            seen.update(strategy=strategy, steps=steps, drawn=drawn, labels=torch.cat([b.labels for b in drawn]).tolist())
            return []

        monkeypatch.setattr("wsol.training.fit", fit, raising=False)
        how = {"batch_size": 2, "tiles_per_bag": 3, "crop": 32, "color_jitter": 0.0, "stain_jitter": 0.0, **(how or {})}
        settings = {"weights": None, "name": "m", "train": how, **model}
        where = {"manifest": tiled / f"{source}.parquet", "out": tiled / "run", "parents": []}
        train(settings, fold=0, seed=0, tiles=tiled / "tiles", keep=[keep], threads=1, **where)
        return {**seen, "record": json.loads((tiled / "run" / "run.json").read_text())}

    return run


@pytest.mark.parametrize("source", ["images", "slides"])
def test_by_the_sampler_every_class_is_drawn_as_often(handed, source):
    seen = handed(source, how={"balance": "sampler"})
    assert np.bincount(seen["labels"]).tolist() == [6, 6]
    assert seen["steps"] == len(seen["drawn"]) == 6
    assert seen["strategy"].class_weights is None


@pytest.mark.parametrize("source", ["images", "slides"])
def test_by_the_loss_every_class_weighs_the_same(handed, source):
    seen = handed(source, how={"balance": "loss"})
    assert np.bincount(seen["labels"]).tolist() == [6, 2]
    assert seen["strategy"].class_weights.tolist() == pytest.approx([8 / 12, 2.0])
    plain = handed(source)
    assert (plain["strategy"].class_weights, plain["steps"]) == (None, 4)


def test_a_balance_that_cannot_be(handed):
    with pytest.raises(ValueError, match="balance: loss sets the class_weights of strategy 'classify'"):
        handed(how={"balance": "loss"}, strategy_options={"class_weights": [1.0, 2.0]})
    with pytest.raises(ValueError, match="class_weights of strategy 'negev', which has none"):
        handed(how={"balance": "loss"}, strategy="negev", head="decoded")
    with pytest.raises(ConfigError, match="'none', 'sampler' or 'loss'; got 'both'"):
        handed(how={"balance": "both"})


def test_repeats_draw_each_slide_again_with_other_tiles(handed):
    seen = handed("slides", how={"repeats": 3})
    tiles: dict[str, list[set[bytes]]] = {}
    for batch in seen["drawn"]:
        for bag, sample in enumerate(batch.samples):
            tiles.setdefault(sample, []).append({t.numpy().tobytes() for t in batch.images[batch.groups == bag]})
    assert sorted(len(draws) for draws in tiles.values()) == [3] * 8
    assert all(len(draw) == 3 for draws in tiles.values() for draw in draws)  # without replacement within a bag
    assert all(len(set.union(*draws)) > 3 for draws in tiles.values())  # and not the same bag again


def test_inheriting_is_said_in_the_badge_and_is_for_tiles_only(handed):
    assert handed("slides", strategy="inherit")["record"]["supervision"] == "slide label (inherited by tiles)"
    assert handed("slides")["record"]["supervision"] == "slide label"
    with pytest.raises(ValueError, match="for images take classify"):
        handed("images", strategy="inherit")
