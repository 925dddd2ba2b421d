from __future__ import annotations

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import shapely
import torch

from wsol.data import TileBatches, draw_tiles, label_tiles
from wsol.data.manifest import masks_table
from wsol.data.masks import Masks
from wsol.slides.annotations import PolygonRegion


def grid_table(columns=4, lines=3, side=8, **more):
    y, x = (v.ravel() * side for v in np.mgrid[:lines, :columns])
    table = pd.DataFrame({"x": x, "y": y, "width": side, "height": side, **more})
    table.attrs = {"mpp": 0.5, "tile_px": side}
    return table


def test_camelyon_rule_by_area():
    """A half plane x < 13.6: tiles of column 0 are full, of column 1 hold 0.7; x < 9.6 leaves 0.2 of it, 9.5 less."""
    for edge, labels in ((13.6, [1, 1, -1, -1]), (9.6, [1, 1, -1, -1]), (9.5, [1, -1, -1, -1])):
        region = PolygonRegion(shapely.box(-5, -5, edge, 100))
        table = label_tiles(grid_table(), region, label=1, positive=True, least=0.2)
        assert table["label"].tolist() == labels * 3
        np.testing.assert_allclose(table["foreground"], [1, (edge - 8) / 8, 0, 0] * 3)
    assert table.attrs == {"mpp": 0.5, "tile_px": 8}
    assert table["label"].dtype == np.int64


def test_normal_tiles_come_from_normal_slides_only():
    normal = label_tiles(grid_table(), None, label=0, positive=False)
    assert normal["label"].tolist() == [0] * 12
    assert (normal["foreground"] == 0).all()
    nowhere = PolygonRegion(shapely.box(500, 500, 501, 501))
    assert set(label_tiles(grid_table(), nowhere, label=2, positive=True)["label"]) == {-1}
    with pytest.raises(ValueError, match="a positive slide needs its annotation"):
        label_tiles(grid_table(), None, label=1, positive=True)
    with pytest.raises(ValueError, match=r"in \(0, 1\]; got 20"):
        label_tiles(grid_table(), None, label=0, positive=False, least=20)
    assert label_tiles(grid_table().iloc[:0], nowhere, label=1, positive=True).empty


def slide(shares):
    return pd.DataFrame({"foreground": np.asarray(shares, float), "label": np.where(np.asarray(shares) >= 0.2, 1, -1)})


def normal(count):
    return pd.DataFrame({"foreground": np.zeros(count), "label": np.zeros(count, np.int64)})


def drawn(tables, how, seed=0):
    positives = {name: name.startswith("t") for name in tables}
    return draw_tiles(tables, positives, how, np.random.default_rng(seed))


def test_all_labeled_tiles():
    found = drawn({"t0": slide([0.1, 0.3, 0.9, 0.2]), "n0": normal(3)}, "labeled")
    assert {name: indices.tolist() for name, indices in found.items()} == {"t0": [1, 2, 3], "n0": [0, 1, 2]}


def survey_tables():
    rng = np.random.default_rng(1)
    low = [rng.uniform(0.2, 0.5, 300) for _ in range(2)]
    high = [rng.uniform(0.5001, 1.0, 3000) for _ in range(2)]
    tables = {f"t{i}": slide(np.concatenate([[0.05] * 7, low[i], high[i]])) for i in range(2)}
    return tables | {"n0": normal(20), "n1": normal(900), "n2": normal(900)}


@pytest.mark.parametrize("seed", range(3))
def test_survey_sampling_as_documented(seed):
    """600 tiles up to half full, all kept; 1 % of that, 6, of the fuller ones; 606 normal ones, equally from each slide."""
    tables = survey_tables()
    found = drawn(tables, "camelyon16-survey", seed)
    shares = np.concatenate([tables[n]["foreground"].to_numpy()[found[n]] for n in ("t0", "t1")])
    assert (shares <= 0.5).sum() == 600
    assert (shares > 0.5).sum() == 6
    assert shares.min() >= 0.2
    assert [len(found[n]) for n in ("n0", "n1", "n2")] == [20, 293, 293]
    for indices in found.values():
        assert len(np.unique(indices)) == len(indices)
        assert (np.diff(indices) > 0).all()
    other = drawn(tables, "camelyon16-survey", seed + 10)
    assert not np.array_equal(found["n1"], other["n1"])
    assert all(
        np.array_equal(a, b) for a, b in zip(found.values(), drawn(tables, "camelyon16-survey", seed).values(), strict=True)
    )


def test_survey_sampling_as_released_keeps_a_hundred_for_one():
    tables = survey_tables()
    found = drawn(tables, "camelyon16-survey-released")
    shares = np.concatenate([tables[n]["foreground"].to_numpy()[found[n]] for n in ("t0", "t1")])
    fuller = (shares > 0.5).sum()
    assert 6 < 400 < fuller <= 600  # six draws of up to 100, of bins of 600
    assert (shares <= 0.5).sum() == 600
    assert sum(len(found[n]) for n in ("n0", "n1", "n2")) == len(shares)


def test_the_survey_takes_what_there_is():
    """Fewer normal tiles than wanted, no fuller ones, a slide without a labeled tile."""
    tables = {"t0": slide([0.3] * 250), "t1": slide([0.1]), "n0": normal(30), "n1": normal(40)}
    found = drawn(tables, "camelyon16-survey")
    assert {name: len(indices) for name, indices in found.items()} == {"t0": 250, "t1": 0, "n0": 30, "n1": 40}
    late = drawn({"t0": slide([0.3] * 50), "n0": normal(90), "n1": normal(3)}, "camelyon16-survey")
    assert [len(late[n]) for n in ("n0", "n1")] == [47, 3]  # what the last slide lacks comes from the first


def test_unknown_draws_and_tables_without_labels():
    with pytest.raises(ValueError, match="unknown draw of tiles 'camelyon16'"):
        drawn({"n0": normal(1)}, "camelyon16")
    with pytest.raises(ValueError, match=r"'n0' has no labels; set tile.labels: annotation"):
        drawn({"n0": grid_table()}, "labeled")


@pytest.fixture
def slides(picture, rows):
    """Two plain-image slides of twelve 8-px tiles, valued by slide and tile; of the positive one tiles 0, 1, 4 are labeled."""
    paths = []
    for i in range(2):
        tiles = np.arange(12, dtype=np.uint8).reshape(3, 4) + 100 * i
        paths.append(picture(f"slide{i}.png", np.repeat(np.kron(tiles, np.ones((8, 8), np.uint8))[..., None], 3, 2)))
    region = PolygonRegion(shapely.Polygon([(0, 0), (16, 0), (0, 16)]))
    tables = {
        "s0": label_tiles(grid_table(), None, label=0, positive=False),
        "s1": label_tiles(grid_table(), region, label=1, positive=True, least=0.5),
    }
    return rows(paths, [0, 1]), tables


def test_batches_of_tiles_have_the_labels_of_tiles(slides):
    rows, tables = slides
    loader = TileBatches(rows, tables, batch_size=4, positives=[1])
    assert len(loader) == 4
    batches = list(loader)
    assert [len(b) for b in batches] == [4, 4, 4, 3]
    assert all(b.groups is None for b in batches)
    values = torch.cat([(b.images[:, 0, 0, 0] * 255).round().int() for b in batches]).tolist()
    assert values == [*range(12), 100, 101, 104]
    assert torch.cat([b.labels for b in batches]).tolist() == [0] * 12 + [1] * 3
    assert [s for b in batches for s in b.samples] == ["s0"] * 12 + ["s1"] * 3


def test_an_epoch_draws_every_tile_once_and_balance_is_between_tiles(slides):
    rows, tables = slides
    loader = TileBatches(rows, tables, batch_size=4, positives=[1], generator=torch.Generator().manual_seed(0))
    epochs = [[(b.images[:, 0, 0, 0] * 255).round().int().tolist() for b in loader] for _ in range(2)]
    assert epochs[0] != epochs[1]
    for epoch in epochs:
        assert sorted(v for batch in epoch for v in batch) == [*range(12), 100, 101, 104]
    balanced = TileBatches(rows, tables, batch_size=4, positives=[1], balanced=True, generator=torch.Generator().manual_seed(0))
    assert torch.bincount(torch.cat([b.labels for b in balanced])).tolist() == [12, 12]


def test_nothing_labeled_is_an_error(slides):
    rows, tables = slides
    bare = {"s1": tables["s1"].assign(label=-1)}
    with pytest.raises(ValueError, match="none of the 1 slides has a labeled tile"):
        TileBatches(rows[1:], bare, batch_size=2, positives=[1])


def masks(tmp_path, file, values):
    rows = [{"sample": "a", "mask": str(file), "kind": "file", "values": values}]
    rows += [{"sample": "b", "mask": "", "kind": "empty", "values": []}]
    return Masks(tmp_path / "masks.parquet", masks_table(rows))


def test_masks_open_as_regions(tmp_path):
    square = [[[0, 0], [10, 0], [10, 10], [0, 10]]]
    features = [
        {"geometry": {"type": "Polygon", "coordinates": square}, "properties": {"classification": {"name": name}}}
        for name in ("Tumor", "Stroma")
    ]
    features[1]["geometry"]["coordinates"] = [[[20, 0], [30, 0], [30, 10], [20, 10]]]
    (tmp_path / "a.geojson").write_text(json.dumps({"features": features}))
    ids = np.zeros((20, 40), np.uint8)
    ids[:10, :10], ids[:10, 20:30] = 1, 2
    cv2.imwrite(str(tmp_path / "a.png"), ids)
    corners = np.array([[0, 0], [20, 0], [10, 10]])
    for file, some in (("a.geojson", ["Tumor"]), ("a.png", [1])):
        for values, expected in (([], [1, 1, 0]), (some, [1, 0, 0])):
            truth = masks(tmp_path, tmp_path / file, values)
            np.testing.assert_allclose(truth.region("a", (40, 20)).shares(corners, 10), expected, atol=1e-12)
            assert truth.region("b", (40, 20)) is None
            assert truth.opened == {"a", "b"}
    with pytest.raises(FileNotFoundError, match=r"its mask .*gone\.xml is missing"):
        masks(tmp_path, tmp_path / "gone.xml", []).region("a", (40, 20))
