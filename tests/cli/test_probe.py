"""Nets whose answer is known stand before a few tiny images and tiles; what the probe writes has to be that answer."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from wsol.cli import probing
from wsol.cli.config import Prepare
from wsol.cli.prepare import prepare
from wsol.cli.probe import probe
from wsol.cli.probing import Probed, summary, win_rates
from wsol.cli.specimens import deal, specimens, spread
from wsol.data import read_manifest, read_masks
from wsol.models import build_localizer, save_checkpoint

METHODS = [{"id": "cam", "method": "cam", "options": {}}, {"id": "gc", "method": "grad-cam", "options": {}}]
ALL = ["insertion", "deletion", "road", "average-drop", "average-increase", "win-rate", "adcc", "saliency-metric"]
KEY = {"dataset": "tiny", "model": "gap", "checkpoint": "b-cl", "set": "fast", "split": "test", "fold": 0, "seed": 0}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One thread, and curves of four steps."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(probing, "STEPS", 4)
    yield
    torch.set_num_threads(before)


def net(seed, head=1.0):
    made = build_localizer("efficientnet_lite0", "gap", 2, weights=None, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        made.head.weight.mul_(head)
    return made.eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Ten images of 80 x 100 px: test holds six of three patients, two of each label with a mask; and two checkpoints."""
    root = tmp_path_factory.mktemp("probe")
    generator = np.random.default_rng(0)
    rows = []
    for i in range(10):
        label = "tumor" if i % 2 else "normal"
        image = generator.integers(120, 255, (80, 100, 3), dtype=np.uint8)
        mask = np.zeros((80, 100), np.uint8)
        mask[20:60, 30:70] = 255
        image[mask > 0] //= 2
        Image.fromarray(image).save(root / f"i{i}.png")
        Image.fromarray(mask).save(root / f"m{i}.png")
        split = "train" if i < 2 else "val" if i < 4 else "test"
        rows.append([f"i{i}", f"i{i}.png", label, f"p{i // 2}", f"m{i}.png" if label == "tumor" else "", split])
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "mask", "split"], *rows])
    options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"]}
    prepare(Prepare(name="tiny", source="images", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    save_checkpoint(net(5), root / "net.safetensors")
    save_checkpoint(net(5, head=0.0), root / "blank.safetensors")
    return root


def probed(root, settings, model="net", **where):
    out = root / "probe.json"
    given = {"methods": METHODS, "map_class": "positive", "samples": 2, "size": 64, "faithfulness": [], "sanity": [], **settings}
    given.setdefault("device", "cpu")
    files = {"model": root / f"{model}.safetensors", "manifest": root / "m.parquet", "masks": None, **where}
    probe(given, key=KEY, out=out, **files)
    return json.loads(out.read_text())


def test_a_classifier_that_knows_nothing_has_the_closed_forms(root):
    found = probed(root, {"faithfulness": ALL}, "blank")
    for facts in [m["faithfulness"] for m in found["methods"].values()] + list(found["control_faithfulness"].values()):
        values = {name: one["value"] for name, one in facts.items() if name not in ("saliency-metric", "win-rate")}
        assert values.pop("insertion") == pytest.approx(0.5)
        assert values.pop("deletion") == pytest.approx(0.5)
        assert values.pop("road") == pytest.approx(0)
        assert (values.pop("average-drop"), values.pop("average-increase")) == (0, 0)
        adcc = values.pop("adcc")
        assert not values
        assert all(one["samples"] == 2 for name, one in facts.items() if name not in ("saliency-metric", "win-rate"))
        assert facts["insertion"]["interval"] == pytest.approx([0.5, 0.5])
        assert facts["insertion"]["curves"]["insertion"]["y"] == pytest.approx([0.5] * 5)
    assert found["methods"]["cam"]["faithfulness"]["adcc"]["value"] == 0  # a blank map has no coherency
    assert found["methods"]["cam"]["faithfulness"]["adcc"]["parts"]["coherency"]["value"] is None
    assert found["methods"]["cam"]["faithfulness"]["saliency-metric"] == {
        "value": None, "interval": [None, None], "samples": 0, "better": "lower",
        "curves": {"saliency-metric": {"x": pytest.approx(np.arange(1, 10) / 10), "y": [None] * 9}},
    }  # fmt: skip
    assert adcc > 0  # the principal component is coherent and drops nothing
    assert found["win_rate"] == {"cam": {"gc": 0}, "gc": {"cam": 0}}
    assert found["methods"]["cam"]["faithfulness"]["win-rate"]["value"] == 0
    assert [row["probability"] for row in found["samples"]] == [0.5] * 2


def test_sanity_of_controls_and_methods(root):
    found = probed(root, {"sanity": ["cascading", "independent"]}, shuffled=root / "net.safetensors")
    names = ["head", "stage-4", "stage-3", "stage-2", "stage-1", "stem"]
    assert list(found["controls"]) == ["edges", "principal-component"]
    for order in ("cascading", "independent"):
        edges, component = (found["controls"][c][order] for c in found["controls"])
        assert edges["blocks"] == names
        assert edges["verdict"] == component["verdict"] == "fails"
        for measure in ("spearman", "absolute", "ssim", "hog"):
            assert edges[measure] == pytest.approx([1] * 6)
            assert component[measure][0] == pytest.approx(1)
        assert component["spearman"][1] < 0.95
        cam, grad_cam = (found["methods"][m]["sanity"][order] for m in ("cam", "gc"))
        assert cam["spearman"] == pytest.approx(grad_cam["spearman"])  # a GAP head: one map up to a factor
        assert cam["spearman"][0] < 0.95
        assert cam["undefined"] == 0
    labels = found["methods"]["cam"]["sanity"]["labels"]  # the net itself in the place of one trained on shuffled labels
    assert (labels["spearman"], labels["ssim"], labels["verdict"]) == (pytest.approx(1), pytest.approx(1), "fails")


def test_a_blank_map_is_undefined_not_alike(root):
    cam = probed(root, {"sanity": ["independent"]}, "blank")["methods"]["cam"]["sanity"]["independent"]
    assert cam["spearman"] == [None] * 6
    assert (cam["undefined"], cam["verdict"]) == (12, "undefined")


def test_pointing_games_open_masks_and_say_so(root):
    found = probed(root, {"faithfulness": ["pointing-game", "energy-pointing-game"]}, masks=root / "k.parquet")
    assert found["masks_opened"] == 1  # one of each label: the other has none, or is known to be empty
    assert found["methods"]["cam"]["faithfulness"]["energy-pointing-game"]["samples"] == 1
    assert probed(root, {"faithfulness": ["average-drop"]}, masks=root / "k.parquet")["masks_opened"] == 0
    with pytest.raises(ValueError, match=r"pointing-game asks .* give --masks"):
        probed(root, {"faithfulness": ["pointing-game"]})


def test_the_same_seed_gives_the_same_file_and_the_seed_of_training_no_old_weights(root):
    settings = {"methods": METHODS[:1], "faithfulness": ["deletion", "road"], "sanity": ["cascading"], "samples": 1}
    first, second = (probed(root, settings) for _ in range(2))
    for found in (first, second):
        found["provenance"].pop("created")
    assert first == second
    save_checkpoint(net(0), root / "untrained.safetensors")  # as training with seed 0 began
    assert (
        probed(root, {**settings, "faithfulness": []}, "untrained")["methods"]["cam"]["sanity"]["cascading"]["spearman"][0] < 0.95
    )


def test_deleted_pixels_become_what_was_asked_for(root):
    found = {
        fill: probed(root, {"methods": METHODS[:1], "samples": 1, "faithfulness": ["deletion"], "fill": fill})
        for fill in ("mean", "blur", "normalized-zero")
    }
    ends = {fill: one["methods"]["cam"]["faithfulness"]["deletion"]["curves"]["deletion"]["y"][-1] for fill, one in found.items()}
    assert len(set(ends.values())) == 3
    with torch.inference_mode():
        gray = torch.full((1, 3, 64, 64), 127 / 255)
        expected = torch.softmax(net(5)(gray).logits, 1)[0, 1]
    assert ends["normalized-zero"] == pytest.approx(float(expected), abs=1e-5)
    with pytest.raises(ValueError, match="did you mean 'blur'"):
        probed(root, {"faithfulness": ["deletion"], "fill": "blurr"})


def test_wrong_names_say_what_is_known(root):
    with pytest.raises(ValueError, match="did you mean 'insertion'"):
        probed(root, {"faithfulness": ["insert"]})
    with pytest.raises(ValueError, match="did you mean 'cascading'"):
        probed(root, {"sanity": ["cascade"]})
    with pytest.raises(ValueError, match="did you mean 'positive'"):
        probed(root, {"map_class": "positiv"})
    with pytest.raises(ValueError, match=r"\['edges'\] are names of controls"):
        probed(root, {"methods": [{"id": "edges", "method": "cam", "options": {}}]})


def rows(*specs):
    return pd.DataFrame([{"sample": s, "label": label, "patient": p, "slide": s} for s, label, p in specs])


def test_samples_take_turns_between_labels_and_patients():
    table = rows(*[(f"a{i}", 0, "p0") for i in range(5)], ("b", 0, "p1"), ("c", 1, "p2"), ("d", 1, "p2"))
    for seed in range(5):
        chosen = spread(table, seed)
        assert [r.label for r in chosen] == [0, 1, 0, 1, 0, 0, 0, 0]
        assert {r.patient for r in chosen[:4] if r.label == 0} == {"p0", "p1"}
        assert [r.sample for r in spread(table.sample(frac=1, random_state=seed), seed)] == [r.sample for r in chosen]
    assert len({tuple(r.sample for r in spread(table, seed)) for seed in range(5)}) > 1


def test_tiles_are_dealt_one_of_each_slide_before_the_second():
    hands = {"a": [1, 2, 3], "b": [], "c": [4]}
    slides = [SimpleNamespace(sample=s) for s in hands]
    dealt = [(row.sample, part) for row, part in deal(slides, lambda row: hands[row.sample], 9)]
    assert dealt == [("a", 1), ("c", 4), ("a", 2), ("a", 3)]
    opened = []
    assert len(deal(slides, lambda row: opened.append(row.sample) or hands[row.sample], 1)) == 1
    assert opened == ["a"]  # no table is read that is not needed


def test_an_image_is_its_middle_at_its_own_resolution(root):
    listing, truth = read_manifest(root / "m.parquet"), read_masks(root / "k.parquet")
    found = specimens(listing, split="test", fold=0, samples=9, size=70, seed=0, tiles=None, truth=truth)
    assert sorted(s.name for s in found) == [f"i{i}" for i in range(4, 10)]
    for one in found:
        pixels = np.asarray(Image.open(root / f"{one.name}.png"))[8:72, 18:82]
        np.testing.assert_allclose(one.image, pixels.transpose(2, 0, 1) / 255, atol=1e-6)
        if one.label:
            np.testing.assert_array_equal(one.mask, np.asarray(Image.open(root / f"m{one.name[1:]}.png"))[8:72, 18:82] > 0)
        else:
            assert one.mask is None or not one.mask.any()


def test_a_slide_gives_tiles(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(6):
        pixels = np.kron(generator.integers(60, 200, (4, 4, 3), dtype=np.uint8), np.ones((64, 64, 1), np.uint8))
        resolution = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(tmp_path / f"s{i}.tiff", pixels, tile=(64, 64), photometric="rgb", compression="zlib", **resolution)
        Image.fromarray(np.kron(generator.random((4, 4)) < 0.5, np.ones((64, 64), bool)).astype(np.uint8)).save(
            tmp_path / f"k{i}.png"
        )
        table = pd.DataFrame({"x": [0, 128, 64], "y": [64, 128, 0], "width": 128, "height": 128})
        table.attrs = {"tile_px": 64, "mpp": 1.0, "side": 128}
        table.to_parquet(tmp_path / f"s{i}.parquet")
    lines = [f"s{i},s{i}.tiff,{'ab'[i % 2]},p{i},k{i}.png,{s}" for i, s in enumerate(["train"] * 2 + ["val"] * 2 + ["test"] * 2)]
    (tmp_path / "sheet.csv").write_text("\n".join(["sample,path,label,patient,mask,split", *lines]))
    options = {"sheet": str(tmp_path / "sheet.csv"), "classes": ["a", "b"]}
    prepare(Prepare(name="x", source="slides", options=options), manifest=tmp_path / "m.parquet", masks=tmp_path / "k.parquet")
    listing, truth = read_manifest(tmp_path / "m.parquet"), read_masks(tmp_path / "k.parquet")
    where = {"split": "test", "fold": 0, "samples": 5, "size": 64, "seed": 0, "truth": truth}
    found = specimens(listing, tiles=tmp_path, **where)
    assert [s.name.split("@")[0] for s in found[:2]] != [s.name.split("@")[0] for s in found[1:3]]
    assert len({s.name for s in found}) == 5
    for one in found:
        x, y, width, height = one.window
        name = one.name.split("@")[0]
        inside = np.asarray(tifffile.imread(tmp_path / f"{name}.tiff"))[y : y + height, x : x + width][::2, ::2]
        flat = np.s_[..., 4:28, 4:28]  # away from the edges, which resampling blurs
        np.testing.assert_allclose(one.image[flat], (inside.transpose(2, 0, 1) / 255)[flat], atol=0.02)
        mask = np.asarray(Image.open(tmp_path / f"k{name[1:]}.png"))[y : y + height, x : x + width][::2, ::2] > 0
        np.testing.assert_array_equal(one.mask, mask)
    with pytest.raises(ValueError, match="give --tiles"):
        specimens(listing, tiles=None, **where)
    rest = replace(listing, samples=listing.samples[listing.samples["role"] != "valpx"])
    with pytest.raises(ValueError, match="no samples in split 'valpx'"):
        specimens(rest, tiles=tmp_path, **{**where, "split": "valpx"})


def test_means_and_wins_by_hand():
    drops = {"a": [0.1, 0.2, np.nan], "b": [0.2, 0.2, 0.1], "c": [0.0, 0.3, 0.1]}
    measured = {name: [{"average-drop": v, "curves": {}} for v in values] for name, values in drops.items()}
    rates = win_rates(["win-rate"], measured)
    np.testing.assert_array_equal(rates["a"]["b"], [1, 0, np.nan])
    np.testing.assert_array_equal(rates["b"]["c"], [0, 1, 0])
    found = summary(["win-rate", "average-drop"], measured["a"], ["p", "q", "r"], rates["a"], 0)
    assert found["win-rate"]["value"] == pytest.approx((0.5 + 0.5) / 2)
    assert found["average-drop"]["value"] == pytest.approx(0.15)
    assert found["average-drop"]["samples"] == 2


def test_the_trained_nets_class_stays(root):
    listing = read_manifest(root / "m.parquet")
    chosen = specimens(listing, split="test", fold=0, samples=3, size=64, seed=0, tiles=None, truth=None)
    for map_class, targets in (("positive", [1, 1, 1]), ("truth", [s.label for s in chosen])):
        assert Probed.of(net(5), chosen, METHODS, map_class, 1).targets == targets
    found = Probed.of(net(5), chosen, METHODS[:1], "truth", 1)
    other = net(6)
    with torch.inference_mode():
        weight = other.head.weight.numpy()
        for s, t, m in zip(chosen, found.targets, found.redrawn(other)["cam"], strict=True):
            features = other.encode(torch.from_numpy(s.image[None])).last[0].numpy()
            np.testing.assert_allclose(m, np.tensordot(weight[t], features, 1), rtol=1e-3, atol=1e-3 * np.abs(m).max())
