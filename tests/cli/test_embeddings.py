"""A head trained on stored features is the one trained on pixels under a frozen backbone; the checkpoint is an ordinary one."""

from __future__ import annotations

import json

import pytest
import torch

from wsol.cli import train as verb
from wsol.cli.localize import localize
from wsol.data import MapReader, read_manifest
from wsol.models import load_checkpoint
from wsol.training import weights_hash


@pytest.fixture
def fitted(tiled, tmp_path):
    def run(out, source="slides", keep="b-cl", **how):
        model = {key: how.pop(key) for key in ("head", "head_options", "strategy", "output_stride") if key in how}
        settings = {
            "name": out, "weights": None, "head": "gap", **model,
            "train": {"epochs": 3, "batch_size": 2, "tiles_per_bag": 3, "bf16": False, "lr": 1e-3, "device": "cpu", **how},
        }  # fmt: skip
        where = {"manifest": tiled / f"{source}.parquet", "out": tmp_path / out, "tiles": tiled / "tiles", "parents": []}
        verb.train(settings, fold=0, seed=0, keep=[keep], threads=1, **where)
        return load_checkpoint(tmp_path / out / f"{keep}.safetensors"), (tmp_path / out / "history.csv").read_text()

    return run


@pytest.fixture
def frozen(monkeypatch):
    """Training on pixels without augmentation, and a backbone that does not learn."""
    build = verb.net_of

    def built(*args):
        net = build(*args)
        net.backbone.requires_grad_(False)
        return net

    monkeypatch.setattr(verb, "net_of", built)
    monkeypatch.setattr("wsol.data.train_transform", lambda *args, **options: None, raising=False)


@pytest.mark.parametrize(
    ("per", "model"),
    [
        ("cells", {"head": "gap", "head_options": {"dropout": 0.3}}),
        ("cells", {"head": "lse", "strategy": "inherit"}),
        ("tiles", {"head": "attention-mil", "head_options": {"gated": True, "dropout": 0.3}}),
    ],
)
def test_it_is_the_head_of_a_frozen_backbone(fitted, frozen, per, model):
    pixels, slow = fitted("pixels", **model)
    features, fast = fitted("features", embeddings=per, **model)
    assert weights_hash(pixels.backbone) == weights_hash(features.backbone)
    start = verb.net_of(verb.Model(weights=None, **model), 2, 0).head
    for (name, a), b, first in zip(pixels.head.named_parameters(), features.head.parameters(), start.parameters(), strict=True):
        # A mean of means is rounded another way, and AdamW makes whole steps of the smallest slopes.
        assert per == "tiles" or torch.allclose(a, b, atol=2e-5), name
        assert (a - b).abs().mean() < 0.01 * (b - first).abs().mean(), name
    columns = slow.splitlines()[0].split(",")
    taken = [columns.index(name) for name in ("train_loss", "valcl_accuracy", "valcl_loss")]
    for one, two in zip(slow.splitlines()[1:], fast.splitlines()[1:], strict=True):
        assert [float(one.split(",")[i]) for i in taken] == pytest.approx([float(two.split(",")[i]) for i in taken], abs=1e-4)


def test_everything_after_is_as_ever(fitted, tiled, tmp_path):
    fitted("mil", embeddings="tiles", head="attention-mil", output_stride=16)
    files = sorted((tiled / "tiles" / "embeddings").glob("*.h5"))
    times = [path.stat().st_mtime_ns for path in files]
    fitted("other", embeddings="tiles", head="gap", output_stride=16)
    assert [path.stat().st_mtime_ns for path in sorted((tiled / "tiles" / "embeddings").glob("*.h5"))] == times
    record = json.loads((tmp_path / "mil" / "run.json").read_text())
    assert (record["supervision"], record["net"]["head"]) == ("slide label", "attention-mil")
    sample = read_manifest(tiled / "slides.parquet").rows(0, "test")["sample"][0]
    localize(
        {"methods": [{"id": "cam", "method": "cam", "options": {}}]}, model=tmp_path / "mil" / "b-cl.safetensors",
        manifest=tiled / "slides.parquet", out=tmp_path / "maps.h5", split="test", fold=0, slide=sample,
        tiles=tiled / "tiles" / f"{sample}.parquet", threads=1,
    )  # fmt: skip
    with MapReader(tmp_path / "maps.h5") as reader:
        assert reader.read("cam", sample).array.shape == (6, 8)  # 96 x 128 px in cells of 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "images"}, "only tiles of slides can be encoded once"),
        ({"strategy": "has"}, "strategy 'has' needs pixels; take one of classify, inherit"),
        ({"head": "spg"}, "head 'spg' reads every stage"),
        ({"head": "max", "embeddings": "tiles"}, "head 'max' reads single cells; set embeddings: cells"),
        ({"keep": "map-stability"}, r"checkpoints \['map-stability'\] look at maps of pixels"),
    ],
)
def test_what_needs_more_than_features_is_refused(fitted, change, message):
    with pytest.raises(ValueError, match=message):
        fitted("none", **{"embeddings": "cells", **change})
